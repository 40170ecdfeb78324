"""Runs one postprocessor and checks its result."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reidcore.errors import PluginError, ReidError
from reidcore.wiring.plan import Wired


@torch.no_grad()
def apply_post(wired: Wired, post: Any, distances: Tensor, context: Any) -> Tensor:
    """One postprocessor, with its result checked."""
    shape = distances.shape
    try:
        result = post(distances, context)
    except ReidError as error:
        raise type(error)(f"{wired.part}: {error}") from error
    if not isinstance(result, Tensor) or result.shape != shape or result.dtype != torch.float32:
        found = f"{result.dtype} {list(result.shape)}" if isinstance(result, Tensor) else result
        raise PluginError(f"{wired.part}: returned {found} for float32 {list(shape)} distances")
    if not result.isfinite().all():
        raise PluginError(f"{wired.part}: returned distances that are not finite")
    return result
