"""Ranks of matches by counting who is closer: the scores of `metrics.rank_queries`, without
ranking.

A match's rank follows from the number of strangers that are closer, and from its place among the
other matches. Rows are cut into tiles that stay in a processor's cache; of each tile the values
alone are put in order, and the matches are looked up in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import attrs
import torch
from torch import Tensor

from reidcore.evaluation.metrics import PerQuery, check_ways, refuse_nan
from reidcore.evaluation.relevance import Judgements
from reidcore.protocols.score_names import Precision, Ties
from reidcore.support.device_memory import at_once, in_parts
from reidcore.support.sorting import ascending

TILE = 1 << 20, 1 << 15
"""Entries and columns of a tile at most, on a CPU."""
LAUNCHED = 1 << 24, 1 << 24
"""The same on a GPU, where a tile takes some 40 bytes for each."""
_COMPARED = 1 << 18, 1 << 24
"""Entries that are compared at once, where strangers are exactly as far as a match."""


def count_queries(
    distances: Tensor,
    judged: Judgements,
    ties: Ties = "gallery",
    precision: Precision = "step",
    tile: tuple[int, int] | None = None,
) -> PerQuery:
    """Return what `metrics.rank_queries` does for the same pairs, in a fraction of its time and
    memory.

    distances: [Q, G], smaller is closer; it is not changed. judged: of these queries, on the same
    device. ties, precision: see `rank_queries`. tile: entries and columns of a tile at most, which
    change no score; where a GPU's memory runs out, tiles are halved. Raises ReidError for NaN and
    ValueError for shapes that differ.
    """
    if tuple(distances.shape) != judged.shape:
        raise ValueError(f"distances {list(distances.shape)} for {list(judged.shape)} judged pairs")
    check_ways(ties, precision)
    if distances[judged.row, judged.column].isnan().any():
        refuse_nan(distances)
    queries, gallery = judged.shape
    if tile is None:
        tile = TILE if distances.device.type == "cpu" else LAUNCHED
    columns = max(1, min(tile[1], gallery))
    rows = max(1, tile[0] // columns)
    matches = _Matches.among(distances, judged)
    strangers = _Strangers.none(matches, ties)

    def count(start: int) -> None:
        in_parts(add, slice(start, min(start + rows, queries)))

    def add(here: slice) -> None:
        strangers.forget(here)
        block = judged.rows(here.start, here.stop)
        for first in range(0, gallery, columns):
            values = distances[here, first : first + columns].clone()
            if matches.infinite:
                values.clamp_(max=torch.finfo(values.dtype).max)
            block.hide(values, first)
            ordered = ascending(values)
            if ordered[:, -1].isnan().any():
                refuse_nan(distances[here], here.start)
            strangers.add(values, ordered, here, first)

    with _workers(distances.device) as each:
        each(count, range(0, queries, rows))
    return _scores(matches, strangers, ties, precision)


@attrs.frozen(eq=False)
class _Matches:
    """The matches that count of Q queries, each query's in the first of n slots by distance, equal
    ones in the gallery's order.

    distance: [Q, n], infinite in empty slots alone; what was infinite has the largest number there
    is. column: int64 [Q, n]. count: int64 [Q]. infinite: whether a distance was.
    """

    distance: Tensor
    column: Tensor
    count: Tensor
    infinite: bool

    @classmethod
    def among(cls, distances: Tensor, judged: Judgements) -> _Matches:
        counted = judged.match & ~judged.ignored
        row, column = judged.row[counted], judged.column[counted]
        value = distances[row, column]
        order = value.argsort(stable=True)
        order = order[row[order].argsort(stable=True)]
        count = row.bincount(minlength=judged.shape[0])
        slot = torch.arange(len(row), device=row.device)
        slot -= (count.cumsum(0) - count).repeat_interleave(count)
        shape = judged.shape[0], int(count.max()) if len(count) else 0
        nearest, columns = value.new_full(shape, torch.inf), column.new_zeros(shape)
        largest = torch.finfo(value.dtype).max
        nearest[row, slot] = value[order].clamp(max=largest)
        columns[row, slot] = column[order]
        return cls(nearest, columns, count, bool((value > largest).any()))


@attrs.frozen(eq=False)
class _Strangers:
    """The numbers of strangers before each match, int64 [Q, n]: those closer, those at exactly its
    distance, and those of these before it in the gallery's order, where ties need it."""

    matches: _Matches
    ordered: bool
    closer: Tensor
    equal: Tensor
    before: Tensor

    @classmethod
    def none(cls, matches: _Matches, ties: Ties) -> _Strangers:
        zeros = torch.zeros_like(matches.column).expand(3, -1, -1).clone()
        return cls(matches, ties in ("gallery", "grouped"), *zeros)

    def forget(self, rows: slice) -> None:
        """Begin again with some queries."""
        for counted in (self.closer, self.equal, self.before):
            counted[rows] = 0

    def add(self, values: Tensor, ordered: Tensor, rows: slice, first: int) -> None:
        """Count the strangers among the columns from `first` on.

        values: [q, w], infinite for all that are no strangers. ordered: the same in ascending
        order.
        """
        wanted = self.matches.distance[rows]
        closer = torch.searchsorted(ordered, wanted)
        equal = torch.searchsorted(ordered, wanted, right=True) - closer
        equal.masked_fill_(wanted.isinf(), 0)
        self.closer[rows] += closer
        self.equal[rows] += equal
        if not self.ordered:
            return
        tied = equal.nonzero()
        position = torch.arange(first, first + values.shape[1], device=values.device)
        step = max(1, at_once(_COMPARED, values.device) // values.shape[1])
        for row, slot in (part.unbind(1) for part in tied.split(step)):
            same = values[row] == wanted[row, slot, None]
            same &= position < self.matches.column[rows][row, slot, None]
            self.before[rows.start + row, slot] += same.sum(1)


@contextmanager
def _workers(device: torch.device) -> Iterator[Callable[[Callable[[int], None], range], object]]:
    """Does jobs in as many threads as torch would use, each on its own: NumPy sorts in one."""
    count = torch.get_num_threads()
    if device.type != "cpu" or count == 1:
        yield lambda job, jobs: deque(map(job, jobs), 0)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count) as pool:
            yield lambda job, jobs: deque(pool.map(job, jobs), 0)
    finally:
        torch.set_num_threads(count)


def _scores(matches: _Matches, strangers: _Strangers, ties: Ties, precision: Precision) -> PerQuery:
    count, slots = matches.count, matches.distance.shape[1]
    if not slots:
        nothing = torch.zeros_like(count, dtype=torch.float64)
        return PerQuery(count, nothing, nothing, count)
    hits = torch.arange(1, slots + 1, device=count.device)
    rank = strangers.closer + hits
    if ties != "optimistic":
        rank += strangers.equal if ties == "pessimistic" else strangers.before
    if ties == "grouped":
        # Precision is that of the group's last place, and before it of the former group's last.
        former = torch.searchsorted(matches.distance, matches.distance)
        hits = torch.searchsorted(matches.distance, matches.distance, right=True)
        here = hits / (strangers.closer + strangers.equal + hits).double()
        earlier = former, strangers.closer + former
    else:
        here = hits / rank.double()
        earlier = hits - 1, rank - 1
    if precision == "trapezoid":
        found, places = earlier
        here = (here + torch.where(places > 0, found / places.clamp(min=1).double(), 1.0)) / 2
    filled = torch.arange(slots, device=count.device) < count[:, None]
    last = rank.gather(1, (count - 1).clamp(min=0)[:, None])[:, 0]
    return PerQuery(
        first=rank[:, 0] * (count > 0),
        ap=torch.where(filled, here, 0.0).sum(1) / count.clamp(min=1).double(),
        inp=count / last.double(),
        matches=count,
    )
