"""Finds numbers that are not finite: weights, templates and distances that have them are worth
nothing, and are neither saved nor ranked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def is_finite(value: Tensor) -> bool:
    """Return True if no entry is NaN or infinite. Takes no memory, but waits for a GPU."""
    if not value.numel() or not (value.is_floating_point() or value.is_complex()):
        return True
    if value.is_complex() or value.element_size() < 2:  # these have no least and greatest entry
        value = torch.view_as_real(value) if value.is_complex() else value.float()
    low, high = value.detach().aminmax()  # NaN wherever one entry is
    return bool(torch.isfinite(low) & torch.isfinite(high))


def faults(value: Tensor) -> str:
    """Return how many entries are not finite, as words, such as "3 of 512 values are NaN"."""
    nan, wrong = int(value.isnan().sum()), int((~value.isfinite()).sum())
    what = "NaN" if nan == wrong else "NaN or infinite" if nan else "infinite"
    return f"{wrong} of {value.numel()} values are {what}"


def tensors_in(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield (dotted name, tensor) of all tensors in nested dicts, lists and tuples."""
    if isinstance(state, Tensor):
        yield name, state
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(state, Mapping):
        inner = state.items()
    elif isinstance(state, list | tuple):
        inner = enumerate(state)
    for key, value in inner:
        yield from tensors_in(value, f"{name}.{key}" if name else str(key))
