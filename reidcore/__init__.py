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
    """Return a trained run, ready to rank pictures that have no labels.

    Neither data sets nor plugins that only train are needed, unless `losses` are loaded too.

    Args:
        folder: a run folder, as `reid run` leaves it.
        evaluation: a file whose rankings and postprocessors replace the run's, as in
            `reid eval RUN_DIR FILE`.
        device: where to compute: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        losses: whether to load the run's losses too, for what they explain.

    Raises:
        reidcore.errors.ReidError: with what is wrong, such as a folder that holds no finished run,
            a plugin that is not installed, or a run without matchers.

    Example::

        run = reidcore.load("runs/own-pictures")
        for match in run.rank("new", "gallery", top=3):
            print(match.query, match.rank, match.gallery, match.distance)
    """
    # Here, so that `import reidcore` alone does not import torch.
    from reidcore.search.search import load as load_run

    return load_run(folder, evaluation, device, losses)
