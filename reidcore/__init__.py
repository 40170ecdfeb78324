"""reidcore: a plugin framework for object re-identification."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reidcore.version import __version__

if TYPE_CHECKING:
    from reidcore.search.search import Search

__all__ = ["__version__", "load"]


def load(
    folder: str | os.PathLike[str],
    evaluation: str | os.PathLike[str] | None = None,
    device: str = "auto",
    losses: bool = False,
) -> Search:
    """A trained run, ready to make templates of pictures and to rank them.

    See `reidcore.search.search.load`; here so that `import reidcore` alone does not import torch.
    """
    from reidcore.search.search import load as load_run

    return load_run(folder, evaluation, device, losses)
