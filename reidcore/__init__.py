"""reidcore: a plugin framework for object re-identification."""

from __future__ import annotations

import os

from reidcore.version import __version__

# Not from typing, since Ctrl-C gives a traceback until the command `reid` watches for it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from reidcore.search.search import Search

__all__ = ["__version__", "load"]


def load(
    folder: str | os.PathLike[str],
    evaluation: str | os.PathLike[str] | None = None,
    device: str = "auto",
    losses: bool = False,
) -> Search:
    """Return a trained run, ready to make templates of pictures and to rank them.

    Neither data sets nor plugins that only train are needed.

    Args:
        folder: A run folder, which `reid run` or `reid release` made, or `hf://USER/NAME`, one
            that was shared on Hugging Face, with `@REVISION` for a branch, tag or commit. It is
            kept in the cache of huggingface_hub.
        evaluation: A file whose rankings and postprocessors replace the run's, as in
            `reid eval RUN_DIR FILE`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        losses: True to load the run's losses too, for what they explain.

    Returns:
        A `reidcore.search.search.Search`. It takes pictures as a folder, a zip, a CSV file, or a
        list of paths, pictures of Pillow's, uint8 arrays [H, W, 3] and uint8 tensors [3, H, W].

    Raises:
        ReidError: The folder is no finished run, a plugin it needs is missing, or a shared run
            cannot be fetched; the text says what is wrong.

    Example:
        >>> import reidcore
        >>> run = reidcore.load("runs/demo", device="cpu")
        >>> gallery = run.templates("pictures/gallery")  # made once, searched often
        >>> query = run.templates(["pictures/query/a.jpg"])
        >>> run.distances(query, gallery).shape == (1, len(gallery))
        True
        >>> for match in run.rank(query, gallery, top=2):
        ...     print(match.rank, match.gallery, f"{match.distance:.2f}")  # doctest: +ELLIPSIS
        1 /.../pictures/gallery/....jpg 0...
        2 /.../pictures/gallery/....jpg 0...
        >>> from PIL import Image
        >>> import numpy as np
        >>> frame = np.asarray(Image.open("pictures/query/a.jpg"))  # uint8 [H, W, 3], RGB
        >>> run.rank([frame], gallery, top=3).index.shape  # places in the gallery
        torch.Size([1, 3])
    """
    # Here, so that `import reidcore` alone does not import torch.
    from reidcore.search.search import load as load_run

    return load_run(folder, evaluation, device, losses)
