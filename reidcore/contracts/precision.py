"""Arithmetic that mixed precision leaves alone."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(value: Tensor) -> Tensor:
    """Return a tensor in float32, or as it is if it is float64.

    Under autocast features may have 16 bits; this is for what would suffer from them, such as
    distances, norms and sums.

    Args:
        value: A tensor of any real dtype and shape.

    Returns:
        The tensor itself where nothing has to change.

    Example:
        >>> import torch
        >>> from reidcore.modules import at_least_float32
        >>> at_least_float32(torch.ones(2, dtype=torch.float16)).dtype
        torch.float32
    """
    return value.to(torch.promote_types(value.dtype, torch.float32))
