"""Re-identification from exported graphs, which `reid export RUN_DIR -o DIR` makes, without torch.

embed = Embedder("DIR")
vectors = embed(["a.jpg", crop])  # float32 [2, D]
near, distances = rank(embed.templates(new), embed.templates(known), Matcher("DIR"))
"""

from reid_runtime.embedder import Embedder
from reid_runtime.folder import ExportError
from reid_runtime.matcher import Matcher, rank

__all__ = ["Embedder", "ExportError", "Matcher", "rank"]
