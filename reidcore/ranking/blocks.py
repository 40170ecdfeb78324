"""The matchers' own distances in blocks of rows: how large they are, which are held in memory, and
which are kept on disk."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from math import isqrt
from typing import Protocol

import torch
from torch import Tensor

from reidcore.ranking.distances import MatcherDistances
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.kept_blocks import SetBlocks, block_rows, is_long
from reidcore.ranking.resources import Resources
from reidcore.ranking.templates import take
from reidcore.support.device_memory import CPU, at_once

ROWS = 512
"""Rows of a block at most."""
HELD = 1 << 31
"""Bytes of blocks that are held for further parts of a ranking."""
_DISTANCES = 1 << 22, 1 << 26
"""Distances of a block at most where they are not of few queries; on a CPU they stay in cache."""


def rows_at_once(gallery: int, memory: float, device: torch.device = CPU) -> int:
    """Return the number of queries whose distances to the gallery are held together.

    They fit into `memory` GiB. They are some hundred, so that a matrix product is worth its while,
    but on a CPU no more than are in cache if they can be so few.
    """
    held = int(memory * 2**30) // max(1, 4 * gallery)
    few = at_once(_DISTANCES, device) // max(1, gallery)
    return max(1, min(ROWS, held, max(ROWS // 4, few)))


class Blocks(Protocol):
    """The own distances of a ranking's matchers, block by block."""

    def rows(self, share: Share, a: str, b: str, rows: slice) -> Tensor:
        """Return some rows of one matcher's distances between two sides, float32 [rows, len(b)]."""

    def within(self, share: Share, side: str, rows: slice, columns: slice) -> Tensor:
        """Return one matcher's distances in one of the blocks that `cut` yields."""

    def cut(self, side: str, entries: int) -> Iterator[tuple[slice, slice]]:
        """Yield the rows and columns of the blocks, of about `entries` numbers, that make up the
        distances within a side. Where these are symmetric, a pair of pictures comes once, apart
        from blocks that begin on the diagonal."""


class WholeBlocks:
    """`Blocks` of the distances between all pictures of both sides. Those of long jobs are kept on
    disk, if `resources` say so."""

    def __init__(self, fusion: Fusion, own: MatcherDistances, resources: Resources):
        self._fusion, self._own = fusion, own
        self._sides, self._kept = own.sides, resources.kept
        self._held: dict[tuple[str, str, str, int], Tensor] = {}

    def _keeping(self, share: Share, a: str, b: str) -> SetBlocks | None:
        """The blocks on disk, if one matcher's distances between two sides take so long that they
        are kept."""
        rows, columns = self._sides.size(a), self._sides.size(b)
        return self._kept if is_long(share.matching, rows, columns, self._own.device) else None

    def rows(self, share: Share, a: str, b: str, rows: slice) -> Tensor:
        left, right = (self._sides.template(side, share.name) for side in (a, b))
        kept = self._keeping(share, a, b)
        if kept is None:
            return self._own.between(share, take(left, rows), right)
        size, width = self._sides.size(a), self._sides.size(b)
        shape = rows.stop - rows.start, width
        result = torch.empty(shape, dtype=torch.float32, device=self._sides.device)
        step = min(ROWS, block_rows(share.matching, width, self._own.device))
        # Blocks begin at multiples of their size, so that they are found whichever rows are asked.
        for first in range(rows.start // step * step, rows.stop, step):
            here = slice(first, min(first + step, size))
            block = kept.block(
                (share.name, a, b),
                here,
                (here.stop - first, width),
                size * width,
                functools.partial(self._own.between, share, take(left, here), right),
            )
            wanted = slice(max(rows.start, first), min(rows.stop, here.stop))
            result[wanted.start - rows.start : wanted.stop - rows.start] = block[
                wanted.start - first : wanted.stop - first
            ]
        return result

    def within(self, share: Share, side: str, rows: slice, columns: slice) -> Tensor:
        own = self._sides.template(side, share.name)
        compute = functools.partial(self._own.between, share, take(own, rows), take(own, columns))
        kept = self._keeping(share, side, side)
        if kept is None:
            return compute()
        if not self._fusion.symmetric:
            return self.rows(share, side, side, rows)
        size = self._sides.size(side)
        shape = rows.stop - rows.start, size - columns.start
        whole = size * (size + shape[0]) // 2
        return kept.block((share.name, side, f"{side}-half"), rows, shape, whole, compute)

    def cut(self, side: str, entries: int) -> Iterator[tuple[slice, slice]]:
        size = self._sides.size(side)
        long = [
            share for share in self._fusion.shares if self._keeping(share, side, side) is not None
        ]
        if not long:
            yield from _cut(size, entries, self._fusion.symmetric)
            return
        # Whole rows, so that they can be kept.
        device = self._own.device
        most = (block_rows(share.matching, size, device) for share in long)
        high = min(max(1, entries // size), *most)
        for start in range(0, size, high):
            first = start if self._fusion.symmetric else 0
            yield slice(start, min(start + high, size)), slice(first, size)

    def picked(self, share: Share, sides: tuple[str, str], i: Tensor, j: Tensor) -> Tensor:
        """Return rows i and columns j, int64, of one matcher's distances between two sides.

        They are taken from whole rows, which are held in memory for the next call.
        """
        numbers = i.div(ROWS, rounding_mode="floor")
        parts = [
            self._held_rows(share, *sides, number)[i[numbers == number] - number * ROWS][:, j]
            for number in numbers.unique().tolist()
        ]
        return torch.cat(parts) if parts else torch.empty(0, len(j), device=i.device)

    def _held_rows(self, share: Share, a: str, b: str, number: int) -> Tensor:
        key = (share.name, a, b, number)
        if key not in self._held:
            stop = min((number + 1) * ROWS, self._sides.size(a))
            block = self.rows(share, a, b, slice(number * ROWS, stop))
            size = sum(held.nbytes for held in self._held.values())
            while self._held and size + block.nbytes > HELD:
                size -= self._held.pop(next(iter(self._held))).nbytes
            self._held[key] = block
        return self._held[key]


class PartBlocks:
    """`Blocks` of the distances between some of the pictures, picked from those of all.

    places: {side: int64, places of its pictures among all}.
    """

    def __init__(self, whole: WholeBlocks, places: dict[str, Tensor], symmetric: bool):
        self._whole, self._places, self._symmetric = whole, places, symmetric

    def rows(self, share: Share, a: str, b: str, rows: slice) -> Tensor:
        return self._whole.picked(share, (a, b), self._places[a][rows], self._places[b])

    def within(self, share: Share, side: str, rows: slice, columns: slice) -> Tensor:
        places = self._places[side]
        return self._whole.picked(share, (side, side), places[rows], places[columns])

    def cut(self, side: str, entries: int) -> Iterator[tuple[slice, slice]]:
        yield from _cut(len(self._places[side]), entries, self._symmetric)


def _cut(size: int, entries: int, symmetric: bool) -> Iterator[tuple[slice, slice]]:
    """Yield blocks with as many rows as make a matrix product worth its while."""
    high = max(1, min(ROWS, isqrt(entries)))
    wide = max(1, entries // high)
    for start in range(0, size, high):
        for left in range(start if symmetric else 0, size, wide):
            yield slice(start, min(start + high, size)), slice(left, min(left + wide, size))
