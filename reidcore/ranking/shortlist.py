"""Rankings that compute the distances of each query's shortlist alone.

What a shortlist leaves out gets larger distances than all that is on it, in the order of the
matcher that chooses.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from reidcore.ranking.distances import MatcherDistances
from reidcore.ranking.fusion import ADDED_UP, Fusion, Share, Shortlisting, by_matcher
from reidcore.ranking.templates import take

_ORDERED = 1 << 22
"""Entries of the distance matrix that are put in order at once; each takes some 30 bytes."""


class ShortlistedDistances:
    """The distances of queries to the gallery where `fusion` has a shortlist."""

    def __init__(self, fusion: Fusion, shortlist: Shortlisting, own: MatcherDistances):
        self._fusion, self._shortlist, self._own = fusion, shortlist, own
        self._sides = own.sides

    def rows(self, rows: slice) -> Tensor:
        """Return the distances of some queries to the gallery, float32 [rows, G]."""
        shape = rows.stop - rows.start, len(self._sides.gallery)
        result = torch.empty(shape, dtype=torch.float32, device=self._sides.device)
        for some, order in self._ordered(rows):
            listed = order[:, : self._shortlist.top]
            found = self._fusion.sum(functools.partial(self._listed, rows=some, listed=listed))
            if not self._fusion.plain:
                self._require_finite(ADDED_UP, found, some, listed)
            _put_behind(result[some.start - rows.start : some.stop - rows.start], order, found)
        return result

    def scored(self, rows: slice) -> Tensor:
        """Return which gallery pictures are on some queries' shortlists, bool [rows, G]."""
        shape = rows.stop - rows.start, len(self._sides.gallery)
        result = torch.zeros(shape, dtype=torch.bool, device=self._sides.device)
        for some, order in self._ordered(rows):
            here = slice(some.start - rows.start, some.stop - rows.start)
            result[here].scatter_(1, order[:, : self._shortlist.top], True)
        return result

    def before_postprocessing(self, distances: Tensor) -> Tensor:
        """Return the distances as the first postprocessor gets them; they are changed in place.
        Where the shortlist's lie in [0, 1], pictures that are not on it are at 1, the farthest."""
        return distances.clamp_(max=1) if self._shortlist.unit else distances

    def after_postprocessing(self, distances: Tensor, start: int) -> Tensor:
        """Return the rows from `start` on that postprocessors have made, with the pictures that are
        not on the shortlist behind the others again."""
        result = torch.empty_like(distances)
        for rows, order in self._ordered(slice(start, start + len(distances))):
            here = slice(rows.start - start, rows.stop - start)
            found = distances[here].gather(1, order[:, : self._shortlist.top])
            _put_behind(result[here], order, found)
        return result

    def _ordered(self, rows: slice) -> Iterator[tuple[slice, Tensor]]:
        """Yield some queries at a time, and the places of all gallery pictures, int64 [q, G], from
        near to far for the matcher that chooses."""
        share = self._shortlist.share
        queries, gallery = self._templates(share)
        step = max(1, _ORDERED // max(1, len(self._sides.gallery)))
        # Blocks begin at multiples of their size whichever rows are asked, so that rounding puts
        # the same pictures on a shortlist every time.
        for first in range(rows.start // step * step, rows.stop, step):
            block = slice(first, min(first + step, len(self._sides.query)))
            coarse = self._own.between(share, take(queries, block), gallery)
            self._require_finite(by_matcher(share), coarse, block)
            some = slice(max(first, rows.start), min(block.stop, rows.stop))
            wanted = coarse[some.start - first : some.stop - first]
            yield some, wanted.argsort(dim=1, stable=True)

    def _listed(self, share: Share, rows: slice, listed: Tensor) -> Tensor:
        """[q, N]: one matcher's own distances of some queries' listed gallery pictures."""
        queries, gallery = self._templates(share)
        found = torch.stack(
            [
                self._own.to_listed(share, take(queries, slice(row, row + 1)), gallery, index)
                for row, index in zip(range(rows.start, rows.stop), listed, strict=True)
            ]
        )
        self._require_finite(by_matcher(share), found, rows, listed)
        return found

    def _require_finite(
        self, what: str, distances: Tensor, rows: slice, columns: Tensor | int = 0
    ) -> None:
        self._sides.require_finite(what, distances, ("query", rows.start), ("gallery", columns))

    def _templates(self, share: Share) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        queries, gallery = (self._sides.template(side, share.name) for side in ("query", "gallery"))
        return queries, gallery


def _put_behind(result: Tensor, order: Tensor, found: Tensor) -> None:
    """Fill [q, G]: `found` [q, N] for the first of `order` [q, G], and for the others larger whole
    numbers that rise with their place in it."""
    places = torch.arange(order.shape[1], dtype=result.dtype, device=result.device)
    # Whole numbers keep apart up to 2^24, so the farthest stays ahead of rounding.
    behind = found.amax(1, keepdim=True).ceil().clamp(min=1) + 1
    result.scatter_(1, order, behind + places)
    result.scatter_(1, order[:, : found.shape[1]], found)
