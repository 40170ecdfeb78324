"""Reference metrics of ranking: average precision, CMC and mINP, in float64 on any device.

A query's kept list is the gallery by ascending distance without what the protocol ignores for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs
import torch
from torch import Tensor

from reidcore.errors import DataError, ReidError

Ties = Literal["gallery", "grouped"]

_BLOCK = 1 << 21
"""Entries of the distance matrix that are ranked at once; each takes some 130 bytes of memory."""


@attrs.frozen(eq=False)
class PerQuery:
    """Scores of Q queries; all 0 for a query that has no match in its kept list.

    first: int64 [Q], 1-based rank of the first match. ap: float64 [Q], average precision. inp:
    float64 [Q], inverse negative penalty. matches: int64 [Q], number of matches.
    """

    first: Tensor
    ap: Tensor
    inp: Tensor
    matches: Tensor


@attrs.frozen(eq=False)
class Scores:
    """Means over the queries that have a match, as fractions.

    map: mean average precision. cmc: float64 [K] on the CPU, cmc[k - 1] is the share of queries
    with a match among the first k. minp: mean inverse negative penalty. valid: queries that have a
    match. total: all queries.
    """

    map: float
    cmc: Tensor
    minp: float
    valid: int
    total: int


def rank_queries(
    distances: Tensor, match: Tensor, ignored: Tensor, ties: Ties = "gallery"
) -> PerQuery:
    """Ranks the gallery for every query.

    distances: [Q, G], smaller is closer. match: bool [Q, G], same identity. ignored: bool [Q, G],
    left out of this query's list. Average precision is the mean over the matches of (matches so far
    / rank); the inverse negative penalty is matches / rank of the last match (Ye et al. 2021,
    section 5.1).

    ties: equal distances keep the gallery's order ("gallery"), or share one threshold, so that
    average precision depends on no order ("grouped", as in scikit-learn). Ranks of the first and of
    the last match follow the gallery's order in both cases.

    Raises ReidError for NaN and ValueError for shapes that differ.
    """
    if not distances.ndim == 2 or not distances.shape == match.shape == ignored.shape:
        raise ValueError(
            f"distances {list(distances.shape)}, match {list(match.shape)} and ignored "
            f"{list(ignored.shape)} must have one shape [queries, gallery]"
        )
    if ties not in ("gallery", "grouped"):
        raise ValueError(f"ties is 'gallery' or 'grouped', got {ties!r}")
    rows = max(1, _BLOCK // max(1, distances.shape[1]))
    parts = [
        _rank(distances[start:stop], match[start:stop], ignored[start:stop], ties, start)
        for start, stop in (
            (start, start + rows) for start in range(0, max(1, len(distances)), rows)
        )
    ]
    return _joined(parts)


def _rank(distances: Tensor, match: Tensor, ignored: Tensor, ties: Ties, offset: int) -> PerQuery:
    wrong = distances.isnan()
    if wrong.any():
        query, item = wrong.nonzero()[0].tolist()
        raise ReidError(
            f"{int(wrong.sum())} distances are NaN, the first between query {offset + query} and "
            f"gallery picture {item}; nothing can be ranked. Has the training diverged?"
        )
    nearest, order = torch.sort(distances, dim=1, stable=True)
    kept = ~ignored.gather(1, order)
    hit = match.gather(1, order) & kept
    rank = kept.cumsum(1)
    hits = hit.cumsum(1)
    matches = hit.sum(1)
    # Where nothing matches, 1 instead of 0 keeps the quotients finite; their numerators are 0.
    count = matches.clamp(min=1).double()

    first = torch.where(hit & (hits == 1), rank, 0).sum(1)
    last = torch.where(hit, rank, 0).amax(1) if rank.shape[1] else first
    if ties == "grouped":
        end = _group_ends(nearest)
        rank, hits = rank.gather(1, end), hits.gather(1, end)
    precision = torch.where(hit, hits.double() / rank.clamp(min=1), 0.0)
    return PerQuery(
        first=first,
        ap=precision.sum(1) / count,
        inp=matches / last.clamp(min=1).double(),
        matches=matches,
    )


def _group_ends(ascending: Tensor) -> Tensor:
    """Position of the last entry equal to each entry, along rows in ascending order."""
    size = ascending.shape[1]
    position = torch.arange(size, device=ascending.device).expand_as(ascending)
    ends = torch.ones_like(ascending, dtype=torch.bool)
    ends[:, :-1] = ascending[:, 1:] != ascending[:, :-1]
    return torch.where(ends, position, size).flip(1).cummin(1).values.flip(1)


def _joined(parts: list[PerQuery]) -> PerQuery:
    return PerQuery(
        *(
            torch.cat([getattr(part, field.name) for part in parts])
            for field in attrs.fields(PerQuery)
        )
    )


def summarize(parts: Iterable[PerQuery], max_rank: int = 50) -> Scores:
    """Mean scores of all queries that have a match; the others are only counted.

    The CMC curve has `max_rank` entries also where the gallery is smaller. The result does not
    depend on how the queries are split into parts. Raises DataError if no query has a match.
    """
    every = _joined(list(parts))
    total = len(every.matches)
    found = every.matches > 0
    first = every.first[found].cpu()
    if not len(first):
        raise DataError(f"none of the {total} queries has a match in its gallery")
    counts = torch.bincount(first.clamp(max=max_rank + 1), minlength=max_rank + 2)
    return Scores(
        map=every.ap[found].cpu().mean().item(),
        cmc=counts[1 : max_rank + 1].cumsum(0).double() / len(first),
        minp=every.inp[found].cpu().mean().item(),
        valid=len(first),
        total=total,
    )
