"""Watches an evaluation and keeps what a report shows of its distances."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor

from reid_report.folder import Place
from reid_report.stage import IGNORED, MATCH, WRONG, Histogram, Stage
from reidcore.api import Row
from reidcore.tools import (
    DistanceBlock,
    Judgements,
    Precision,
    Ties,
    TrueAccepts,
    count_queries,
    smallest,
)

RATES = (0.1, 0.01, 0.001)
"""False accept rates that are shown where the run names none."""
SHOWN_IGNORED = 2
"""Ignored pictures of each list; where cameras film at length they would fill it."""
BINS = 200
"""Bins of a histogram at most."""


@attrs.frozen
class Wanted:
    """Settings of a watcher. near: gallery pictures of each list. rates: false accept rates."""

    near: int = 10
    rates: Sequence[float] = RATES
    ties: Ties = "gallery"
    precision: Precision = "step"


class Watcher:
    """A watcher: is called with blocks of all distances and keeps what the page shows of them.

    Only the first trial of several is kept.

    tests: {test set: its pictures}. Average precision by cameras and ranks of first matches count
    pictures, whatever the protocol's CMC counts.
    """

    def __init__(self, wanted: Wanted, tests: Mapping[str, Sequence[Row]]):
        self._wanted, self._tests = wanted, tests
        self._stages: dict[Place, _Looked] = {}
        self._trials: dict[Place, int] = {}
        self.test_of: dict[str, str] = {}
        """{name that scores stand under: test set}"""

    def __call__(self, block: DistanceBlock) -> None:
        self._trials[block.place] = max(self._trials.get(block.place, 0), block.trial.number + 1)
        if block.trial.number:
            return
        self.test_of[block.place[0]] = block.trial.labelled.name
        if block.place not in self._stages:
            rows = self._tests[block.trial.labelled.name]
            cameras = [rows[number].camera for number in block.trial.gallery.tolist()]
            self._stages[block.place] = _Looked(self._wanted, rows, block, cameras)
        self._stages[block.place].add(block)

    def stages(self) -> dict[Place, Stage]:
        """Everything that was seen, in the order of the scores."""
        return {place: looked.stage(self._trials[place]) for place, looked in self._stages.items()}


class _Looked:
    """One stage, gathered block by block of queries."""

    def __init__(
        self, wanted: Wanted, rows: Sequence[Row], block: DistanceBlock, cameras: Sequence[str]
    ):
        self._wanted, self._rows = wanted, rows
        self._query, self._gallery = block.trial.query, block.trial.gallery
        self._accepts = TrueAccepts(wanted.rates, len(block.trial.query) * len(block.trial.gallery))
        self._bins = Bins()
        self._parts: dict[int, dict[str, Tensor]] = {}
        self._cameras: dict[tuple[str, str], list[float]] = {}
        self._columns = {
            camera: torch.tensor([place for place, one in enumerate(cameras) if one == camera])
            for camera in dict.fromkeys(cameras)
        }

    def add(self, block: DistanceBlock) -> None:
        distances, judged = block.distances, block.judged.to(block.distances.device)
        ways = self._wanted.ties, self._wanted.precision
        match, ignored = judged.masks()
        counted, wrong = match & ~ignored, ~match & ~ignored
        found = count_queries(distances, judged, *ways)
        self._parts[block.start] = {
            "rank": found.first,
            "ap": found.ap,
            **self._near(distances, counted, ignored),
            **self._nearest("match", distances, counted),
            **self._nearest("wrong", distances, wrong),
        }
        self._accepts.add(distances, judged)
        self._bins.add("match", distances[counted])
        self._bins.add("wrong", distances[wrong])
        self._by_camera(block.start, distances, match, ignored)

    def _numbers(self, index: Tensor) -> Tensor:
        """Numbers of the test set's rows for places in the gallery, -1 for -1."""
        return torch.where(index < 0, -1, self._gallery[index.clamp(min=0)])

    def _near(self, distances: Tensor, counted: Tensor, ignored: Tensor) -> dict[str, Tensor]:
        sizes = min(self._wanted.near, distances.shape[1]), min(SHOWN_IGNORED, distances.shape[1])
        kept, kept_value = smallest(distances.masked_fill(ignored, torch.inf), sizes[0])
        other, other_value = smallest(distances.masked_fill(~ignored, torch.inf), sizes[1])
        last = kept_value.masked_fill(kept < 0, -torch.inf).amax(1, keepdim=True)
        among = (ignored & (distances <= last.to(distances.device))).sum(1).cpu()
        other = other.masked_fill(other_value > last, -1)
        other_value = other_value.masked_fill(other < 0, torch.inf)
        index, value = torch.cat([other, kept], 1), torch.cat([other_value, kept_value], 1)
        kind = torch.where(counted, MATCH, WRONG).masked_fill_(ignored, IGNORED).cpu()
        kind = kind.gather(1, index.clamp(min=0))
        value, order = value.sort(dim=1, stable=True)
        index = index.gather(1, order)
        return {
            "near": self._numbers(index),
            "near_distance": value,
            "near_kind": kind.gather(1, order),
            "near_hidden": among - (other >= 0).sum(1),
        }

    def _nearest(self, name: str, distances: Tensor, among: Tensor) -> dict[str, Tensor]:
        index, value = smallest(distances.masked_fill(~among, torch.inf), 1)
        return {name: self._numbers(index)[:, 0], f"{name}_distance": value[:, 0]}

    def _by_camera(self, start: int, distances: Tensor, match: Tensor, ignored: Tensor) -> None:
        numbers = self._query[start : start + len(distances)].tolist()
        names = [self._rows[number].camera for number in numbers]
        for camera, columns in self._columns.items():
            where = columns.to(distances.device)
            part = distances[:, where]
            judged = Judgements.of_masks(match[:, where], ignored[:, where])
            found = count_queries(part, judged, self._wanted.ties, self._wanted.precision)
            each = zip(names, found.ap.tolist(), found.matches.tolist(), strict=True)
            for name, ap, matches in each:
                if matches:
                    self._cameras.setdefault((name, camera), []).append(ap)

    def stage(self, trials: int) -> Stage:
        parts = [self._parts[start] for start in sorted(self._parts)]
        fields = {
            name: torch.cat([part[name].cpu() for part in parts]).numpy() for name in parts[0]
        }
        shares = self._accepts.shares()
        return Stage(
            query=self._query.numpy(),
            **fields,
            histogram=self._bins.histogram(),
            accepts={
                rate: (limit, shares[rate]) for rate, limit in self._accepts.thresholds().items()
            },
            cameras={
                pair: (math.fsum(values) / len(values), len(values))
                for pair, values in sorted(self._cameras.items())
            },
            trials=trials,
        )


class Bins:
    """Counts numbers whose range is not known before: neighbouring bins are joined, two by two,
    until no more than `BINS` are left. The result depends on no order."""

    def __init__(self) -> None:
        self._width = 2.0**-30
        self._counts: dict[str, dict[int, int]] = {"match": {}, "wrong": {}}

    def add(self, name: str, values: Tensor) -> None:
        """values: [N], finite."""
        if not len(values):
            return
        low, high = values.min().item(), values.max().item()
        known = [key for counts in self._counts.values() for key in counts]
        while True:
            ends = [math.floor(low / self._width), math.floor(high / self._width), *known]
            if max(ends) - min(ends) < BINS:
                break
            self._widen()
            known = [key for counts in self._counts.values() for key in counts]
        first = math.floor(low / self._width)
        places = (values.double() / self._width).floor_().long() - first
        counts = self._counts[name]
        for place, count in enumerate(places.bincount().tolist(), first):
            if count:
                counts[place] = counts.get(place, 0) + count

    def _widen(self) -> None:
        self._width *= 2
        for name, counts in self._counts.items():
            joined: dict[int, int] = {}
            for key, count in counts.items():
                joined[key // 2] = joined.get(key // 2, 0) + count
            self._counts[name] = joined

    def histogram(self) -> Histogram:
        known = [key for counts in self._counts.values() for key in counts] or [0]
        first, size = min(known), max(known) - min(known) + 1
        sides = {name: np.zeros(size, dtype=np.int64) for name in self._counts}
        for name, counts in self._counts.items():
            for key, count in counts.items():
                sides[name][key - first] = count
        return Histogram(self._width, first, sides["match"], sides["wrong"])
