"""Who is near whom among all N pictures of a ranking, without an [N, N] array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import attrs
import torch
from torch import Tensor

from reidcore.modules import Ranking

_CACHED = 1 << 20
"""Numbers that are looked at several times in a row, so that they stay in a processor's cache."""


@attrs.frozen(eq=False)
class Block:
    """Rows `start` and following, columns `first` and following of [N, N]. mirrored: the columns'
    pictures have these distances to the rows' too, except to those that are rows themselves."""

    start: int
    first: int
    distances: Tensor
    mirrored: bool = False


@attrs.frozen(eq=False)
class Neighbours:
    """The beginning of every picture's ranking of all pictures.

    index, distance: [N, L], nearest first, equal distances in the order of pictures. farthest: [N],
    the largest distance in the whole row.
    """

    index: Tensor
    distance: Tensor
    farthest: Tensor

    def behind(self, others: int) -> Neighbours:
        """The same with `others` pictures before these, of which it knows nothing."""
        index = torch.cat([self.index.new_zeros(others, self.index.shape[1]), self.index + others])
        distance = self.distance.new_full((others, self.index.shape[1]), torch.inf)
        nothing = self.farthest.new_zeros(others)
        return Neighbours(
            index, torch.cat([distance, self.distance]), torch.cat([nothing, self.farthest])
        )


class AllPairs(Protocol):
    """Distances between all N = Q + G pictures, the queries first, then the gallery."""

    def neighbours(self, kept: int) -> Neighbours:
        """Everyone's nearest `kept` pictures."""

    def pairs(self, i: Tensor, j: Tensor) -> Tensor:
        """The entries (i[k], j[k]) of [N, N], as [K]."""


class RankingPairs:
    """`AllPairs` of a ranking and its distances [Q, G].

    The picture of a row is on the query side, except between a gallery picture and a query: there
    the query is, so that gallery x queries is the transpose of queries x gallery. entries: numbers
    of the largest block of rows.
    """

    def __init__(self, distances: Tensor, ranking: Ranking, entries: int):
        self.distances = distances
        self.ranking = ranking
        self.queries = distances.shape[0]
        self.entries = entries

    def neighbours(self, kept: int) -> Neighbours:
        queries, gallery = self.distances.shape
        key = f"nearest {kept} of {self.distances.dtype}"
        known = self.ranking.of_gallery(key, lambda: self._within("gallery", min(kept, gallery)))
        found = Gathered.of(known.behind(queries), kept)
        rows = max(1, self.entries // gallery)
        for block in self._blocks("query"):
            found.add(block)
        for start in range(0, queries, rows):
            found.add(Block(start, queries, self.distances[start : start + rows], mirrored=True))
        return found.neighbours()

    def _within(self, side: str, kept: int) -> Neighbours:
        size = {"query": self.queries, "gallery": self.distances.shape[1]}[side]
        found = Gathered.nothing(size, kept, self.distances)
        for block in self._blocks(side):
            found.add(block)
        return found.neighbours()

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
    """Neighbours, gathered block by block, in any order of blocks.

    A block's distances are compared with the farthest neighbour so far; what is not farther is put
    in order with the others.
    """

    def __init__(self, index: Tensor, distance: Tensor, farthest: Tensor):
        self._index, self._distance, self._farthest = index, distance, farthest

    @classmethod
    def nothing(cls, pictures: int, kept: int, like: Tensor) -> Gathered:
        index = torch.zeros(pictures, kept, dtype=torch.int64, device=like.device)
        distance = like.new_full((pictures, kept), torch.inf)
        return cls(index, distance, like.new_zeros(pictures))

    @classmethod
    def of(cls, known: Neighbours, kept: int) -> Gathered:
        """Goes on from what is known, which may be fewer than `kept` for each picture."""
        more = len(known.index), kept - known.index.shape[1]
        return cls(
            torch.cat([known.index, known.index.new_zeros(more)], 1),
            torch.cat([known.distance, known.distance.new_full(more, torch.inf)], 1),
            known.farthest.clone(),
        )

    def neighbours(self) -> Neighbours:
        return Neighbours(self._index, self._distance, self._farthest)

    def add(self, block: Block) -> None:
        distances = block.distances
        if not distances.numel():
            return
        self._add(block.start, block.first, distances, distances.split(self._slice(distances)), 1)
        if not block.mirrored:
            return
        if block.start <= block.first < (stop := block.start + len(distances)):
            block = attrs.evolve(block, first=stop, distances=distances[:, stop - block.first :])
            distances = block.distances
        if distances.numel():
            parts = distances.split(self._slice(distances))
            self._add(block.first, block.start, distances, parts, 0)

    @staticmethod
    def _slice(distances: Tensor) -> int:
        return max(1, _CACHED // distances.shape[1])

    def _add(
        self, start: int, first: int, block: Tensor, parts: Sequence[Tensor], across: int
    ) -> None:
        """Offers pictures `start` and following the distances to `first` and following: the rows of
        a block (across 1) or its columns (across 0). parts: the block's rows in slices."""
        count, others = (len(block), block.shape[1])[:: 1 if across else -1]
        here = slice(start, start + count)
        limit = self._distance[here, -1]
        places, offset, full = [], 0, bool(limit.isinf().any())
        for part in parts:
            rows = slice(offset, offset + len(part))
            mine = here if not across else slice(start + rows.start, start + rows.stop)
            torch.maximum(self._farthest[mine], part.amax(across), out=self._farthest[mine])
            if not full:
                near = part <= (limit[rows, None] if across else limit)
                found = near.nonzero()
                found[:, 0] += offset
                places.append(found)
                full = sum(map(len, places)) > count * self._distance.shape[1]
            offset += len(part)
        if full:
            wide = block if across else block.T.contiguous()
            values, columns = nearest([wide], min(self._distance.shape[1], others))
            pictures = torch.arange(start, start + count, device=block.device)
            self._merge(pictures, columns + first, values)
            return
        row, column = torch.cat(places).unbind(1)
        value = block[row, column]
        self._list(*((row, column) if across else (column, row)), value, start, first)

    def _list(self, mine: Tensor, other: Tensor, value: Tensor, start: int, first: int) -> None:
        """Offers single pairs."""
        order = mine.argsort(stable=True)
        mine, other, value = mine[order], other[order], value[order]
        pictures, counts = mine.unique_consecutive(return_counts=True)
        if not len(pictures):
            return
        row = torch.arange(len(pictures), device=mine.device).repeat_interleave(counts)
        slot = torch.arange(len(mine), device=mine.device)
        slot -= (counts.cumsum(0) - counts).repeat_interleave(counts)
        shape = len(pictures), int(counts.max())
        index, distance = other.new_zeros(shape), value.new_full(shape, torch.inf)
        index[row, slot], distance[row, slot] = other + first, value
        self._merge(pictures + start, index, distance)

    def _merge(self, pictures: Tensor, index: Tensor, distance: Tensor) -> None:
        kept = self._distance.shape[1]
        known = self._index[pictures]
        if len(pictures) and (known.amax() <= index.amin()):
            index = torch.cat([known, index], 1)
            distance = torch.cat([self._distance[pictures], distance], 1)
        else:
            index, order = torch.cat([index, known], 1).sort(1)
            distance = torch.cat([distance, self._distance[pictures]], 1).gather(1, order)
        distance, nearer = distance.sort(dim=1, stable=True)
        self._distance[pictures] = distance[:, :kept]
        self._index[pictures] = index.gather(1, nearer)[:, :kept]


def nearest(blocks: Sequence[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """The `count` smallest values of each row and their columns, [R, count] each, in ascending
    order, equal ones in that of columns. `blocks` are the blocks of columns, [R, ...] each."""
    values, index, first = [], [], 0
    for block in blocks:
        columns = _smallest(block, count)
        values.append(block.gather(1, columns))
        index.append(columns + first)
        first += block.shape[1]
    merged, order = torch.cat(values, 1).sort(dim=1, stable=True)
    return merged[:, :count], torch.cat(index, 1).gather(1, order[:, :count])


def _smallest(block: Tensor, count: int) -> Tensor:
    """The columns of the `count` smallest of each row, in the order of columns."""
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
    return index.sort(1).values
