"""The torch half of the contracts: what components are built from and what they are given.

Plugins import this module from their torch files, never from `plugin.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reidcore.contracts.fused import Fused, Unfit
from reidcore.contracts.parts import Context, Extract, Loss, Matcher, Template, Unowned
from reidcore.contracts.pictures import Batch, Images, Meta, Rows
from reidcore.contracts.precision import at_least_float32
from reidcore.contracts.running import Ask, Ranking, Run
from reidcore.search.heatmaps import grad_cam

__all__ = [
    "Ask",
    "Batch",
    "Context",
    "Extract",
    "Fused",
    "Images",
    "Loss",
    "Matcher",
    "Meta",
    "Ranking",
    "Rows",
    "Run",
    "Template",
    "Unfit",
    "Unowned",
    "at_least_float32",
    "grad_cam",
    "open_run",
]


def open_run(folder: str | Path, device: str = "auto") -> Any:
    """A trained model from its run folder, in eval mode, with what its rankings need.

    Returns a `reidcore.model.model.Model`. Raises `reidcore.errors.ReidError` with what is wrong.
    """
    from reidcore.runfolder.opening import open_model

    return open_model(Path(folder), device)


Builder = Callable[[Any, Context], Any]
