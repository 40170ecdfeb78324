"""A ranking by matchers: the distances between its pictures that postprocessors may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.contracts.component import Matching
from reidcore.ranking.blocks import Blocks, PartBlocks, WholeBlocks, rows_at_once
from reidcore.ranking.distances import MatcherDistances
from reidcore.ranking.fusion import ADDED_UP, Fusion, Share, by_matcher
from reidcore.ranking.resources import Resources
from reidcore.ranking.shortlist import ShortlistedDistances
from reidcore.ranking.sides import Place, Sides
from reidcore.ranking.templates import moved, take
from reidcore.support.device_memory import at_once

_TOGETHER = 16, 512
"""Pictures whose listed pairs are computed as one block, on a CPU and on a GPU, where a pair takes
at most `_CHEAP` FLOP: the pairs that nobody asked for cost less than a call for each picture."""
_CHEAP = 10**4
_FEW = 1, 16
"""The same where a pair takes more, but at most `_DEAR` FLOP."""
_DEAR = 10**4, 10**7


class MatcherRanking:
    """Implements `reidcore.modules.Ranking` by the distances of matchers between stored templates.

    fusion: the matchers, and how their distances are added up. sides: the pictures. memo: results
    of `of_gallery` for the same gallery and fusion. blocks: the source of the matchers' own
    distances; by default they are computed from the templates of the sides.
    """

    def __init__(
        self,
        fusion: Fusion,
        sides: Sides,
        resources: Resources | None = None,
        memo: dict[str, Any] | None = None,
        blocks: Blocks | None = None,
    ):
        self.fusion = fusion
        self.sides = sides
        self.resources = Resources() if resources is None else resources
        self.query = sides.query
        self.gallery = sides.gallery
        self.symmetric = fusion.symmetric
        self._memo = {} if memo is None else memo
        self._own = MatcherDistances(sides, self.resources)
        self._whole = WholeBlocks(fusion, self._own, self.resources)
        self._blocks = self._whole if blocks is None else blocks
        self._shortlisted = None
        if fusion.shortlist is not None:
            self._shortlisted = ShortlistedDistances(fusion, fusion.shortlist, self._own)

    def part(self, query: Tensor, gallery: Tensor) -> MatcherRanking:
        """Return the ranking of some of the queries and gallery pictures alone, such as a trial's.

        query, gallery: int64, their places, ascending. The matchers' own distances are taken from
        blocks of rows that are computed once for all parts, as far as they can be held or kept.
        """
        sides = self.sides.part(query, gallery)
        places = {"query": query.to(sides.device), "gallery": gallery.to(sides.device)}
        blocks = PartBlocks(self._whole, places, self.symmetric)
        resources = attrs.evolve(self.resources, kept=None)  # only blocks of the whole are kept
        return MatcherRanking(self.fusion, sides, resources, blocks=blocks)

    def everyone(self, value: Tensor) -> list[Tensor]:
        return self.resources.processes.everyone(value)

    def of_gallery(self, key: str, make: Callable[[], Any]) -> Any:
        # Another search may do on the CPU what does not fit on the GPU.
        key = f"{key} on {self.sides.device}"
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def whole(self) -> Tensor:
        """Return the distances of all queries to the whole gallery, float32 [Q, G]. Processes
        share them."""
        shape = len(self.query), len(self.gallery)
        distances = torch.empty(shape, dtype=torch.float32, device=self.sides.device)
        step = rows_at_once(shape[1], self.resources.memory, self._own.device)
        blocks = [slice(first, min(first + step, shape[0])) for first in range(0, shape[0], step)]
        for _, rows in self.resources.processes.share(blocks):
            distances[rows] = self.between("query", "gallery", rows.start, rows.stop)
        self.resources.processes.complete(distances, blocks)
        return distances

    @torch.no_grad()
    def scored(self, start: int, stop: int) -> Tensor | None:
        return None if self._shortlisted is None else self._shortlisted.scored(slice(start, stop))

    def between(self, a: str, b: str, start: int, stop: int) -> Tensor:
        rows = slice(start, stop)
        if (a, b) != ("query", "gallery"):
            self.fusion.refuse_if_incomparable(f"distances between {a} and {b}")
        elif self._shortlisted is not None:
            return self._shortlisted.rows(rows)
        return self._sum(lambda share: self._blocks.rows(share, a, b, rows), (a, start), (b, 0))

    def _sum(self, own: Callable[[Share], Tensor], rows: Place, columns: Place) -> Tensor:
        """The sum over all shares. Raises ReidError if a distance is not finite: scales and
        postprocessors might hide it."""

        def finite(share: Share) -> Tensor:
            distances = own(share)
            self.sides.require_finite(by_matcher(share), distances, rows, columns)
            return distances

        total = self.fusion.sum(finite)
        if not self.fusion.plain:
            self.sides.require_finite(ADDED_UP, total, rows, columns)
        return total

    @torch.no_grad()
    def within(self, side: str, entries: int) -> Iterator[tuple[int, int, Tensor]]:
        self.fusion.refuse_if_incomparable(f"distances between {side} and {side}")
        blocks = self._blocks.cut(side, entries)
        for _, (rows, columns) in self.resources.processes.share(blocks):
            yield rows.start, columns.start, self._within(side, rows, columns)

    def _within(self, side: str, rows: slice, columns: slice) -> Tensor:
        return self._sum(
            lambda share: self._blocks.within(share, side, rows, columns),
            (side, rows.start),
            (side, columns.start),
        )

    @torch.no_grad()
    def pairs(self, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        self.fusion.refuse_if_incomparable("listed pairs")
        return self._sum(lambda share: self._pairs(share, (a, b), i, j), (a, i), (b, j))

    @torch.no_grad()
    def expanded(self, neighbours: Tensor) -> Tensor:
        if self._shortlisted is not None:
            self.fusion.refuse_if_incomparable("expanded queries")
        return self._sum(
            lambda share: self._expanded(share, neighbours), ("query", 0), ("gallery", 0)
        )

    def before_postprocessing(self, distances: Tensor) -> Tensor:
        """Return the distances as the first postprocessor gets them; they are changed in place."""
        if self._shortlisted is None:
            return distances
        return self._shortlisted.before_postprocessing(distances)

    def after_postprocessing(self, distances: Tensor, start: int) -> Tensor:
        """Return the rows from `start` on that postprocessors have made as they rank the gallery:
        with the pictures that a shortlist leaves out behind the others again."""
        if self._shortlisted is None:
            return distances
        return self._shortlisted.after_postprocessing(distances, start)

    def _pairs(self, share: Share, sides: tuple[str, str], i: Tensor, j: Tensor) -> Tensor:
        """[K]: one matcher's own distances of the listed pairs."""
        left_side, right_side = (self.sides.template(side, share.name) for side in sides)
        result = torch.empty(len(i), dtype=torch.float32, device=i.device)
        if not len(i):
            return result
        # Listed pairs come in groups of one left side.
        lefts, counts = i.unique(return_counts=True)
        together = _together(share.matching, self._own.device)
        ends = counts.cumsum(0)[together - 1 :: together].tolist()
        groups = i.argsort(stable=True).tensor_split(ends)
        for some, where in zip(lefts.split(together), groups, strict=False):
            own = take(left_side, some)
            if together == 1:
                result[where] = self._own.to_listed(share, own, right_side, j[where])
                continue
            rights, column = j[where].unique(return_inverse=True)
            block = self._own.between(share, own, take(right_side, rights))
            result[where] = block[torch.searchsorted(some, i[where]), column]
        return result

    def _expanded(self, share: Share, neighbours: Tensor) -> Tensor:
        """[Q, G]: one matcher's own distances of expanded queries."""
        own, others = (self.sides.template(side, share.name) for side in ("query", "gallery"))
        shape = len(neighbours), len(self.gallery)
        result = torch.empty(shape, dtype=torch.float32, device=neighbours.device)
        # Every neighbour is one more template in memory, and merging may copy them all.
        size = sum(spec.bytes for spec in share.matching.template.values())
        merged = 2 * max(1, size) * (1 + neighbours.shape[1])
        step = max(1, int(self.resources.memory * 2**30) // merged)
        for first in range(0, len(neighbours), step):
            rows = slice(first, first + step)
            near = neighbours[rows].unbind(1)
            views = [take(own, rows), *(take(others, index) for index in near)]
            views = [moved(view, self._own.device) for view in views]
            result[rows] = self._own.between(share, share.matcher.merge(views), others)
        return result


def _together(matching: Matching, device: torch.device) -> int:
    """Return the number of pictures whose listed pairs are computed as one block."""
    if matching.pair_flops <= _CHEAP:
        return at_once(_TOGETHER, device)
    return at_once(_FEW, device) if matching.pair_flops <= at_once(_DEAR, device) else 1
