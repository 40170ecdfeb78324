"""Settings, wiring and hooks; imports neither torch nor numpy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import attrs

from reidcore.api import (
    BatchShape,
    Component,
    Facts,
    Feature,
    Given,
    LossName,
    MapName,
    MatcherName,
    Matching,
    Row,
    TensorSpec,
    VectorName,
    hookimpl,
    setting,
)

SAMPLE = (resources.files("reid_stranger") / "runs" / "everything.toml").read_text("utf-8")


@attrs.frozen
class Local:
    """A reduced map whose positions have unit length, and its mean with the camera's shift."""

    source: MapName = setting("the map to reduce")
    channels: int = setting("channels that are left", default=8, at_least=1)

    def outputs(self, given: Given) -> dict[str, Feature]:
        given.need_column("camera", "train")
        _, height, width = given.map(self.source)
        return {
            "map": Feature.map(self.channels, height, width),
            "vector": Feature.vector(self.channels),
            "each": Feature.tensor(given.cameras, self.channels),
        }


@attrs.frozen
class Pairs:
    """Best correlations between the positions of two maps, weighed by learned numbers."""

    feature: MapName = setting("the map to compare; its positions have unit length")

    def describe(self, given: Given) -> Matching:
        channels, height, width = given.map(self.feature)
        positions = height * width
        return Matching(
            {"map": TensorSpec((channels, height, width)), "seen": TensorSpec((positions,))},
            unit=True,
            logits=True,
            pair_bytes=4 * positions**2,
            pair_flops=2 * channels * positions**2,
        )


@attrs.frozen
class Memory:
    """Binary cross-entropy of a matcher's logits against a memory of class maps."""

    feature: MapName = setting("the map that the memory keeps")
    matcher: MatcherName = setting("the matcher to train, which needs logits")
    balance: LossName = setting("weight is 1 / (1 + the last mean of this loss)")
    momentum: float = setting("share of the memory that stays", default=0.5, at_least=0, below=1)

    def check(self, given: Given) -> None:
        given.need_logits("matcher", self.matcher)
        given.need(given.identities >= 2, "", "needs at least two training identities")


@attrs.frozen
class Travel:
    """Distances mixed with expanded queries, with the gallery's neighbours and with times."""

    seconds: float = setting("after so long a time nothing is known", default=600.0, above=0)

    def check(self, given: Given) -> bool:
        given.need_column("time")
        given.need_unit()
        given.need_matcher_distances()
        return True


@attrs.frozen
class TwoStreams:
    """Trains on half of the identities; a classifier of its own learns the others."""

    feature: VectorName = setting("the vector that the own classifier reads")

    def check(self, given: Given) -> None:
        given.need(given.identities >= 4, "", "needs at least four training identities")


@attrs.frozen
class Hard:
    """Batches of an identity and those that look most like it."""

    ids: int = setting("identities in a batch", default=2, at_least=2)
    per_id: int = setting("pictures of each", default=2, at_least=2)
    feature: VectorName = setting("the vector in which identities are compared")
    matcher: MatcherName = setting("the matcher that chooses the pictures of an identity")

    def check(self, given: Given) -> None:
        given.need(given.vector(self.feature) > 1, "feature", "needs more than one number")

    def batch(self) -> BatchShape:
        return BatchShape(self.ids * self.per_id, self.ids, self.per_id)


@attrs.frozen
class Fade:
    """Makes a picture darker."""

    least: float = setting("darkest factor", default=0.5, above=0, at_most=1)


@attrs.frozen
class Folders:
    """ROOT/SPLIT/PID/CAMERA_SECONDS.jpg."""

    suffix: str = setting("what pictures' names end with", default=".jpg")

    def facts(self) -> Facts:
        return Facts(
            identities=4,
            cameras=("north", "south"),
            columns=frozenset({"camera", "time"}),
            counts={"train": 32, "query": 6, "gallery": 18},
        )

    def rows(self, root: Path) -> list[Row]:
        rows = []
        for path in sorted(root.glob(f"*/*/*{self.suffix}")):
            camera, _, seconds = path.stem.partition("_")
            split, pid = path.parts[-3:-1]
            rows.append(Row(str(path), pid, camera, split, float(seconds), listed=path.name))
        return rows


def _one(name: str, config: type, build: str, summary: str) -> Sequence[Component]:
    target = f"reid_stranger.{build}" if build else ""
    return [Component(name, config, target, summary, sample=SAMPLE)]


@hookimpl
def reid_heads() -> Sequence[Component]:
    return _one("local", Local, "parts:build_local", "a reduced map with unit positions")


@hookimpl
def reid_matchers() -> Sequence[Component]:
    return _one("pairs", Pairs, "parts:build_pairs", "weighed correlations of two maps")


@hookimpl
def reid_losses() -> Sequence[Component]:
    return _one("memory", Memory, "memory:build", "a matcher's logits against class maps")


@hookimpl
def reid_postprocessors() -> Sequence[Component]:
    return _one("travel", Travel, "travel:build", "expanded queries, neighbours and times")


@hookimpl
def reid_procedures() -> Sequence[Component]:
    return _one("two_streams", TwoStreams, "streams:two_streams", "two loaders, two classifiers")


@hookimpl
def reid_samplers() -> Sequence[Component]:
    return _one("hard", Hard, "loading:build_hard", "identities that look alike")


@hookimpl
def reid_augmentations() -> Sequence[Component]:
    return _one("fade", Fade, "loading:build_fade", "makes a picture darker")


@hookimpl
def reid_readers() -> Sequence[Component]:
    return _one("folders", Folders, "", "one folder for each split and identity")


@hookimpl
def reid_epoch_ended(
    run: Any, epoch: int, means: Mapping[str, float], scores: Mapping[str, Any] | None
) -> None:
    """Notes each epoch and whether it was scored."""
    run.write(f"seen-{epoch + 1}.json", json.dumps({"scored": scores is not None}))
