"""A ranking's distances: matchers scaled and added, shortlists, and what postprocessors may ask."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isqrt
from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.contracts.component import Matching
from reidcore.contracts.parts import Matcher, Template
from reidcore.contracts.pictures import Meta
from reidcore.distributed.processes import ALONE, Processes
from reidcore.errors import DataError, PluginError
from reidcore.model.model import Model
from reidcore.model.training_pairs import Pairs
from reidcore.ranking.distances import score
from reidcore.ranking.kept_blocks import CPU, KeptBlocks
from reidcore.ranking.scales import Scale, fit, row_minmax
from reidcore.ranking.templates import count, moved, take
from reidcore.runfiles.tables import FITTED, RankingTable
from reidcore.support.device_memory import at_once

_ORDERED = 1 << 22
"""Entries of the distance matrix that a shortlist orders at once; each takes some 30 bytes."""
ROWS = 512
"""Rows of a block at most, and queries that are scored at a time."""
_DISTANCES = 1 << 22, 1 << 26
"""Distances of a block at most where they are not of few queries; on a CPU they stay in cache."""
_HELD = 1 << 31
"""Bytes of blocks that are held for further parts of a ranking."""


_TOGETHER, _CHEAP = (16, 512), 10**4
"""Pictures whose listed pairs are scored as one block, on a CPU and on a GPU, where a pair takes at
most so many FLOP: the pairs that nobody asked for cost less than a call for each picture."""
_FEW, _DEAR = (1, 16), (10**4, 10**7)
"""The same where a pair takes more, but at most so many."""
_GATHERED = 1 << 22, 1 << 28
"""Bytes of templates that are picked at once, on a CPU so few that they are still in its cache when
the matcher reads them; what is picked at once is memory that is new to the process."""


@attrs.frozen(eq=False)
class Share:
    """One matcher's share in a ranking: its weight, and what is done to its distances."""

    name: str
    matcher: Matcher
    matching: Matching
    weight: float = 1.0
    scale: Scale | None = None


@attrs.frozen(eq=False)
class Shortlisting:
    """Of each query only the `top` nearest gallery pictures by `share`'s own distances are scored,
    equally near ones in the gallery's order. unit: whether the scores lie in [0, 1]."""

    share: Share
    top: int
    unit: bool


class MatcherRanking:
    """What a postprocessor may ask (`reidcore.modules.Ranking`), from stored templates.

    Distances are the weighted sum of the shares' scaled ones. templates: {side: {matcher:
    template}}. by_row: every row of query x gallery distances is stretched to [0, 1], so that
    distances between other sides would not compare with it and are refused. shortlist: what it
    leaves out gets larger distances than all that is scored for the query, in the order of the
    matcher that chooses; distances between other sides are refused. kept: where the blocks of long
    jobs are kept and looked for. memo: what `of_gallery` found for the same gallery and shares.
    device: where matchers compute, by default where `query` and `gallery` are; there all distances
    are that anybody gets.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        query: Meta,
        gallery: Meta,
        templates: Mapping[str, Mapping[str, Template]],
        memory: float = 0.5,
        by_row: bool = False,
        shortlist: Shortlisting | None = None,
        kept: KeptBlocks | None = None,
        memo: dict[str, Any] | None = None,
        processes: Processes = ALONE,
        device: torch.device | None = None,
    ):
        self.query = query
        self.gallery = gallery
        self._shares = tuple(shares)
        self._templates = templates
        self._memory = memory
        self._by_row = by_row
        self._shortlist = shortlist
        self._kept = kept
        self._held: dict[tuple[str, str, str, int], Tensor] = {}
        self._memo = {} if memo is None else memo
        self._processes = processes
        self._device = query.camera.device if device is None else device

    @property
    def symmetric(self) -> bool:
        """Whether two pictures' distance does not depend on which of them is the query."""
        return all(share.matching.symmetric for share in self._shares)

    def everyone(self, value: Tensor) -> list[Tensor]:
        return self._processes.everyone(value)

    def whole(self) -> Tensor:
        """float32 [Q, G], the rows of `between` of queries and gallery. Processes share them."""
        shape = len(self.query), len(self.gallery)
        distances = torch.empty(shape, dtype=torch.float32, device=self.query.camera.device)
        step = rows_at_once(shape[1], self._memory, self._device)
        blocks = [slice(first, min(first + step, shape[0])) for first in range(0, shape[0], step)]
        for _, rows in self._processes.share(blocks):
            distances[rows] = self.between("query", "gallery", rows.start, rows.stop)
        self._processes.complete(distances, blocks)
        return distances

    def of_gallery(self, key: str, make: Callable[[], Any]) -> Any:
        # Another search may do on the CPU what does not fit on the GPU.
        key = f"{key} on {self.query.camera.device}"
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def _refuse(self, asked: str) -> None:
        why = "scale = 'row_minmax'" if self._by_row else "a shortlist"
        if self._by_row or self._shortlist is not None:
            raise PluginError(
                f"a postprocessor asked for {asked}, which {why} does not allow; "
                "its check() lacks given.need_matcher_distances()"
            )

    def _sum(self, measure: Callable[[Share], Tensor]) -> Tensor:
        total: Tensor | None = None
        for share in self._shares:
            distances = measure(share)
            if self._by_row:
                distances = row_minmax(distances)
            elif share.scale is not None:
                distances = share.scale(distances)
            if share.weight != 1:
                distances = distances * share.weight
            total = distances if total is None else total.add_(distances)
        assert total is not None
        return total

    def _score(self, share: Share, a: Template, b: Template) -> Tensor:
        found = score(share.matcher, share.matching, a, b, self._memory, self._device)
        return found.to(self.query.camera.device)

    def _side(self, share: Share, side: str) -> Template:
        return self._templates[side][share.name]

    def between(self, a: str, b: str, start: int, stop: int) -> Tensor:
        if (a, b) != ("query", "gallery"):
            self._refuse(f"distances between {a} and {b}")
        elif self._shortlist is not None:
            return self._shortlisted(self._shortlist, start, stop)
        return self._sum(lambda share: self._rows(share, a, b, start, stop))

    @torch.no_grad()
    def within(self, side: str, entries: int) -> Iterator[tuple[int, int, Tensor]]:
        self._refuse(f"distances between {side} and {side}")
        size = len(getattr(self, side))
        for _, (rows, columns) in self._processes.share(self._blocks(side, size, entries)):
            part = functools.partial(self._block, side=side, rows=rows, columns=columns)
            yield rows.start, columns.start, self._sum(part)

    def _blocks(self, side: str, size: int, entries: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of blocks: whole rows of long jobs, so that they can be kept; of others
        as many as make a matrix product worth its while."""
        kept = self._kept
        matchings = [share.matching for share in self._shares]
        long = [
            one
            for one in matchings
            if kept is not None and kept.takes(one, size, size, self._device)
        ]
        if long:
            assert kept is not None
            high = min(
                max(1, entries // size), *(kept.rows(one, size, self._device) for one in long)
            )
        else:
            high = max(1, min(ROWS, isqrt(entries)))
        for start in range(0, size, high):
            rows = slice(start, min(start + high, size))
            first = start if self.symmetric else 0
            wide = size if long else max(1, entries // high)
            for left in range(first, size, wide):
                yield rows, slice(left, min(left + wide, size))

    def _block(self, share: Share, side: str, rows: slice, columns: slice) -> Tensor:
        """One matcher's own distances between pictures of a side."""
        own = self._side(share, side)
        size = count(own)
        compute = functools.partial(self._score, share, take(own, rows), take(own, columns))
        if self._kept is None or not self._kept.takes(share.matching, size, size, self._device):
            return compute()
        if not self.symmetric:
            return self._rows(share, side, side, rows.start, rows.stop)
        shape = rows.stop - rows.start, size - columns.start
        whole = size * (size + shape[0]) // 2
        return self._kept.block((share.name, side, f"{side}-half"), rows, shape, whole, compute)

    def _rows(self, share: Share, a: str, b: str, start: int, stop: int) -> Tensor:
        """Rows of one matcher's own distances, from kept blocks where the whole takes long."""
        left, right = self._side(share, a), self._side(share, b)
        size = count(left), count(right)
        if self._kept is None or not self._kept.takes(share.matching, *size, self._device):
            return self._score(share, take(left, slice(start, stop)), right)
        device = self.query.camera.device
        result = torch.empty(stop - start, count(right), dtype=torch.float32, device=device)
        step = min(ROWS, self._kept.rows(share.matching, count(right), self._device))
        whole = count(left) * count(right)
        # Blocks begin at multiples of their size, so that they are found whichever rows are asked.
        for first in range(start // step * step, stop, step):
            rows = slice(first, min(first + step, count(left)))
            shape = rows.stop - first, count(right)
            block = self._kept.block(
                (share.name, a, b),
                rows,
                shape,
                whole,
                functools.partial(self._score, share, take(left, rows), right),
            )
            here = slice(max(start, first), min(stop, rows.stop))
            result[here.start - start : here.stop - start] = block[
                here.start - first : here.stop - first
            ]
        return result

    def part(self, query: Tensor, gallery: Tensor) -> MatcherRanking:
        """The ranking of some of the queries and gallery pictures alone, such as those of a trial.

        query, gallery: int64, their places, ascending. The matchers' own distances are taken from
        blocks of rows that are computed once for all parts, as far as they can be held or kept.
        """
        return _Part(self, query, gallery)

    def _picked(self, share: Share, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        """Rows i and columns j of one matcher's own distances."""
        blocks = i.div(ROWS, rounding_mode="floor")
        parts = [
            self._held_block(share, a, b, number)[i[blocks == number] - number * ROWS][:, j]
            for number in blocks.unique().tolist()
        ]
        return torch.cat(parts) if parts else torch.empty(0, len(j), device=i.device)

    def _held_block(self, share: Share, a: str, b: str, number: int) -> Tensor:
        key = (share.name, a, b, number)
        if key not in self._held:
            stop = min((number + 1) * ROWS, count(self._side(share, a)))
            block = self._rows(share, a, b, number * ROWS, stop)
            size = sum(held.nbytes for held in self._held.values())
            while self._held and size + block.nbytes > _HELD:
                size -= self._held.pop(next(iter(self._held))).nbytes
            self._held[key] = block
        return self._held[key]

    def _shortlisted(self, shortlist: Shortlisting, start: int, stop: int) -> Tensor:
        result = self.query.camera.new_empty(stop - start, len(self.gallery), dtype=torch.float32)
        for rows, order in self._ordered(shortlist, start, stop):
            listed = order[:, : shortlist.top]
            scored = self._sum(functools.partial(self._listed, rows=rows, listed=listed))
            _put_behind(result[rows.start - start : rows.stop - start], order, scored)
        return result

    def _ordered(
        self, shortlist: Shortlisting, start: int, stop: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Some queries at a time, and int64 [q, G] the gallery from near to far for the matcher
        that chooses."""
        share = shortlist.share
        queries, gallery = self._side(share, "query"), self._side(share, "gallery")
        step = max(1, _ORDERED // max(1, len(self.gallery)))
        for first in range(start, stop, step):
            rows = slice(first, min(first + step, stop))
            coarse = self._score(share, take(queries, rows), gallery)
            yield rows, coarse.argsort(dim=1, stable=True)

    def _listed(self, share: Share, rows: slice, listed: Tensor) -> Tensor:
        """[q, N]: one matcher's own distances of some queries' listed gallery pictures."""
        queries, gallery = self._side(share, "query"), self._side(share, "gallery")
        return torch.stack(
            [
                self._listed_row(share, take(queries, slice(row, row + 1)), gallery, index)
                for row, index in zip(range(rows.start, rows.stop), listed, strict=True)
            ]
        )

    def _listed_row(self, share: Share, one: Template, others: Template, index: Tensor) -> Tensor:
        """[N]: one matcher's own distances of one picture and the others at `index` [N]."""
        size = sum(value[0].numel() * value.element_size() for value in others.values())
        limit = at_once(_GATHERED, self._device)
        parts = index.split(max(1, limit // size))
        return torch.cat([self._score(share, one, take(others, part))[0] for part in parts])

    def offered(self, distances: Tensor) -> Tensor:
        """`distances` as the first postprocessor gets them, in place: what a shortlist leaves out
        of distances in [0, 1] is at 1, as far as can be."""
        if self._shortlist is not None and self._shortlist.unit:
            distances.clamp_(max=1)
        return distances

    def complete(self, distances: Tensor, start: int) -> Tensor:
        """What postprocessors made of rows `start` and following, with what a shortlist leaves out
        behind the rest again; without a shortlist `distances` itself."""
        if self._shortlist is None:
            return distances
        result = torch.empty_like(distances)
        for rows, order in self._ordered(self._shortlist, start, start + len(distances)):
            here = slice(rows.start - start, rows.stop - start)
            scored = distances[here].gather(1, order[:, : self._shortlist.top])
            _put_behind(result[here], order, scored)
        return result

    @torch.no_grad()
    def pairs(self, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        self._refuse("listed pairs")
        return self._sum(lambda share: self._pairs(share, a, i, b, j))

    def _pairs(self, share: Share, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        left_side, right_side = self._side(share, a), self._side(share, b)
        result = torch.empty(len(i), dtype=torch.float32, device=i.device)
        if not len(i):
            return result
        # Listed pairs come in groups of one left side.
        lefts, counts = i.unique(return_counts=True)
        together = _together(share.matching, self._device)
        ends = counts.cumsum(0)[together - 1 :: together].tolist()
        groups = i.argsort(stable=True).tensor_split(ends)
        for some, where in zip(lefts.split(together), groups, strict=False):
            own = take(left_side, some)
            if together == 1:
                result[where] = self._listed_row(share, own, right_side, j[where])
                continue
            rights, column = j[where].unique(return_inverse=True)
            block = self._score(share, own, take(right_side, rights))
            result[where] = block[torch.searchsorted(some, i[where]), column]
        return result

    @torch.no_grad()
    def expanded(self, neighbours: Tensor) -> Tensor:
        if self._shortlist is not None:
            self._refuse("expanded queries")
        return self._sum(lambda share: self._expanded(share, neighbours))

    def _expanded(self, share: Share, neighbours: Tensor) -> Tensor:
        own, others = self._side(share, "query"), self._side(share, "gallery")
        shape = len(neighbours), count(others)
        result = torch.empty(shape, dtype=torch.float32, device=neighbours.device)
        # Every neighbour is one more template in memory, and merging may copy them all.
        size = sum(spec.bytes for spec in share.matching.template.values())
        merged = 2 * max(1, size) * (1 + neighbours.shape[1])
        step = max(1, int(self._memory * 2**30) // merged)
        for first in range(0, len(neighbours), step):
            rows = slice(first, first + step)
            near = neighbours[rows].unbind(1)
            views = [take(own, rows), *(take(others, index) for index in near)]
            views = [moved(view, self._device) for view in views]
            result[rows] = self._score(share, share.matcher.merge(views), others)
        return result


def _together(matching: Matching, device: torch.device) -> int:
    """Pictures whose listed pairs are scored as one block."""
    if matching.pair_flops <= _CHEAP:
        return at_once(_TOGETHER, device)
    return at_once(_FEW, device) if matching.pair_flops <= at_once(_DEAR, device) else 1


class _Part(MatcherRanking):
    """Some queries and gallery pictures of a whole ranking, by their places."""

    def __init__(self, whole: MatcherRanking, query: Tensor, gallery: Tensor):
        super().__init__(
            whole._shares,
            whole.query[query],
            whole.gallery[gallery],
            whole._templates,
            whole._memory,
            whole._by_row,
            whole._shortlist,
            processes=whole._processes,
            device=whole._device,
        )
        self._whole = whole
        device = self.query.camera.device
        self._places = {"query": query.to(device), "gallery": gallery.to(device)}

    def _side(self, share: Share, side: str) -> Template:
        return take(self._whole._side(share, side), self._places[side])

    def _rows(self, share: Share, a: str, b: str, start: int, stop: int) -> Tensor:
        i, j = self._places[a][start:stop], self._places[b]
        return self._whole._picked(share, a, i, b, j)

    def _block(self, share: Share, side: str, rows: slice, columns: slice) -> Tensor:
        places = self._places[side]
        return self._whole._picked(share, side, places[rows], side, places[columns])


def rows_at_once(gallery: int, memory: float, device: torch.device = CPU) -> int:
    """Queries whose distances to the gallery are held together, in `memory` GiB: some hundred, so
    that a matrix product is worth its while, but on a CPU no more than are in cache if they can be
    so few.
    """
    held = int(memory * 2**30) // max(1, 4 * gallery)
    few = at_once(_DISTANCES, device) // max(1, gallery)
    return max(1, min(ROWS, held, max(ROWS // 4, few)))


def _put_behind(result: Tensor, order: Tensor, scored: Tensor) -> None:
    """Fills [q, G]: `scored` [q, N] for the first of `order` [q, G], and for the others larger
    whole numbers that rise with their place in it."""
    places = torch.arange(order.shape[1], dtype=result.dtype, device=result.device)
    # Whole numbers keep apart up to 2^24, so the farthest stays ahead of rounding.
    behind = scored.amax(1, keepdim=True).ceil().clamp(min=1) + 1
    result.scatter_(1, order, behind + places)
    result.scatter_(1, order[:, : scored.shape[1]], scored)


def ranking_of(
    model: Model,
    ranking: RankingTable,
    query: Meta,
    gallery: Meta,
    templates: Mapping[str, Mapping[str, Template]],
    memory: float,
    pairs: Mapping[str, Pairs],
    kept: KeptBlocks | None = None,
    memo: dict[str, Any] | None = None,
    processes: Processes = ALONE,
) -> MatcherRanking:
    """The ranking context of two sides. `pairs` holds the matchers' distances of training pairs.

    Raises DataError for a scale that has to be fitted where they are missing.
    """

    def share(name: str, weight: float = 1.0, scale: Scale | None = None) -> Share:
        return Share(name, model.matchers[name], model.plan.matching(name), weight, scale)

    shares = [
        share(name, weight, _fitted(ranking, name, pairs))
        for name, weight in ranking.weights.items()
    ]
    shortlist = None
    if ranking.shortlist is not None:
        promised = {one.name: one.matching.unit for one in shares}
        shortlist = Shortlisting(
            share(ranking.shortlist.by), ranking.shortlist.top, ranking.unit(promised)
        )
    by_row = ranking.scale == "row_minmax"
    return MatcherRanking(
        shares,
        query,
        gallery,
        templates,
        memory,
        by_row,
        shortlist,
        kept,
        memo,
        processes,
        model.device,
    )


def _fitted(ranking: RankingTable, matcher: str, pairs: Mapping[str, Pairs]) -> Scale | None:
    if ranking.scale not in FITTED:
        return None
    place = f"ranking {ranking.name!r}: matcher {matcher!r}"
    if matcher not in pairs:
        raise DataError(
            f"{place}: scale = {ranking.scale!r} is fitted on training pairs, but the run has kept "
            "none: it was trained without data.train, or these are weights-best.safetensors of a "
            "run whose own rankings need none"
        )
    try:
        return fit(ranking.scale, pairs[matcher])
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
