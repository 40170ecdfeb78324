"""Metrics of ranking: average precision, CMC and mINP, in float64 on any device.

A query's kept list is the gallery by ascending distance without what the protocol ignores for it.
docs/evaluation.md defines every score. `rank_queries` sorts whole rows; `trial_scores` takes
`fast_metrics` instead, which finds the same without sorting, where CMC counts pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

import attrs
import numpy as np
import torch
from torch import Tensor

from reidcore.errors import DataError, ReidError
from reidcore.protocols.score_names import Counted, Precision, Ties

TIES, PRECISIONS = get_args(Ties), get_args(Precision)

_BLOCK = 1 << 21
"""Entries of the distance matrix that are ranked at once; each takes some 130 bytes of memory."""


@attrs.frozen(eq=False)
class PerQuery:
    """Scores of Q queries; all 0 for a query that has no match in its kept list.

    first: int64 [Q], 1-based rank of the first match, or [Q, R], the same in R lists that were
    drawn for each query. ap: float64 [Q], average precision. inp: float64 [Q], inverse negative
    penalty. matches: int64 [Q], number of matches.
    """

    first: Tensor
    ap: Tensor
    inp: Tensor
    matches: Tensor


PER_QUERY = {
    "first": torch.int64,
    "ap": torch.float64,
    "inp": torch.float64,
    "matches": torch.int64,
}
"""Fields of `PerQuery` and their dtypes."""


@attrs.frozen(eq=False)
class Scores:
    """Means over the queries that count, as fractions.

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
    distances: Tensor,
    match: Tensor,
    ignored: Tensor,
    ties: Ties = "gallery",
    precision: Precision = "step",
    identity: Tensor | None = None,
) -> PerQuery:
    """Rank the gallery for every query.

    distances: [Q, G], smaller is closer. match: bool [Q, G], same identity. ignored: bool [Q, G],
    left out of this query's list. The inverse negative penalty is matches / rank of the last match
    (Ye et al. 2021, section 5.1).

    precision: the average over the matches of the precision at the match, matches so far / rank
    ("step"), or of the mean of that and of the precision one rank before, 1 before the first
    ("trapezoid", as in Market-1501's program).

    ties: equal distances keep the gallery's order ("gallery"), or share one threshold, so that
    average precision depends on no order ("grouped"; with "step" as in scikit-learn; with
    "trapezoid" the rank before is the end of the group before), or have matches first
    ("optimistic") or last ("pessimistic"). With "grouped", ranks of the first and of the last
    match follow the gallery's order.

    identity: int64 [G], with which the rank of the first match counts identities, each by its
    nearest picture, in place of pictures.

    Raises ReidError for NaN and ValueError for shapes that differ.
    """
    if not distances.ndim == 2 or not distances.shape == match.shape == ignored.shape:
        raise ValueError(
            f"distances {list(distances.shape)}, match {list(match.shape)} and ignored "
            f"{list(ignored.shape)} must have one shape [queries, gallery]"
        )
    check_ways(ties, precision)
    if identity is not None:
        identity = identity.unique(return_inverse=True)[1]
    rows = max(1, _BLOCK // max(1, distances.shape[1]))
    parts = []
    for start in range(0, max(1, len(distances)), rows):
        here = slice(start, start + rows)
        refuse_nan(distances[here], start)
        parts.append(_rank(distances[here], match[here], ignored[here], ties, precision, identity))
    return joined(parts)


def check_ways(ties: str, precision: str) -> None:
    """Raise ValueError for a way of counting that there is not."""
    for name, value, known in (("ties", ties, TIES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise ValueError(f"{name} is {' or '.join(map(repr, known))}, got {value!r}")


def refuse_nan(distances: Tensor, offset: int = 0) -> None:
    """Raise ReidError if a distance is NaN. offset: number of the first row's query."""
    wrong = distances.isnan()
    if wrong.any():
        query, item = wrong.nonzero()[0].tolist()
        raise ReidError(
            f"{int(wrong.sum())} distances are NaN, the first between query {offset + query} and "
            f"gallery picture {item}; nothing can be ranked. Has the training diverged?"
        )


def _rank(
    distances: Tensor,
    match: Tensor,
    ignored: Tensor,
    ties: Ties,
    precision: Precision,
    identity: Tensor | None,
) -> PerQuery:
    nearest, order = _sorted(distances, match, ties)
    kept = ~ignored.gather(1, order)
    hit = match.gather(1, order) & kept
    rank = kept.cumsum(1)
    hits = hit.cumsum(1)
    matches = hit.sum(1)
    # Where nothing matches, 1 instead of 0 keeps the quotients finite; their numerators are 0.
    count = matches.clamp(min=1).double()

    leading = hit & (hits == 1)
    last = torch.where(hit, rank, 0).amax(1) if rank.shape[1] else matches
    first = torch.where(leading, rank, 0).sum(1)
    if identity is not None:
        first = _identity_rank(identity[order], kept, leading)
    return PerQuery(
        first=first,
        ap=torch.where(hit, _precision(nearest, rank, hits, ties, precision), 0.0).sum(1) / count,
        inp=matches / last.clamp(min=1).double(),
        matches=matches,
    )


def _sorted(distances: Tensor, match: Tensor, ties: Ties) -> tuple[Tensor, Tensor]:
    """(distances, gallery numbers), both [Q, G], by ascending distance."""
    if ties in ("gallery", "grouped"):
        return torch.sort(distances, dim=1, stable=True)
    # A stable sort keeps the order in which equal distances come, and so this one.
    before = match.byte().argsort(dim=1, descending=ties == "optimistic", stable=True)
    nearest, order = torch.sort(distances.gather(1, before), dim=1, stable=True)
    return nearest, before.gather(1, order)


def _precision(
    nearest: Tensor, rank: Tensor, hits: Tensor, ties: Ties, precision: Precision
) -> Tensor:
    """float64 [Q, G]: what a match at this place adds to the sum of average precision.

    nearest: ascending distances. rank, hits: kept pictures and matches up to here.
    """
    end = _group_ends(nearest) if ties == "grouped" else None
    here = _quotient(hits, rank) if end is None else _quotient(hits, rank).gather(1, end)
    if precision == "step":
        return here
    if end is None:
        before = torch.where(rank > 1, _quotient(hits - 1, rank - 1), 1.0)
    else:
        last = _group_starts(nearest) - 1
        known = (last >= 0) & (rank.gather(1, last.clamp(min=0)) > 0)
        before = torch.where(known, _quotient(hits, rank).gather(1, last.clamp(min=0)), 1.0)
    return (before + here) / 2


def _quotient(hits: Tensor, rank: Tensor) -> Tensor:
    """float64: precision, 0 where nothing is kept yet."""
    return hits.double() / rank.clamp(min=1)


def _group_ends(ascending: Tensor) -> Tensor:
    """Position of the last entry equal to each entry, along rows in ascending order."""
    size = ascending.shape[1]
    position = torch.arange(size, device=ascending.device).expand_as(ascending)
    ends = torch.ones_like(ascending, dtype=torch.bool)
    ends[:, :-1] = ascending[:, 1:] != ascending[:, :-1]
    return torch.where(ends, position, size).flip(1).cummin(1).values.flip(1)


def _group_starts(ascending: Tensor) -> Tensor:
    """Position of the first entry equal to each entry, along rows in ascending order."""
    position = torch.arange(ascending.shape[1], device=ascending.device).expand_as(ascending)
    starts = torch.ones_like(ascending, dtype=torch.bool)
    starts[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    return torch.where(starts, position, 0).cummax(1).values


def _identity_rank(identity: Tensor, kept: Tensor, leading: Tensor) -> Tensor:
    """int64 [Q]: the rank of the first match among identities, 0 without one.

    identity: [Q, G] in ranked order, numbered from 0. leading: bool [Q, G], the first match.
    """
    size = identity.shape[1]
    if not size:
        return leading.sum(1)
    position = torch.arange(size, device=identity.device).expand_as(identity)
    best = torch.full((len(identity), size), size, device=identity.device)
    best.scatter_reduce_(1, identity, torch.where(kept, position, size), "amin")
    found = torch.where(leading, position, 0).sum(1, keepdim=True)
    return torch.where(leading.any(1), (best < found).sum(1) + 1, 0)


def draw_shots(
    distances: Tensor,
    match: Tensor,
    ignored: Tensor,
    identity: Tensor,
    draw: np.random.RandomState,
    repeats: int,
) -> Tensor:
    """Return the rank of the match in galleries of one drawn picture of each identity, int64
    [Q, repeats].

    As for `rank_queries`, with `identity` int64 [G]. For each query with a match and each repeat,
    one picture of every identity in its kept list is drawn from `draw`, identities in the order of
    their nearest pictures, so that numbers equal those of deep-person-reid's program where
    numpy's generator has the same seed. 0 for a query without a match.
    """
    ranks = torch.zeros(len(distances), repeats, dtype=torch.int64)
    order = torch.sort(distances, dim=1, stable=True).indices
    kept = (~ignored).gather(1, order).cpu().numpy()
    matching = match.gather(1, order).cpu().numpy()
    identities = identity[order].cpu().numpy()
    for query in range(len(distances)):
        listed = identities[query][kept[query]]
        hits = matching[query][kept[query]]
        if not hits.any():
            continue
        names, first, number, counts = np.unique(
            listed, return_index=True, return_inverse=True, return_counts=True
        )
        by_first = first.argsort()
        # Places of every identity's pictures, identities by their nearest picture.
        places = np.argsort(by_first.argsort()[number], kind="stable")
        counts = counts[by_first]
        starts = np.cumsum(counts) - counts
        drawn = places[starts + draw.randint(0, np.broadcast_to(counts, (repeats, len(names))))]
        wanted = drawn[:, hits[first[by_first]]]
        ranks[query] = torch.from_numpy(1 + (drawn < wanted).sum(1))
    return ranks


def joined(parts: Sequence[PerQuery]) -> PerQuery:
    """Return the scores of all parts' queries, in their order."""
    return PerQuery(
        *(
            torch.cat([getattr(part, field.name) for part in parts])
            for field in attrs.fields(PerQuery)
        )
    )


def summarize(parts: Iterable[PerQuery], max_rank: int = 50, counted: Counted = "valid") -> Scores:
    """Return the mean scores of the queries that have a match ("valid"), or of "all", of which
    those without a match count 0.

    The CMC curve has `max_rank` entries also where the gallery is smaller. The result does not
    depend on how the queries are split into parts. Raises DataError if no query has a match.
    """
    every = joined(list(parts))
    total = len(every.matches)
    found = every.matches > 0
    valid = int(found.sum())
    if not valid:
        raise DataError(f"none of the {total} queries has a match in its gallery")
    first = every.first[found].cpu()
    counts = torch.bincount(first.flatten().clamp(max=max_rank + 1), minlength=max_rank + 2)
    share = 1.0 if counted == "valid" else valid / total
    return Scores(
        map=every.ap[found].cpu().mean().item() * share,
        cmc=counts[1 : max_rank + 1].cumsum(0).double() / first.numel() * share,
        minp=every.inp[found].cpu().mean().item() * share,
        valid=valid,
        total=total,
    )
