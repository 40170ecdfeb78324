"""The plugin `shown`: a head, a matcher and a loss that explain themselves."""

from __future__ import annotations

import attrs

from reidcore.api import (
    Component,
    Feature,
    MapName,
    Matching,
    TensorSpec,
    VectorName,
    hookimpl,
    setting,
)

SAMPLE = """\
format = 1

[data]
train = { read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8 }
image = [32, 16]
batch = { use = "core.identities", ids = 2, per_id = 2 }

[backbone]
use = "core.resnet"
depth = 18
width = 0.125

[[head]]
name = "mean"
use = "shown.mean"
source = "backbone.layer3"

[[matcher]]
name = "places"
use = "shown.places"
feature = "backbone.layer3"

[[loss]]
name = "id"
use = "core.softmax"
features = ["mean.vector"]

[train]
epochs = 1

[optim]
lr = 0.001
"""


@attrs.frozen
class Mean:
    source: MapName = setting("a map")
    fault: str = setting("what is wrong with explain", default="")

    def outputs(self, given):
        return {"vector": Feature.vector(given.map(self.source)[0])}


@attrs.frozen
class Places:
    feature: MapName = setting("a map")

    def describe(self, given):
        return Matching({"map": TensorSpec(given.map(self.feature))}, symmetric=True)


@attrs.frozen
class Guess:
    feature: VectorName = setting("a mean of the map")
    source: MapName = setting("the map")

    def check(self, given):
        pass


@hookimpl
def reid_heads():
    return [Component("mean", Mean, "PACKAGE.parts:build_mean", "mean of a map", sample=SAMPLE)]


@hookimpl
def reid_matchers():
    return [
        Component("places", Places, "PACKAGE.parts:build_places", "place by place", sample=SAMPLE)
    ]


@hookimpl
def reid_losses():
    return [Component("guess", Guess, "PACKAGE.parts:build_guess", "a classifier")]
