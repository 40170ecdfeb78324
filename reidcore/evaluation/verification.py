"""TAR@FAR: the share of matching pairs that is accepted at a false accept rate."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import torch
from torch import Tensor

from reidcore.distributed.processes import Processes
from reidcore.evaluation.relevance import Judgements


def strangers_let_pass(rate: float, strangers: int) -> int:
    """Return the number of pairs of strangers that a false accept rate allows: `rate` times
    `strangers`, rounded down, with `rate` as the decimal number that was written."""
    return int(Decimal(repr(rate)) * strangers)


class TrueAccepts:
    """TAR@FAR, the true accept rate at given false accept rates, gathered block by block.

    All pairs of a query and a gallery picture count that are not ignored. At rate f, of N pairs of
    strangers the f * N nearest, rounded down, may pass, and the threshold is the distance of the
    next one: accepted is what is nearer than that. TAR is the share of the matching pairs that are
    accepted. Pairs at the very threshold are refused, so that equal distances never let more
    strangers pass than allowed.

    rates: false accept rates in (0, 1]. pairs: how many pairs there will be at most; of all
    distances of strangers, only those are held that a threshold may lie among.
    """

    def __init__(self, rates: Sequence[float], pairs: int):
        self._rates = tuple(rates)
        self._most = strangers_let_pass(max(self._rates, default=0.0), pairs) + 1
        self._matching: list[Tensor] = []
        self._nearest: Tensor | None = None
        self._strangers = 0

    def add(self, distances: Tensor, judged: Judgements) -> None:
        """Add some queries' distances [q, G]. judged: of these queries."""
        if not self._rates:
            return
        match, ignored = judged.masks()
        self._matching.append(distances[match & ~ignored].cpu())
        strangers = distances[~match & ~ignored]
        self._strangers += len(strangers)
        held = strangers if self._nearest is None else torch.cat([self._nearest, strangers])
        if len(held) > self._most:
            held = held.topk(self._most, largest=False, sorted=False).values
        self._nearest = held

    def gather(self, processes: Processes) -> None:
        """Add what the other processes have."""
        if not self._rates or processes.count == 1:
            return
        none = torch.empty(0)
        self._matching = processes.everyone(torch.cat([none, *self._matching]))
        nearest = processes.everyone(none if self._nearest is None else self._nearest.cpu())
        self._nearest = torch.cat(nearest)
        self._strangers = sum(map(int, processes.everyone(torch.tensor([self._strangers]))))

    def shares(self) -> dict[float, float]:
        """Return {false accept rate: true accept rate}; 0 where there is no matching pair."""
        if self._nearest is None:
            return {}
        matching = torch.cat(self._matching)
        return {
            rate: int((matching < threshold).sum()) / max(1, len(matching))
            for rate, threshold in self.thresholds().items()
        }

    def thresholds(self) -> dict[float, float]:
        """Return {false accept rate: the distance below which pairs are accepted}; infinite where
        all strangers may pass."""
        if self._nearest is None:
            return {}
        ascending = self._nearest.sort().values
        allowed = {rate: strangers_let_pass(rate, self._strangers) for rate in self._rates}
        return {
            rate: float(ascending[count]) if count < self._strangers else torch.inf
            for rate, count in allowed.items()
        }
