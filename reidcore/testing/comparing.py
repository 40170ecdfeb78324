"""Comparisons of tensors, alone and in containers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reidcore.testing.failures import ConformanceError

_CLOSE = 1e-3
"""Differences by rounding, of the largest value."""


def same(first: Any, second: Any) -> bool:
    """Return True if tensors are bit-identical, in dicts and lists as well."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(v, second[k]) for k, v in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def check_same_numbers(found: Tensor, expected: Tensor, what: str) -> None:
    """Raise `ConformanceError` where numbers differ by more than rounding."""
    worst = float((found.double() - expected.double()).abs().amax()) if found.numel() else 0.0
    largest = float(expected.double().abs().amax()) if expected.numel() else 0.0
    if worst > _CLOSE * max(largest, 1e-6):
        raise ConformanceError(
            f"{what} differ by up to {worst:g}, where the largest is {largest:g}"
        )
