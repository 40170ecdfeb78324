"""The plugin `toy`: parts whose wiring asks for things. Nothing here is ever built."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import (
    BatchShape,
    Component,
    Facts,
    Feature,
    LossName,
    MapName,
    MatcherName,
    Matching,
    TensorName,
    TensorSpec,
    VectorName,
    hookimpl,
    setting,
)


@attrs.frozen
class Cells:
    source: MapName = setting("the map to cut")
    count: int = setting("number of cells", default=2, at_least=1)
    weights: str = setting("a file of weights", default="")

    def outputs(self, given):
        channels = given.map(self.source)[0]
        if self.weights:
            given.file("weights", self.weights)
        given.need(self.count % 2 == 0, "count", f"must be even here, got {self.count}")
        return {"grid": Feature.tensor(self.count, channels), "vector": Feature.vector(channels)}


@attrs.frozen
class Pairs:
    grid: TensorName = setting("cells to compare")

    def describe(self, given):
        return Matching(
            {"grid": TensorSpec(given.feature(self.grid).shape)}, logits=True, pair_flops=1000
        )


@attrs.frozen
class Memory:
    feature: VectorName = setting("what is remembered")
    matcher: MatcherName = setting("a matcher with logits")
    momentum: float = setting("share of the old", default=0.5, at_least=0, at_most=1)

    def check(self, given):
        given.need_logits("matcher", self.matcher)


@attrs.frozen
class Balance:
    losses: list[LossName] = setting("losses whose means weigh this one")
    feature: VectorName | None = setting("a vector", default=None)

    def check(self, given):
        pass


@attrs.frozen
class Times:
    lag: float = setting("seconds", default=60.0, above=0)

    def check(self, given):
        given.need_column("time")
        given.need_unit()
        return True


@attrs.frozen
class Rerank:
    k1: int = setting("neighbours", default=20, at_least=1)
    variant: Literal["plain", "fast"] = setting("which formula", default="plain")

    def check(self, given):
        given.need_matcher_distances()
        return True


@attrs.frozen
class Clip:
    by: list[float] = setting("from and to", default=[0.0, 1.0])

    def check(self, given):
        return False


@attrs.frozen
class Folder:
    season: Literal["summer", "winter"] = setting("which half", default="summer")

    def facts(self):
        return Facts(
            identities=20,
            cameras=["1", "2"],
            columns=frozenset({"camera"}),
            counts={"train": 100, "query": 20, "gallery": 80},
        )

    def rows(self, root):
        raise AssertionError("never read")


@attrs.frozen
class Graph:
    matcher: MatcherName = setting("whose distances choose the batches")
    size: int = setting("identities in a batch", default=8, at_least=2)
    feature: VectorName | None = setting("what is asked for besides", default=None)

    def check(self, given):
        given.need(given.matchers[self.matcher].logits, "matcher", "has no logits")

    def batch(self):
        return BatchShape(self.size * 4, self.size, 4)


@attrs.frozen
class Grey:
    p: float = setting("probability", default=0.5, at_least=0, at_most=1)


def part(name, config):
    return Component(name, config, "toy.parts:build", summary=name)


@hookimpl
def reid_heads():
    return [part("cells", Cells)]


@hookimpl
def reid_matchers():
    return [part("pairs", Pairs)]


@hookimpl
def reid_losses():
    return [part("memory", Memory), part("balance", Balance)]


@hookimpl
def reid_postprocessors():
    return [part("times", Times), part("rerank", Rerank), part("clip", Clip)]


@hookimpl
def reid_readers():
    return [Component("folder", Folder, summary="a folder")]


@hookimpl
def reid_samplers():
    return [part("graph", Graph)]


@hookimpl
def reid_augmentations():
    return [part("grey", Grey)]


@hookimpl
def reid_run_started(run):
    pass
