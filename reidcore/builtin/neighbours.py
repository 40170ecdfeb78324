"""Nearest neighbours among all N pictures of a ranking, found without an [N, N] array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import attrs
import torch
from torch import Tensor

from reidcore.contracts.run_interfaces import Ranking
from reidcore.support.device_memory import at_once
from reidcore.support.sorting import smallest_in_blocks

_WAITING = 4
"""Candidates for each picture that are collected before they are sorted."""

_SORTED_AT_ONCE = 1 << 13, 1 << 16
"""Pictures whose neighbours are sorted at once, on a CPU and on a GPU."""

_READ_AT_ONCE = 1 << 20, 1 << 28
"""Numbers that are read several times in a row, on a CPU few enough for its cache."""

_SMALLEST_BLOCK = 1 << 12
"""Numbers of a block that is not made smaller, however short memory is."""


@attrs.frozen(eq=False)
class Block:
    """A block of the distances [N, N].

    Attributes:
        start: First row.
        first: First column.
        distances: [rows, columns].
        mirrored: True if the columns' pictures have these distances to the rows' too and no other
            block holds them. Columns whose pictures are rows of this block are left out of that.
    """

    start: int
    first: int
    distances: Tensor
    mirrored: bool = False


@attrs.frozen(eq=False)
class Neighbours:
    """The L nearest of all N pictures for every one of them.

    Attributes:
        index: int64 [N, L], numbers of the pictures, nearest first; equal distances in their order.
        distance: [N, L], the distances.
        farthest: [N], the largest distance of each picture to any other.
    """

    index: Tensor
    distance: Tensor
    farthest: Tensor


class AllPairs(Protocol):
    """Distances between all N = Q + G pictures, the queries first, then the gallery."""

    def neighbours(self, kept: int) -> Neighbours:
        """Return the nearest `kept` pictures of every picture."""

    def pairs(self, i: Tensor, j: Tensor) -> Tensor:
        """Return the distances [K] of the pairs (i[k], j[k])."""


class RankingPairs:
    """Distances between all pictures of a ranking, from its own distances [Q, G] and its matcher.

    The picture of a row is the matcher's query side. Only between a gallery picture and a query the
    query is, so that gallery x queries is the transpose of queries x gallery.

    Args:
        distances: [Q, G].
        ranking: The ranking, which gives the distances within queries and within the gallery.
        entries: Numbers of the largest block of rows; it shrinks where a GPU's memory runs out.
    """

    def __init__(self, distances: Tensor, ranking: Ranking, entries: int):
        self.distances = distances
        self.ranking = ranking
        self.queries = distances.shape[0]
        self.entries = entries

    def neighbours(self, kept: int) -> Neighbours:
        # Several processes share the blocks, so that one cannot begin again with others.
        alone = len(self.ranking.everyone(self.distances.new_empty(0))) == 1
        while True:
            try:
                return self._neighbours(kept)
            except torch.OutOfMemoryError:
                if not alone or self.entries < _SMALLEST_BLOCK:
                    raise
            torch.cuda.empty_cache()
            self.entries //= 4

    def _neighbours(self, kept: int) -> Neighbours:
        queries, gallery = self.distances.shape
        key = f"nearest {kept} of {self.distances.dtype}"
        theirs = self.ranking.of_gallery(key, lambda: self._within("gallery", gallery, kept))
        found = Gathered.of(self._within("query", queries, kept), theirs)
        rows = max(1, self.entries // gallery)
        for start in range(0, queries, rows):
            found.add(Block(start, queries, self.distances[start : start + rows], mirrored=True))
        return found.neighbours()

    def _within(self, side: str, size: int, kept: int) -> Neighbours:
        """Return the neighbours of a side's pictures among themselves."""
        found = Gathered.nothing(size, kept, self.distances)
        for block in self._blocks(side):
            found.add(block)
        mine = attrs.astuple(found.neighbours(), recurse=False)
        every = zip(*(self.ranking.everyone(value) for value in mine), strict=True)
        return Gathered.joined([Neighbours(*one) for one in every]).neighbours()

    def _blocks(self, side: str) -> Iterator[Block]:
        symmetric = self.ranking.symmetric
        for start, first, block in self.ranking.within(side, self.entries):
            yield Block(start, first, block.to(self.distances), symmetric)

    def pairs(self, i: Tensor, j: Tensor) -> Tensor:
        result = self.distances.new_empty(len(i))
        left, right = i < self.queries, j < self.queries
        across = left != right
        query, other = torch.minimum(i, j)[across], torch.maximum(i, j)[across]
        result[across] = self.distances[query, other - self.queries]
        for side, here, first in (
            ("query", left & right, 0),
            ("gallery", ~(left | right), self.queries),
        ):
            listed = self.ranking.pairs(side, i[here] - first, side, j[here] - first)
            result[here] = listed.to(self.distances)
        return result


class Gathered:
    """Neighbours that are gathered from blocks of distances, in any order of blocks.

    A block's distances are compared with the farthest neighbour so far. Those that are not farther
    wait until there are enough to sort them into the others.
    """

    def __init__(self, index: Tensor, distance: Tensor, farthest: Tensor):
        self._index, self._distance, self._farthest = index, distance, farthest
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        """Pictures, others, and the distances between them."""

    @classmethod
    def nothing(cls, pictures: int, kept: int, like: Tensor) -> Gathered:
        """Return the beginning, in which no picture has a neighbour."""
        index = torch.zeros(pictures, kept, dtype=torch.int64, device=like.device)
        distance = like.new_full((pictures, kept), torch.inf)
        return cls(index, distance, like.new_zeros(pictures))

    @classmethod
    def of(cls, first: Neighbours, second: Neighbours) -> Gathered:
        """Return the neighbours of two sides' pictures, each among its own side so far."""
        return cls(
            torch.cat([first.index, second.index + len(first.index)]),
            torch.cat([first.distance, second.distance]),
            torch.cat([first.farthest, second.farthest]),
        )

    @classmethod
    def joined(cls, parts: Sequence[Neighbours]) -> Gathered:
        """Return the neighbours that several processes found for the same pictures together."""
        found = cls(*attrs.astuple(parts[0], recurse=False))
        every = torch.arange(len(found._index), device=found._index.device)
        for part in parts[1:]:
            torch.maximum(found._farthest, part.farthest, out=found._farthest)
            found._merge(every, part.index, part.distance)
        return found

    def neighbours(self) -> Neighbours:
        """Return the neighbours from all blocks so far."""
        self._sort_waiting()
        return Neighbours(self._index, self._distance, self._farthest)

    def add(self, block: Block) -> None:
        """Take the distances of a block into account."""
        distances = block.distances
        if not distances.numel():
            return
        self._add(block.start, block.first, distances, distances.split(self._slice(distances)), 1)
        if not block.mirrored:
            return
        first = block.first
        if block.start <= first < (stop := block.start + len(distances)):
            first, distances = stop, distances[:, stop - first :]
        if distances.numel():
            parts = distances.split(self._slice(distances))
            self._add(first, block.start, distances, parts, 0)

    @staticmethod
    def _slice(distances: Tensor) -> int:
        return max(1, at_once(_READ_AT_ONCE, distances.device) // distances.shape[1])

    def _add(
        self, start: int, first: int, block: Tensor, parts: Sequence[Tensor], across: int
    ) -> None:
        """Offer distances to the pictures of a block's rows (across 1) or columns (across 0).

        Args:
            start: First of these pictures.
            first: First of the pictures to which they have the distances.
            block: The distances.
            parts: The block's rows in slices.
            across: Axis of the block along which one picture's distances lie.
        """
        count, others = (len(block), block.shape[1])[:: 1 if across else -1]
        here = slice(start, start + count)
        limit = self._distance[here, -1]
        places, offset, full = [], 0, bool(limit.isinf().any())
        for part in parts:
            rows = slice(offset, offset + len(part))
            mine = here if not across else slice(start + rows.start, start + rows.stop)
            farthest = self._farthest[mine]
            torch.maximum(farthest, part.amax(across), out=farthest)
            if not full:
                near = part <= (limit[rows, None] if across else limit)
                found = near.nonzero()
                found[:, 0] += offset
                places.append(found)
                full = sum(map(len, places)) > count * self._distance.shape[1]
            offset += len(part)
        if full:
            wide = block if across else block.T.contiguous()
            values, columns = smallest_in_blocks([wide], min(self._distance.shape[1], others))
            pictures = torch.arange(start, start + count, device=block.device)
            self._sort_waiting()
            self._merge(pictures, columns + first, values)
            return
        row, column = torch.cat(places).unbind(1)
        pair = (row, column) if across else (column, row)
        self._waiting.append((pair[0] + start, pair[1] + first, block[row, column]))
        if sum(len(one) for one, *_ in self._waiting) > _WAITING * len(self._index):
            self._sort_waiting()

    def _sort_waiting(self) -> None:
        """Sort the neighbours that wait into the others."""
        if not self._waiting:
            return
        mine, other, value = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting.clear()
        mine, order = mine.sort(stable=True)
        other, value = other[order], value[order]
        pictures, counts = mine.unique_consecutive(return_counts=True)
        start, together = 0, at_once(_SORTED_AT_ONCE, mine.device)
        for some, many in zip(pictures.split(together), counts.split(together), strict=True):
            if not len(some):
                return
            row = torch.arange(len(some), device=mine.device).repeat_interleave(many)
            slot = torch.arange(len(row), device=mine.device)
            slot -= (many.cumsum(0) - many).repeat_interleave(many)
            here = slice(start, start := start + len(row))
            shape = len(some), int(many.max())
            # What fills the rows is no picture, and farther than all.
            index = other.new_full(shape, len(self._index))
            distance = value.new_full(shape, torch.inf)
            index[row, slot], distance[row, slot] = other[here], value[here]
            self._merge(some, index, distance)

    def _merge(self, pictures: Tensor, index: Tensor, distance: Tensor) -> None:
        """Sort further neighbours [P, K] of some pictures into those they have."""
        kept = self._distance.shape[1]
        known = self._index[pictures]
        # Equal distances are in the order of pictures if these are, before they are sorted.
        if known.amax() <= index.amin() and bool((index.diff(dim=1) >= 0).all()):
            index = torch.cat([known, index], 1)
            distance = torch.cat([self._distance[pictures], distance], 1)
        else:
            index, order = torch.cat([index, known], 1).sort(1)
            distance = torch.cat([distance, self._distance[pictures]], 1).gather(1, order)
        distance, nearer = distance.sort(dim=1, stable=True)
        self._distance[pictures] = distance[:, :kept]
        self._index[pictures] = index.gather(1, nearer)[:, :kept]
