"""Torch half of the contracts, for a plugin's modules: base classes, pictures and runs.

Plugins import this module from their torch files, never from `plugin.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reidcore.contracts.exporting import is_exporting
from reidcore.contracts.fused import Fused, Unfit
from reidcore.contracts.parts import Context, Extract, Loss, Matcher, Template, Unowned
from reidcore.contracts.pictures import Batch, Images, Meta, Rows
from reidcore.contracts.precision import at_least_float32
from reidcore.contracts.run_interfaces import Ask, RankedList, RankedPicture, Ranking, Run
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
    "RankedList",
    "RankedPicture",
    "Ranking",
    "Rows",
    "Run",
    "Template",
    "Unfit",
    "Unowned",
    "at_least_float32",
    "grad_cam",
    "is_exporting",
    "open_run",
]


def open_run(folder: str | Path, device: str = "auto") -> Any:
    """Return the trained model of a run folder, in eval mode, with all that its rankings need.

    To rank pictures with it, `reidcore.load` is simpler.

    Args:
        folder: A run folder, or hf://USER/NAME, as `reidcore.load` takes it.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        A `reidcore.model.model.Model`, a `torch.nn.Module`: `model(images)` returns the features of
        `Images` by full name. These are normalised pixels with modalities and cameras; a float
        tensor [B, 3, H, W] of the pixels alone will do. `images` of what `reidcore.load` returns
        makes them of pictures.

    Raises:
        ReidError: The folder is no finished run, or a plugin it needs is missing; the text says
            what is wrong.

    Example:
        >>> import torch
        >>> from reidcore.modules import Images, open_run
        >>> model = open_run("runs/demo", device="cpu")
        >>> zeros = torch.zeros(2).long()
        >>> images = Images(torch.zeros(2, 3, 32, 16), modality=zeros, camera=zeros)
        >>> with torch.no_grad():
        ...     features = model(images)
        >>> features["neck.bn"].shape
        torch.Size([2, 64])
        >>> with torch.no_grad():
        ...     features = model(torch.zeros(2, 3, 32, 16))
        >>> features["neck.bn"].shape
        torch.Size([2, 64])
    """
    from reidcore.runfolder.opening import open_model
    from reidcore.runfolder.shared import run_folder

    return open_model(run_folder(folder), device)
