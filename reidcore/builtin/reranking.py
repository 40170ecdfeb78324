"""Postprocessor of the core: k-reciprocal re-ranking."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor

from reidcore.builtin.neighbours import AllPairs, Neighbours, RankingPairs
from reidcore.builtin.settings.postprocessors import Rerank as RerankSettings
from reidcore.contracts.parts import Context
from reidcore.contracts.precision import at_least_float32
from reidcore.contracts.run_interfaces import Ranking
from reidcore.support.device_memory import at_once, in_parts
from reidcore.support.sorting import ascending

ENTRIES = 2**22, 2**26
"""Numbers in the largest block of rows. On a CPU 16 MiB, above which glibc asks for new memory each
time; on a GPU 256 MiB, of which a few exist at once."""


@attrs.frozen(eq=False)
class Sparse:
    """A sparse matrix by rows.

    Attributes:
        start: int64 [N + 1]; the entries of row r are those from start[r] to start[r + 1] - 1.
        column: int64 [E], column of every entry.
        value: [E], value of every entry.
    """

    start: Tensor
    column: Tensor
    value: Tensor

    def lengths(self, rows: Tensor) -> Tensor:
        """Return the number of entries in each of the listed rows."""
        return self.start[rows + 1] - self.start[rows]

    def entries(self, rows: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the places of all entries in the listed rows, and their number in each row.

        Args:
            rows: int64 [R].
            total: Number of all these entries, if known, so that the host need not wait for it.
        """
        first, lengths = self.start[rows], self.lengths(rows)
        shift = first - lengths.cumsum(0) + lengths
        shift = shift.repeat_interleave(lengths, output_size=total)
        return shift.add_(torch.arange(len(shift), device=rows.device)), lengths


class Rerank:
    """k-reciprocal re-ranking (Zhong et al. 2017, sections 3.2 to 3.4), exact, without an [N, N]
    array.

    Memory besides `distances`: a few blocks of rows of `entries` numbers, and for each of the N
    pictures 12 bytes for each of its k1 + 1 nearest and 40 for each member of its encoding, of
    which there are 20 to 100 on average at k1 = 20 and k2 = 6: 1 to 4 KiB for a picture. The
    matcher is asked once for all distances of queries x queries and gallery x gallery, and for few
    of them again.
    """

    def __init__(self, config: RerankSettings, entries: int = 0):
        self.config = config
        self._entries = entries

    def entries(self, device: torch.device) -> int:
        """Return the most numbers of a block of rows on this device."""
        return self._entries or at_once(ENTRIES, device)

    @torch.no_grad()
    def __call__(self, distances: Tensor, ranking: Ranking) -> Tensor:
        entries = self.entries(distances.device)
        return self.rerank(distances, RankingPairs(distances, ranking, entries))

    def rerank(self, distances: Tensor, source: AllPairs) -> Tensor:
        """Re-rank `distances` [Q, G] in place, in their dtype; the result lies in [0, 1]."""
        queries, gallery = distances.shape
        if not distances.numel():
            return distances
        kept = min(queries + gallery, max(self.config.k1 + 1, self.config.k2))
        found = source.neighbours(kept)
        encodings = self._encodings(found, source)
        if self.config.k2 > 1:
            encodings = self._averaged(encodings, found.index[:, : self.config.k2])
        members = _transposed(encodings, queries)
        share = self.config.weight

        def mix(rows: slice) -> None:
            jaccard = self._jaccard(encodings, members, rows, gallery)
            own = self._scaled(distances[rows], found.farthest[rows, None])
            # With `half` the factor is a float16 too, as in the published program.
            mixed = jaccard * jaccard.new_tensor(1 - share) + share * own
            distances[rows] = mixed.clamp(0, 1)

        for rows in _blocks(0, queries, gallery, self.entries(distances.device)):
            in_parts(mix, rows)
        return distances

    def _scaled(self, distances: Tensor, farthest: Tensor) -> Tensor:
        """Return distances divided by the largest of their row, in [0, 1]; 0 where all are 0."""
        scaled = distances / farthest.where(farthest > 0, 1)
        return scaled.square() if self.config.square else scaled

    def _stored(self, value: Tensor) -> Tensor:
        return value.half() if self.config.half else value

    def _encodings(self, found: Neighbours, source: AllPairs) -> Sparse:
        """Return every picture's expanded reciprocal neighbours, with weights of sum 1."""
        # Python rounds a half to the even number, as numpy does in the published programs.
        outer = found.index[:, : self.config.k1 + 1]
        inner = found.index[:, : round(self.config.k1 / 2) + 1]
        entries = self.entries(outer.device)
        blocks = list(_blocks(0, len(outer), outer.shape[1] ** 2, entries))

        def encoded(rows: slice) -> Sparse:
            return self._weighted(expanded(reciprocal(outer, rows), sets), rows, found, source)

        near = functools.partial(reciprocal, inner)
        sets = torch.cat([part for rows in blocks for part in in_parts(near, rows)])
        return _joined([part for rows in blocks for part in in_parts(encoded, rows)])

    def _weighted(
        self, members: Tensor, rows: slice, found: Neighbours, source: AllPairs
    ) -> Sparse:
        """Return weights exp(-distance), of sum 1, of some rows' `members` [R, W]."""
        present = members < len(found.index)
        known, order = found.index[rows].sort(1)
        place, kept = _locate(known, members)
        distance = found.distance[rows].gather(1, order).gather(1, place)
        row, slot = (present & ~kept).nonzero(as_tuple=True)
        distance[row, slot] = source.pairs(row + rows.start, members[row, slot])
        weight = torch.exp(-self._scaled(distance, found.farthest[rows, None])) * present
        value = (weight / weight.sum(1, keepdim=True))[present]
        return Sparse(_starts(present.sum(1)), members[present], self._stored(value))

    def _averaged(self, encodings: Sparse, lists: Tensor) -> Sparse:
        """Return the mean encoding of every picture's neighbours, `lists` [N, K]."""
        pictures, count = lists.shape

        def averaged(rows: slice) -> Sparse:
            found = [encodings.entries(lists[rows, k]) for k in range(count)]
            first = torch.arange(rows.stop - rows.start, device=lists.device) * pictures
            keys = [
                first.repeat_interleave(lengths).add_(encodings.column[place])
                for place, lengths in found
            ]
            union, target = torch.cat(keys).unique(return_inverse=True)
            total = at_least_float32(encodings.value.new_empty(0)).new_zeros(len(union))
            # In one list no member comes twice, so the order of the sums is fixed on any device.
            targets = target.split([len(key) for key in keys])
            for (place, _), where in zip(found, targets, strict=True):
                total[where] += encodings.value[place]
            lengths = (union // pictures).bincount(minlength=rows.stop - rows.start)
            value = self._stored(total / count)
            return Sparse(_starts(lengths), union % pictures, value)

        width = max(1, count * int(encodings.start.diff().max()))
        blocks = _blocks(0, pictures, width, self.entries(lists.device))
        return _joined([part for rows in blocks for part in in_parts(averaged, rows)])

    def _jaccard(self, encodings: Sparse, members: Sparse, rows: slice, gallery: int) -> Tensor:
        """Return Jaccard distances [R, G] of some queries: 1 - sum of minima / sum of maxima."""
        start = encodings.start[rows]
        sizes, order = encodings.start[rows.start : rows.stop + 1].diff().sort(descending=True)
        start, first = start[order], order * gallery
        shared = encodings.value.new_zeros(len(order) * gallery)
        # One member of each query at a time: no sum gets two terms at once, so their order is
        # fixed on any device. Queries with many members come first, and what a turn takes is
        # counted before, because to ask a GPU in each turn would take longer than the turn.
        turns = torch.arange(int(sizes[0]), device=start.device)
        entry = (start[:, None] + turns).clamp(max=len(encodings.column) - 1)
        taken = sizes[:, None] > turns
        totals = members.lengths(encodings.column[entry]) * taken
        for slot, (many, total) in enumerate(
            torch.stack([taken.sum(0), totals.sum(0)], 1).tolist()
        ):
            here = entry[:many, slot]
            place, lengths = members.entries(encodings.column[here], total)
            target = first[:many].repeat_interleave(lengths, output_size=total)
            target += members.column.index_select(0, place)  # far faster than by brackets
            own = encodings.value[here].repeat_interleave(lengths, output_size=total)
            least = torch.minimum(own, members.value.index_select(0, place))
            shared.scatter_add_(0, target, least)
        shared = shared.view(-1, gallery)
        return 1 - shared / (2 - shared)


def reciprocal(lists: Tensor, rows: slice) -> Tensor:
    """Return the mutual neighbours of some rows of `lists` [N, K]; N where one is not mutual."""
    mine = torch.arange(rows.start, rows.stop, device=lists.device)[:, None, None]
    mutual = (lists[lists[rows]] == mine).any(2)
    return lists[rows].where(mutual, len(lists))


def expanded(outer: Tensor, inner: Tensor) -> Tensor:
    """Return sets of reciprocal neighbours, joined with similar sets of their members.

    A member's set is joined if more than two thirds of it are in the row's own set (Zhong et al.
    2017, eq. 3).

    Args:
        outer: int64 [R, K], the sets of some rows; N is no member.
        inner: int64 [N, H], smaller sets of all pictures; N is no member.

    Returns:
        int64 [R, W], ascending; N is no member.
    """
    absent = len(inner)
    outer = ascending(outer)
    present = outer < absent
    near = inner[outer.where(present, 0)]
    counted = near < absent
    common = _locate(outer, near.flatten(1))[1].view_as(near) & counted
    joins = present & (3 * common.sum(2) > 2 * counted.sum(2))
    near = near.where(joins[:, :, None], absent)
    members = ascending(torch.cat([outer, near.flatten(1)], 1))
    members[:, 1:].masked_fill_(members[:, 1:] == members[:, :-1], absent)
    return members


def _locate(ordered: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return where `values` [R, W] are in their rows of `ordered` [R, K], and if they are there."""
    place = torch.searchsorted(ordered, values).clamp(max=ordered.shape[1] - 1)
    return place, ordered.gather(1, place) == values


def _starts(lengths: Tensor) -> Tensor:
    """Return the places at which rows of these lengths start, and the end of the last."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _joined(parts: Sequence[Sparse]) -> Sparse:
    """Return one matrix with the rows of all parts."""
    lengths = torch.cat([part.start.diff() for part in parts])
    columns, values = [part.column for part in parts], [part.value for part in parts]
    return Sparse(_starts(lengths), torch.cat(columns), torch.cat(values))


def _transposed(matrix: Sparse, first: int) -> Sparse:
    """Return the transpose of a square matrix's rows from `first` on; its columns count from 0."""
    lengths = matrix.start[first:].diff()
    row = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    tail = slice(int(matrix.start[first]), None)
    column, order = matrix.column[tail].sort(stable=True)
    starts = _starts(column.bincount(minlength=len(matrix.start) - 1))
    return Sparse(starts, row[order], matrix.value[tail][order])


def _blocks(start: int, stop: int, width: int, entries: int) -> Iterator[slice]:
    """Yield slices of start..stop with at most `entries` numbers each, `width` of them in a row."""
    rows = max(1, entries // width)
    for first in range(start, stop, rows):
        yield slice(first, min(first + rows, stop))


def build_rerank(config: RerankSettings, context: Context) -> Rerank:
    return Rerank(config)
