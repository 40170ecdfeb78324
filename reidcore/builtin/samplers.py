"""Samplers of the core, which choose the training pictures of every batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from reidcore.builtin.settings.samplers import Identities as IdentitiesSettings
from reidcore.builtin.settings.samplers import Shuffled as ShuffledSettings
from reidcore.builtin.settings.samplers import TwoModalities as TwoModalitiesSettings
from reidcore.contracts.parts import Context
from reidcore.contracts.pictures import Rows
from reidcore.contracts.run_interfaces import Ask
from reidcore.errors import UsageError


class Shuffled:
    """Sampler of every picture once an epoch, in random order."""

    def __init__(self, config: ShuffledSettings):
        self.size = config.size
        self.drop_last = config.drop_last

    def epoch(self, rows: Rows, generator: torch.Generator, ask: Ask | None) -> list[list[int]]:
        order = torch.randperm(len(rows), generator=generator).tolist()
        batches = [order[start : start + self.size] for start in range(0, len(order), self.size)]
        if self.drop_last and len(batches) > 1 and len(batches[-1]) < self.size:
            batches.pop()
        return batches


def _need_identities(sampler: str, ids: int, have: int, found: str) -> None:
    """Raise UsageError if there are fewer identities than a batch needs."""
    if have < ids:
        cure = f"; set data.batch.ids to {have} or fewer" if have else ""
        raise UsageError(
            f"sampler {sampler}: a batch needs {ids} identities, but {found} {have}{cure}"
        )


class _Deck:
    """Items that are dealt in random order and shuffled again when all are dealt, so that no item
    is dealt twice more often than another."""

    def __init__(self, items: list[int], generator: torch.Generator):
        self.items = items
        self.generator = generator
        self.rest: list[int] = []

    def deal(self, count: int) -> list[int]:
        """Deal `count` distinct items, at most as many as there are."""
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
    """Sampler of batches of `ids` different identities with `per_id` pictures each.

    An epoch has max(ceil(I / ids), N // (ids * per_id)) batches for N pictures of I identities.
    Over an epoch the numbers of times that two identities appear differ by at most one, and so do
    those of two pictures of an identity that has at least `per_id`. An identity with fewer pictures
    gives each once and fills up with random repetitions.
    """

    def __init__(self, config: IdentitiesSettings):
        self.ids = config.ids
        self.per_id = config.per_id

    def epoch(self, rows: Rows, generator: torch.Generator, ask: Ask | None) -> list[list[int]]:
        """Return one epoch's batches as lists of row numbers.

        Raises:
            UsageError: The rows have fewer than `ids` identities.
        """
        pids = np.unique(rows.pid)
        _need_identities("core.identities", self.ids, len(pids), "the pictures to draw from have")
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


Draw = Callable[[int, int, bool], list[int]]
"""Function (have, count, again) that draws `count` random numbers below `have`, all equally likely,
with repetitions if `again`."""


def _drawn(generator: torch.Generator, have: int, count: int, again: bool) -> list[int]:
    if again:
        return torch.randint(have, (count,), generator=generator).tolist()
    return torch.randperm(have, generator=generator)[:count].tolist()


class TwoModalities:
    """Sampler of batches of `ids` identities with `per_id` pictures each from both modalities.

    Identities and pictures are drawn anew for every batch (Ye et al., ECCV 2020, as in the authors'
    program).

    First come all pictures of the modality with the lower number, visible ones before infrared
    ones, then those of the other in the same order of identities: entry i of either half has the
    same identity. Identities are drawn without repetition, pictures with. An epoch has
    floor(N / (ids * per_id)) + 1 batches, N being the number of pictures of the modality that has
    more. Identities without a picture in one of the modalities are never drawn.
    """

    def __init__(self, config: TwoModalitiesSettings):
        self.ids = config.ids
        self.per_id = config.per_id

    def epoch(self, rows: Rows, generator: torch.Generator, ask: Ask | None) -> list[list[int]]:
        """Return one epoch's batches as lists of row numbers.

        Raises:
            UsageError: The rows have not two modalities, or fewer than `ids` identities with
                pictures in both.
        """
        return self.batches(rows, partial(_drawn, generator))

    def batches(self, rows: Rows, draw: Draw) -> list[list[int]]:
        """Return one epoch's batches, with the numbers that `draw` draws.

        For each batch the identities are drawn, then for each identity its pictures of the first
        modality and those of the second.
        """
        modalities, sizes = np.unique(rows.modality, return_counts=True)
        if len(modalities) != 2:
            raise UsageError(
                "sampler core.two_modalities: needs pictures of two modalities, but the pictures "
                f"to draw from have {len(modalities)}"
            )
        pictures = [
            [np.flatnonzero((rows.pid == pid) & (rows.modality == one)) for one in modalities]
            for pid in np.unique(rows.pid)
        ]
        pictures = [both for both in pictures if all(map(len, both))]
        _need_identities(
            "core.two_modalities",
            self.ids,
            len(pictures),
            "those with pictures in both modalities are",
        )
        batches = []
        for _ in range(int(sizes.max()) // (self.ids * self.per_id) + 1):
            halves: tuple[list[int], list[int]] = ([], [])
            for identity in draw(len(pictures), self.ids, False):
                for half, have in zip(halves, pictures[identity], strict=True):
                    half += have[draw(len(have), self.per_id, True)].tolist()
            batches.append(halves[0] + halves[1])
        return batches


def build_shuffled(config: ShuffledSettings, context: Context) -> Shuffled:
    return Shuffled(config)


def build_identities(config: IdentitiesSettings, context: Context) -> Identities:
    return Identities(config)


def build_two_modalities(config: TwoModalitiesSettings, context: Context) -> TwoModalities:
    return TwoModalities(config)
