"""The smallest values of rows, and rows in ascending order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def ascending(values: Tensor) -> Tensor:
    """Return [R, W] with every row in ascending order, NaN last.

    On a CPU NumPy puts values in order some twenty times as fast as torch, which keeps their places
    too.
    """
    if values.device.type != "cpu":
        return values.sort(1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


def smallest(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return (index, value), [R, size] each, on the CPU: the smallest of every row, ascending,
    equal ones by their column; index -1 where a value is infinite."""
    least, index = smallest_in_blocks([values], size)
    return torch.where(least.isinf(), -1, index).cpu(), least.cpu()


def smallest_in_blocks(blocks: Sequence[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Return (value, column), [R, count] each: the smallest of every row, ascending, equal ones by
    their column. `blocks` are the blocks of columns, [R, ...] each."""
    values, index, first = [], [], 0
    for block in blocks:
        columns = _smallest_columns(block, count)
        values.append(block.gather(1, columns))
        index.append(columns + first)
        first += block.shape[1]
    merged, order = torch.cat(values, 1).sort(dim=1, stable=True)
    return merged[:, :count], torch.cat(index, 1).gather(1, order[:, :count])


def _smallest_columns(block: Tensor, count: int) -> Tensor:
    """Return the columns of the `count` smallest of each row, in ascending order of columns."""
    rows, columns = block.shape
    if columns <= count:
        return torch.arange(columns, device=block.device).expand(rows, columns)
    values, index = block.topk(count + 1, largest=False)
    index = index[:, :count]
    # Which of equal values topk takes is open; where it matters, the first ones are taken.
    tied = (values[:, count - 1] == values[:, count]).nonzero()[:, 0]
    if len(tied):
        whole, last = block[tied], values[tied, count, None]
        below, equal = whole < last, whole == last
        room = count - below.sum(1, keepdim=True)
        taken = below | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))
        index[tied] = taken.nonzero()[:, 1].view(-1, count)
    return ascending(index)
