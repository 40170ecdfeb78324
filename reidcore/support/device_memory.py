"""The memory that a device has free, and work in parts where it is too little."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

CPU = torch.device("cpu")
T = TypeVar("T")
N = TypeVar("N", int, float)


def at_once(numbers: tuple[N, N], device: torch.device) -> N:
    """Return the first number on a CPU, where working arrays should stay in its cache, and the
    second on a GPU, where a launch costs as much as some million numbers."""
    return numbers[0] if device.type == "cpu" else numbers[1]


def free(device: torch.device) -> int:
    """Return the bytes that a GPU can still give, with what torch holds unused."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def fits(size: int, device: torch.device) -> bool:
    """Return True if so many bytes may stay on the device while work goes on: on a GPU at most half
    of what is free, on a CPU any."""
    return device.type != "cuda" or 2 * size <= free(device)


def in_parts(work: Callable[[slice], T], rows: slice) -> list[T]:
    """Return [work(rows)], or where that runs out of a GPU's memory, the results of both halves of
    the rows, and so on. Raises torch.OutOfMemoryError where one row is too much.

    work: must leave nothing behind when it runs out of memory.
    """
    done, waiting = [], [rows]
    while waiting:
        some = waiting.pop()
        try:
            done.append(work(some))
            continue
        except torch.OutOfMemoryError:
            if some.stop - some.start <= 1:
                raise
        # Not inside `except`: until it ends, the error holds what the work has allocated.
        torch.cuda.empty_cache()
        middle = (some.start + some.stop) // 2
        waiting += [slice(middle, some.stop), slice(some.start, middle)]
    return done
