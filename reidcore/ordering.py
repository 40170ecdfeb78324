"""Rows in order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def ascending(values: Tensor) -> Tensor:
    """[R, W] with every row in ascending order, NaN last.

    On a CPU NumPy puts values in order some twenty times as fast as torch, which keeps their places
    too.
    """
    if values.device.type != "cpu":
        return values.sort(1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))
