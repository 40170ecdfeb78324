"""The plan of a run: parts whose settings are valid and fit together. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from reidcore.contracts.component import Component, Feature, Matching
from reidcore.contracts.given import Given
from reidcore.contracts.trained_run import Seen, TrainedRun
from reidcore.data.datasets import DataPlan
from reidcore.data.manifest import lookup_rule
from reidcore.errors import DataError
from reidcore.plugins.registration import LoadedComponent, build_function
from reidcore.plugins.weights import LoadedWeights
from reidcore.runfiles.runfile import Part, RunFile
from reidcore.runfiles.tables import IMAGENET_PIXELS, Data, RankingTable


@attrs.frozen(eq=False)
class Wired:
    """A part whose settings are valid.

    outputs: its features by short name. reads: (setting, full feature name). matching: what a
    matcher promises.
    """

    part: Part
    component: LoadedComponent
    config: Any
    outputs: Mapping[str, Feature] = attrs.field(factory=dict)
    reads: tuple[tuple[str, str], ...] = ()
    matching: Matching | None = None

    @property
    def descriptor(self) -> Component:
        """The entry that the part's plugin registers."""
        return self.component.component

    @property
    def instance(self) -> str:
        """The name before the dot in the names of its features: `backbone`, or a head's own."""
        return self.part.name if self.part.where == "head" else self.part.role

    @property
    def owner(self) -> str:
        """The distribution that the part comes from, with its version."""
        return f"{self.component.distribution} {self.component.version}"

    def build(self) -> Callable[..., Any]:
        """Return the function that makes the part, imported now."""
        return build_function(self.component)


@attrs.frozen(eq=False)
class Plan:
    """A run whose parts fit together, ready to be built."""

    runfile: RunFile
    data: DataPlan
    given: Given
    backbone: Wired
    heads: tuple[Wired, ...]
    matchers: tuple[Wired, ...]
    losses: tuple[Wired, ...]
    posts: tuple[Wired, ...]
    rankings: tuple[RankingTable, ...]
    procedure: Wired | None
    batch: Wired | None
    augment: tuple[Wired, ...]
    observers: Mapping[str, Any]
    """Settings of the plugins that observe the run, by name; None of one that takes none."""
    wanted: Mapping[str, frozenset[str]]
    """Short names of the outputs that somebody reads, by role; no others are computed."""
    unread: tuple[str, ...]
    """Roles of heads that nothing reads; they are not built."""
    notes: tuple[str, ...]
    distributions: Mapping[str, str]
    """Version of every distribution that the run uses, readers and observers included."""
    weights: tuple[tuple[str, str], ...] = ()
    """(part, absolute path) of every file of published weights to start from."""
    teachers: tuple[tuple[str, str, TrainedRun | None], ...] = ()
    """(part, folder as the run file names it, the trained run there if any) of every teacher."""
    published: Mapping[str, LoadedWeights] = attrs.field(factory=dict)
    """By path, those of these files that a plugin names, which can be fetched."""

    @property
    def parts(self) -> tuple[Wired, ...]:
        """All parts, in the order in which they are built."""
        rest = (*((self.batch,) if self.batch else ()), *self.augment)
        last = (self.procedure,) if self.procedure else ()
        return (self.backbone, *self.heads, *self.matchers, *self.losses, *self.posts, *rest, *last)

    def matching(self, matcher: str) -> Matching:
        """Return the promises of the matcher of this name."""
        return self.given.matchers[matcher]

    def resolved(self) -> dict[str, Any]:
        """Return every table with every default filled in, for the run record."""
        run = self.runfile
        table: dict[str, Any] = {"format": 1, "name": run.name, "plugins": list(run.plugins)}
        for key in ("data", "train", "optim", "eval"):
            value = getattr(run, key)
            table[key] = attrs.asdict(value) if value is not None else None
        for wired in self.parts:
            settings = {"use": wired.part.use, **attrs.asdict(wired.config)}
            if wired.part.where == "loss":
                settings["weight"] = wired.part.weight
            if wired.part.where == "batch":
                table["data"]["batch"] = settings
            elif wired.part.where != "augment":
                table.setdefault("parts", {})[wired.part.role] = settings
        table["data"]["augment"] = [
            {"use": wired.part.use, **attrs.asdict(wired.config)} for wired in self.augment
        ]
        watching = {
            name: attrs.asdict(one) for name, one in self.observers.items() if one is not None
        }
        if watching:
            table["observers"] = watching
        table["ranking"] = [attrs.asdict(ranking) for ranking in self.rankings]
        return table


def seen_by(data: Data, modalities: Sequence[str]) -> Seen:
    """Return how a run with this [data] and these modalities sees pictures."""
    by = data.normalize
    known = IMAGENET_PIXELS if by == "imagenet" else by
    if isinstance(known, str):
        return Seen(data.image, data.interpolation, modalities=tuple(modalities))
    return Seen(
        data.image, data.interpolation, known.mean, known.deviation, modalities=tuple(modalities)
    )


def require_weights(plan: Plan) -> None:
    """Raise `DataError` (exit code 4) if files of weights to start from are absent."""
    absent = [
        f"{part}: weights not found at {path}"
        for part, path in plan.weights
        if not os.path.isfile(path)
    ]
    if absent:
        raise DataError("\n".join([*absent, lookup_rule("REID_WEIGHTS")]))


def require_teachers(plan: Plan) -> None:
    """Raise `DataError` (exit code 4) if a trained run that a part learns from is absent."""
    absent = [
        f"{part}: no trained run at {os.path.abspath(os.path.expanduser(name))}"
        for part, name, found in plan.teachers
        if found is None
    ]
    if absent:
        raise DataError(
            "\n".join(absent)
            + "\nTrain the teacher first. Relative paths are looked up under the current folder, "
            "else under REID_WEIGHTS."
        )
