"""Graph sampling: batches of identities that look alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from reid_qaconv.settings_graph import Graph as GraphSettings
from reidcore.errors import UsageError
from reidcore.modules import Ask, Context, Rows


class Graph:
    """Every identity is once the anchor of a batch of itself and its nearest identities
    (Liao and Shao, CVPR 2022).

    Near is what the matcher says at the start of the epoch of one random picture of each identity,
    the anchor's on the query side. An identity's pictures are dealt in a random order that is drawn
    once an epoch and starts again at its end; one with fewer than `per_id` is repeated in a batch.
    """

    def __init__(self, config: GraphSettings):
        self.matcher = config.matcher
        self.ids = config.ids
        self.per_id = config.per_id

    def epoch(self, rows: Rows, generator: torch.Generator, ask: Ask) -> list[list[int]]:
        """Return as many batches as there are identities. Raises `UsageError` if there are fewer
        than `ids`."""
        pids = np.unique(rows.pid)
        if len(pids) < self.ids:
            raise UsageError(
                f"sampler qaconv.graph: a batch needs {self.ids} identities, but the pictures to "
                f"draw from have {len(pids)}; set data.batch.ids to {len(pids)} or fewer"
            )
        pictures = [np.flatnonzero(rows.pid == pid) for pid in pids]
        shown = [int(own[torch.randint(len(own), (), generator=generator)]) for own in pictures]
        groups = self._groups(ask.distances(self.matcher, shown, shown))
        decks = [_endless(own, generator) for own in pictures]
        return [
            [index for one in groups[anchor] for index in itertools.islice(decks[one], self.per_id)]
            for anchor in torch.randperm(len(pids), generator=generator).tolist()
        ]

    def _groups(self, distances: torch.Tensor) -> list[list[int]]:
        """Every identity, by number, followed by its nearest ones: [identities, ids]."""
        distances = distances.cpu().clone().fill_diagonal_(-torch.inf)
        # Stable, so that equal distances have one order on every machine.
        return distances.argsort(dim=1, stable=True)[:, : self.ids].tolist()


def _endless(pictures: np.ndarray, generator: torch.Generator) -> Iterator[int]:
    """The pictures in random order, again and again in that order."""
    order = torch.randperm(len(pictures), generator=generator).tolist()
    return itertools.cycle([int(pictures[i]) for i in order])


def build_graph(config: GraphSettings, context: Context) -> Graph:
    return Graph(config)
