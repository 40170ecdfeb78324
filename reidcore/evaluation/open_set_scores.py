"""Scores of an open set: detection and identification rates at false alarm rates, and how far
probabilities are from the shares of matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reidcore.distributed.processes import Processes
from reidcore.evaluation.relevance import Judgements
from reidcore.evaluation.verification import strangers_let_pass
from reidcore.protocols.open_set import OpenSet
from reidcore.protocols.score_names import (
    ECE,
    ECE_FIRST,
    OPEN_SET_CURVES,
    dir_name,
    known_names,
)
from reidcore.ranking.scales import Scale

BINS = 15
"""Bins of equal width of a calibration error, as Guo et al. 2017 take."""
FAR = tuple(round(10 ** (-3 + step / 10), 6) for step in range(31))
"""False alarm rates of the curve."""
Queries = tuple[Tensor, Tensor, Tensor]
"""Of queries: distance of the nearest kept picture; of the nearest match; rank of that, 0 for
none."""


class OpenSetScores:
    """The scores of queries of which some have no match, gathered block by block.

    A query without a match raises a false alarm where its nearest kept picture is nearer than the
    threshold. One with a match is detected and identified where the match is first in its list and
    nearer than the threshold. At a rate F of N queries without a match, F * N, rounded down, may
    raise an alarm, and the threshold is the nearest distance of the next one.

    probability: from distances to the probability of one identity, None for no calibration.
    """

    def __init__(self, protocol: OpenSet, probability: Scale | None = None):
        self._protocol = protocol
        self._probability = probability
        self._parts: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, distances: Tensor, judged: Judgements, first: Tensor, start: int) -> None:
        """Add the distances [q, G] of the queries from `start` on. judged: of these queries. first:
        [q], the ranks of their first matches, 0 for none."""
        match, ignored = judged.masks()
        own, others = match & ~ignored, ~match & ~ignored
        nearest = [
            distances.masked_fill(~some, torch.inf).amin(1).double() for some in (own | others, own)
        ]
        pairs = torch.zeros(2, 2, BINS, dtype=torch.float64)
        if self._probability is not None:
            probability = self._probability(distances).double()
            for side, some in enumerate((own, others)):
                pairs[side] = _binned(probability[some])
        self._parts[start] = torch.stack([*nearest, first.double()]).cpu(), pairs

    def gather(self, processes: Processes) -> None:
        """Add the queries of the other processes."""
        if processes.count == 1:
            return
        starts = processes.everyone(torch.tensor(list(self._parts), dtype=torch.int64))
        own = list(self._parts.values())
        lengths = processes.everyone(torch.tensor([one.shape[1] for one, _ in own]).long())
        none = torch.empty(3, 0, dtype=torch.float64), torch.empty(0, 2, 2, BINS).double()
        queries = processes.everyone(torch.cat([none[0], *(one for one, _ in own)], 1).T)
        pairs = processes.everyone(torch.cat([none[1], *(one[None] for _, one in own)]))
        self._parts = {
            start: (one, binned)
            for at, cut, some, each in zip(starts, lengths, queries, pairs, strict=True)
            for start, one, binned in zip(
                at.tolist(), some.T.split(cut.tolist(), 1), each, strict=True
            )
        }

    def scores(self) -> dict[str, Any]:
        """Return what scores.json holds beside the scores of every protocol."""
        parts = [self._parts[start] for start in sorted(self._parts)]
        nearest, match, first = torch.cat([one for one, _ in parts], 1)
        queries = nearest, match, first
        at = self._protocol.far_at
        found: dict[str, Any] = dict(
            zip(map(dir_name, at), rounded(detected(queries, at)), strict=True)
        )
        curves: dict[str, list[float]] = {"far": list(FAR), "dir": rounded(detected(queries, FAR))}
        if self._probability is not None:
            found |= self._calibrated(queries)
            every = torch.stack([binned for _, binned in parts]).sum(0)
            error, bins = _error(_weighed(every))
            found[ECE] = round(error, 6)
            curves |= zip(OPEN_SET_CURVES[2:], map(rounded, bins), strict=True)
        return {**found, **curves}

    def _calibrated(self, queries: Queries) -> dict[str, float]:
        """Rates at probabilities that are stated beforehand, and the error of first answers'."""
        nearest, _, first = queries
        known = self._of(nearest)
        mates, strangers = first > 0, first == 0
        found = {}
        for least in self._protocol.known_at:
            told = known >= least
            names = known_names(least)
            found[names[0]] = round(float((told & (first == 1))[mates].double().mean()), 6)
            alarms = told[strangers].double()
            found[names[1]] = round(float(alarms.mean()) if len(alarms) else 0.0, 6)
        answered = nearest.isfinite()
        sides = [_binned(known[answered & some]) for some in (first == 1, first != 1)]
        found[ECE_FIRST] = round(_error(torch.stack(sides))[0], 6)
        return found

    def _of(self, distances: Tensor) -> Tensor:
        """The probabilities of some distances, 0 where there is none."""
        assert self._probability is not None
        finite = distances.isfinite()
        # In float32 as the distances came, so that a pair's probability is one number everywhere.
        found = self._probability(distances.where(finite, 0).float()).double()
        return found.where(finite, 0)


def thresholds(queries: Queries, rates: Sequence[float]) -> list[float]:
    """Return the distance below which a picture is an answer at each false alarm rate; infinite
    where all queries without a match may raise an alarm."""
    nearest, _, first = queries
    ascending = nearest[first == 0].sort().values
    counts = [strangers_let_pass(rate, len(ascending)) for rate in rates]
    return [float(ascending[n]) if n < len(ascending) else torch.inf for n in counts]


def detected(queries: Queries, rates: Sequence[float]) -> list[float]:
    """Return the detection and identification rate at each false alarm rate."""
    _, match, first = queries
    right = match[first == 1]
    mates = max(1, int((first > 0).sum()))
    return [int((right < limit).sum()) / mates for limit in thresholds(queries, rates)]


def rounded(values: Sequence[float]) -> list[float]:
    """Return the values with 6 decimals."""
    return [round(float(value), 6) for value in values]


def _binned(probability: Tensor) -> Tensor:
    """Return, float64 [2, BINS], the number of probabilities in each bin and their sum."""
    place = (probability * BINS).floor().long().clamp(0, BINS - 1)
    count = place.bincount(minlength=BINS).double()
    return torch.stack([count, place.bincount(probability, BINS)]).cpu()


def _weighed(sides: Tensor) -> Tensor:
    """Return bins [2, 2, BINS] of matches and strangers as if both were equally frequent."""
    return sides / sides[:, :1].sum(2, keepdim=True).clamp(min=1)


def _error(sides: Tensor) -> tuple[float, tuple[list[float], list[float], list[float]]]:
    """Return the expected calibration error (Naeini et al. 2015), and of every bin the mean
    probability, the share of matches and the weight; an empty bin has its middle for both.

    sides: [2, 2, BINS], weight and sum of the probabilities of matches and of strangers.
    """
    weight, total = sides.sum(0)
    middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS
    mean = torch.where(weight > 0, total / weight, middle)
    share = torch.where(weight > 0, sides[0, 0] / weight, middle)
    weight = weight / weight.sum().clamp(min=1e-300)
    error = float((weight * (mean - share).abs()).sum())
    return error, (mean.tolist(), share.tolist(), weight.tolist())
