"""The ranked lists of some queries, kept while an evaluation runs, for observers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from reidcore.contracts.component import Row
from reidcore.contracts.run_interfaces import RankedList, RankedPicture
from reidcore.evaluation.trial import PLAIN, DistanceBlock
from reidcore.runfiles.tables import RankingTable
from reidcore.support.sorting import smallest

QUERIES, NEAREST = 16, 10
"""How many queries are kept, and gallery pictures of each."""


class RankedLists:
    """A watcher that keeps the nearest pictures of a few queries of the first test set, by the
    first ranking at its end; of several trials the first. What does not count is left out.

    tests: {test set: its pictures}. rankings: of the run.
    """

    def __init__(self, tests: Mapping[str, Sequence[Row]], rankings: Sequence[RankingTable]):
        self._tests = tests
        self._stage = "+".join(rankings[0].post) or PLAIN
        self._place: tuple[str, str, str] | None = None
        self._lists: dict[int, RankedList] = {}

    def __call__(self, block: DistanceBlock) -> None:
        if self._place is None:
            self._place = (*block.place[:2], self._stage)
        if block.place != self._place or block.trial.number:
            return
        # The same queries in every evaluation, from all over the test set.
        chosen = torch.linspace(0, len(block.trial.query) - 1, QUERIES).long().unique()
        stop = block.start + len(block.distances)
        places = chosen[(chosen >= block.start) & (chosen < stop)] - block.start
        if not len(places):
            return
        match, ignored = block.judged.masks()
        places = places.to(block.distances.device)
        counted = block.distances[places].masked_fill(ignored[places], torch.inf)
        index, distance = smallest(counted, min(NEAREST, counted.shape[1]))
        rows, gallery = self._tests[block.trial.labelled.name], block.trial.gallery.tolist()
        right = match[places].cpu()
        for line, place in enumerate((places.cpu() + block.start).tolist()):
            found = [
                RankedPicture(rows[gallery[column]], value, bool(right[line, column]))
                for column, value in zip(index[line].tolist(), distance[line].tolist(), strict=True)
                if column >= 0
            ]
            query = rows[int(block.trial.query[place])]
            self._lists[place] = RankedList(query, tuple(found))

    def lists(self) -> tuple[RankedList, ...]:
        """Return the lists so far, by the places of their queries."""
        return tuple(self._lists[place] for place in sorted(self._lists))
