"""The scores of one trial, gathered block by block, and their means over trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from reidcore.distributed.processes import Processes
from reidcore.evaluation.fast_metrics import count_queries
from reidcore.evaluation.metrics import (
    PER_QUERY,
    PerQuery,
    Scores,
    draw_shots,
    joined,
    rank_queries,
    summarize,
)
from reidcore.evaluation.open_set_scores import OpenSetScores
from reidcore.evaluation.relevance import Judgements
from reidcore.evaluation.verification import TrueAccepts
from reidcore.protocols.base import Protocol
from reidcore.protocols.cross_camera import SingleGalleryShot
from reidcore.protocols.open_set import OpenSet
from reidcore.protocols.score_names import USUAL, Ways, tar_name
from reidcore.ranking.scales import Scale
from reidcore.runfiles.tables import Eval
from reidcore.support.repeats import mean_scores


def wanted_ranks(settings: Eval, best: str) -> list[int]:
    """Return the CMC ranks to report: those asked for, and the one that chooses the best epoch."""
    chosen = [int(best.removeprefix("rank-"))] if best.startswith("rank-") else []
    return list(dict.fromkeys([*settings.ranks, *chosen]))


class TrialScores:
    """The scores of one trial, as [eval] and the protocol count them, from distances that come
    block by block.

    identity: int64 [G], of the gallery. pairs: the number of pairs of a query and a gallery picture
    that there will be at most. ranks: those of the CMC curve that are reported. probability: see
    `OpenSetScores`.
    """

    def __init__(
        self,
        settings: Eval,
        protocol: Protocol,
        identity: Tensor,
        pairs: int,
        ranks: Sequence[int],
        probability: Scale | None = None,
    ):
        self.ways = Ways(settings.ap, settings.ties, settings.queries, protocol.cmc)
        self._identity = identity
        self._ranks = list(ranks)
        self._parts: dict[int, PerQuery] = {}
        self._accepts = TrueAccepts(settings.tar_at, pairs)
        self._open = OpenSetScores(protocol, probability) if isinstance(protocol, OpenSet) else None
        self._shots = protocol if isinstance(protocol, SingleGalleryShot) else None
        # The generator of the program whose numbers these are.
        self._draw = np.random.RandomState(self._shots.seed if self._shots else 0)

    @property
    def divisible(self) -> bool:
        """True if queries may be counted in any order, and so by several processes."""
        return self._shots is None

    def add(self, distances: Tensor, judged: Judgements, start: int) -> None:
        """Add the distances [q, G] of the queries from `start` on. judged: of these queries, on any
        device."""
        judged = judged.to(distances.device)
        each = self._ranked(distances, judged)
        if self._shots is not None:
            identity = self._identity.to(distances.device)
            shots = distances, *judged.masks(), identity, self._draw, self._shots.repeats
            each = attrs.evolve(each, first=draw_shots(*shots).to(distances.device))
        self._parts[start] = each
        self._accepts.add(distances, judged)
        if self._open is not None:
            self._open.add(distances, judged, each.first, start)

    def _ranked(self, distances: Tensor, judged: Judgements) -> PerQuery:
        ways = self.ways.ties, self.ways.precision
        if self.ways.cmc != "identity":
            return count_queries(distances, judged, *ways)
        identity = self._identity.to(distances.device)
        return rank_queries(distances, *judged.masks(), *ways, identity)

    def gather(self, processes: Processes) -> None:
        """Add the queries of the other processes."""
        if processes.count == 1:
            return
        own = self._parts.values()
        starts = processes.everyone(torch.tensor(list(self._parts), dtype=torch.int64))
        lengths = processes.everyone(torch.tensor([len(part.matches) for part in own]).long())
        split = [length.tolist() for length in lengths]
        fields = []
        for name, dtype in PER_QUERY.items():
            mine = [getattr(part, name).cpu() for part in own]
            every = processes.everyone(torch.cat([torch.empty(0, dtype=dtype), *mine]))
            fields.append(
                [part for one, at in zip(every, split, strict=True) for part in one.split(at)]
            )
        self._parts = {
            int(start): PerQuery(*part)
            for start, *part in zip(torch.cat(starts), *fields, strict=True)
        }
        self._accepts.gather(processes)
        if self._open is not None:
            self._open.gather(processes)

    def per_query(self) -> PerQuery:
        """Return the scores of the single queries, in their order."""
        return joined([self._parts[start] for start in sorted(self._parts)])

    def scores(self) -> dict[str, Any]:
        """Return what scores.json holds of a stage. Raises DataError if no query has a match."""
        found = summarize([self.per_query()], max(50, *self._ranks), self.ways.counted)
        more = {} if self._open is None else self._open.scores()
        return as_json(found, self._ranks, self.ways, self._accepts.shares()) | more


def as_json(
    scores: Scores,
    ranks: Sequence[int],
    ways: Ways = USUAL,
    accepts: Mapping[float, float] | None = None,
) -> dict[str, Any]:
    """Return scores as fractions, rounded to 6 decimals, with the whole CMC curve; their names say
    how they are counted."""
    cmc = [round(value, 6) for value in scores.cmc.tolist()]
    return {
        ways.name("mAP"): round(scores.map, 6),
        **{ways.name(f"rank-{rank}"): cmc[rank - 1] for rank in ranks},
        ways.name("mINP"): round(scores.minp, 6),
        **{tar_name(rate): round(share, 6) for rate, share in (accepts or {}).items()},
        "queries": scores.valid,
        "queries_without_match": scores.total - scores.valid,
        "cmc": cmc,
    }


def over_trials(trials: Sequence[TrialScores]) -> dict[str, Any]:
    """Return the scores of one trial as they are, of several as mean, deviation and values."""
    found = [trial.scores() for trial in trials]
    return found[0] if len(found) == 1 else mean_scores(found)
