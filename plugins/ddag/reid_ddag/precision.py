"""Arithmetic that mixed precision leaves alone."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """float32 of what autocast made half; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
