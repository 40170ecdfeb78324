"""Helpers that time several ways of computing one thing in turn, and a matrix product."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def products(sizes: tuple[int, int, int], repeats: int = 1) -> Callable[[], object]:
    """Return a function that multiplies [m, k] and [k, n] some times."""
    m, n, k = sizes
    a, b, out = torch.randn(m, k), torch.randn(n, k), torch.empty(m, n)

    def run() -> None:
        for _ in range(repeats):
            torch.mm(a, b.T, out=out)

    return run


def medians(
    ways: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return median seconds of every way in `repeats` rounds, after one that is not counted."""
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if number:
                rounds[name].append(clock() - start)
    return {name: statistics.median(found) for name, found in rounds.items()}
