"""reidcore: a plugin framework for object re-identification."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reidcore.search import Search

__version__ = "1.0.0"


def load(
    folder: str | os.PathLike[str],
    evaluation: str | os.PathLike[str] | None = None,
    device: str = "auto",
    losses: bool = False,
) -> Search:
    """A trained run, ready to make templates of pictures and to rank them.

    See `reidcore.search.load`; here so that `import reidcore` alone does not import torch.
    """
    from reidcore.search import load as load_run

    return load_run(folder, evaluation, device, losses)
