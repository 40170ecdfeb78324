"""The core's samplers: the order of training pictures."""

from __future__ import annotations

import numpy as np
import torch

from reidcore.builtin.settings import Identities as IdentitiesSettings
from reidcore.builtin.settings import Shuffled as ShuffledSettings
from reidcore.errors import UsageError
from reidcore.modules import Ask, Context, Rows


class Shuffled:
    """Every picture once an epoch, in random order."""

    def __init__(self, config: ShuffledSettings):
        self.size = config.size
        self.drop_last = config.drop_last

    def epoch(self, rows: Rows, generator: torch.Generator, ask: Ask | None) -> list[list[int]]:
        order = torch.randperm(len(rows), generator=generator).tolist()
        batches = [order[start : start + self.size] for start in range(0, len(order), self.size)]
        if self.drop_last and len(batches) > 1 and len(batches[-1]) < self.size:
            batches.pop()
        return batches


class _Deck:
    """Deals items in random order and reshuffles when all are dealt, so that no item is dealt twice
    more often than another."""

    def __init__(self, items: list[int], generator: torch.Generator):
        self.items = items
        self.generator = generator
        self.rest: list[int] = []

    def deal(self, count: int) -> list[int]:
        """`count` distinct items, at most as many as there are."""
        dealt, self.rest = self.rest[:count], self.rest[count:]
        if len(dealt) < count:
            order = torch.randperm(len(self.items), generator=self.generator).tolist()
            shuffled = [self.items[i] for i in order]
            fresh = [item for item in shuffled if item not in dealt]
            again = [item for item in shuffled if item in dealt]
            missing = count - len(dealt)
            dealt = dealt + fresh[:missing]
            self.rest = fresh[missing:] + again
        return dealt


class Identities:
    """Batches of `ids` different identities with `per_id` pictures each.

    An epoch has max(ceil(I / ids), N // (ids * per_id)) batches for N pictures of I identities.
    Over an epoch the numbers of times that two identities appear differ by at most one, and so do
    those of two pictures of an identity that has at least `per_id`. An identity with fewer pictures
    gives each once and fills up with random repetitions.
    """

    def __init__(self, config: IdentitiesSettings):
        self.ids = config.ids
        self.per_id = config.per_id

    def epoch(self, rows: Rows, generator: torch.Generator, ask: Ask | None) -> list[list[int]]:
        """Raises `UsageError` if the rows have fewer than `ids` identities."""
        pids = np.unique(rows.pid)
        if len(pids) < self.ids:
            raise UsageError(
                f"sampler core.identities: a batch needs {self.ids} identities, but the pictures "
                f"to draw from have {len(pids)}; set data.batch.ids to {len(pids)} or fewer"
            )
        identities = _Deck(pids.tolist(), generator)
        pictures = {
            int(pid): _Deck(np.flatnonzero(rows.pid == pid).tolist(), generator) for pid in pids
        }
        count = max(-(-len(pids) // self.ids), len(rows) // (self.ids * self.per_id))
        return [
            [index for pid in identities.deal(self.ids) for index in self._of_one(pictures[pid])]
            for _ in range(count)
        ]

    def _of_one(self, deck: _Deck) -> list[int]:
        have = len(deck.items)
        if have >= self.per_id:
            return deck.deal(self.per_id)
        more = torch.randint(have, (self.per_id - have,), generator=deck.generator).tolist()
        return deck.deal(have) + [deck.items[i] for i in more]


def build_shuffled(config: ShuffledSettings, context: Context) -> Shuffled:
    return Shuffled(config)


def build_identities(config: IdentitiesSettings, context: Context) -> Identities:
    return Identities(config)
