"""Settings and wiring of the core's components. Imports neither torch nor numpy."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import (
    BatchShape,
    Feature,
    FeatureName,
    Given,
    MapName,
    MatcherName,
    Matching,
    TensorSpec,
    VectorName,
    WiringError,
    setting,
)
from reidcore.sizes import resnet_shapes


def _not_empty(value: list[str]) -> str | None:
    return None if value else "expected at least one feature"


@attrs.frozen
class ResNet:
    """Settings of `core.resnet`."""

    depth: Literal[18, 34, 50, 101, 152] = setting("layers of the network", default=50)
    last_stride: Literal[1, 2] = setting(
        "stride of layer4; 1 doubles its resolution, as is usual in re-identification", default=1
    )
    width: float = setting(
        "factor on all channel numbers; the stem has 64 times as many", default=1.0, above=0
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        shapes = resnet_shapes(self.depth, given.image, self.last_stride, self.width)
        return {stage: Feature.map(*shape) for stage, shape in shapes.items()}


@attrs.frozen
class Pool:
    """Settings of `core.pool`."""

    source: MapName = setting("the map to pool")
    kind: Literal["average", "max", "gem"] = setting(
        "mean or maximum over the positions, or the generalised mean with a learnt power",
        default="average",
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        return {"vector": Feature.vector(given.map(self.source)[0])}


@attrs.frozen
class BNNeck:
    """Settings of `core.bnneck`."""

    source: FeatureName = setting("a map, which is pooled here, or a vector")
    pool: Literal["average", "max", "gem"] = setting(
        "how a map is pooled; a vector is taken as it is", default="average"
    )
    shift: bool = setting("whether the normalisation's shift is trained or stays 0", default=False)

    def outputs(self, given: Given) -> dict[str, Feature]:
        feature = given.feature(self.source)
        if feature.kind == "tensor":
            raise WiringError(
                "source", f"needs a map or a vector, but {self.source!r} is a {feature}"
            )
        given.need(
            given.batch.size != 1,
            "",
            "normalises over the batch, so data.batch needs at least two pictures; it has one",
        )
        vector = Feature.vector(feature.shape[0])
        return {"pooled": vector, "bn": vector}


@attrs.frozen
class Softmax:
    """Settings of `core.softmax`."""

    features: list[VectorName] = setting(
        "the vectors to classify, all by one classifier; their losses are added", check=_not_empty
    )
    smoothing: float = setting(
        "share of the target that is spread over all identities", default=0.0, at_least=0, below=1
    )
    bias: bool = setting("whether the classifier has a bias", default=False)

    def check(self, given: Given) -> None:
        lengths = {name: given.vector(name) for name in self.features}
        first = self.features[0]
        for name, length in lengths.items():
            given.need(
                length == lengths[first],
                "features",
                f"share one classifier, so they need one length, but {first!r} has "
                f"{lengths[first]} and {name!r} has {length}. Use one loss for each length.",
            )
        given.need(
            given.identities >= 2,
            "",
            f"needs at least two training identities; the data have {given.identities}",
        )


@attrs.frozen
class Triplet:
    """Settings of `core.triplet`."""

    feature: VectorName | None = setting("the vector whose distances are trained", default=None)
    matcher: MatcherName | None = setting(
        "instead of a feature, the matcher whose distance is trained", default=None
    )
    metric: Literal["euclidean", "cosine"] = setting(
        "distance between features; cosine is 1 - cos", default="euclidean"
    )
    margin: float = setting(
        "by how much a negative must be farther than a positive, in units of the distance",
        default=0.3,
        at_least=0,
    )
    soft: bool = setting("log(1 + exp(x)) in place of the margin", default=False)

    def check(self, given: Given) -> None:
        if (self.feature is None) == (self.matcher is None):
            found = "neither" if self.feature is None else "both"
            raise WiringError("", f"needs either feature or matcher, but {found} is set")
        given.need(
            self.matcher is None or self.metric == "euclidean",
            "metric",
            "is for a feature; a matcher has its own distance. Remove metric or matcher.",
        )
        ids, per_id = given.batch.ids, given.batch.per_id
        if ids is None or per_id is None:
            found = "promises no numbers of identities and pictures"
        else:
            found = f"has {ids} x {per_id}"
        given.need(
            (ids or 0) >= 2 and (per_id or 0) >= 2,
            "",
            "needs batches with at least two identities and two pictures of each, but data.batch "
            f"{found}. Use core.identities with ids and per_id of 2 or more.",
        )


def _vector_matching(given: Given, features: list[VectorName], unit: bool) -> Matching:
    length = sum(given.vector(name) for name in features)
    return Matching(
        {"vector": TensorSpec((length,))}, unit=unit, symmetric=True, pair_flops=2 * length
    )


@attrs.frozen
class Cosine:
    """Settings of `core.cosine`."""

    features: list[VectorName] = setting("the vectors to concatenate", check=_not_empty)
    each: bool = setting(
        "whether each vector is scaled to unit length before concatenation, so that all weigh the "
        "same",
        default=False,
    )

    def describe(self, given: Given) -> Matching:
        return _vector_matching(given, self.features, unit=True)


@attrs.frozen
class Euclidean:
    """Settings of `core.euclidean`."""

    features: list[VectorName] = setting("the vectors to concatenate", check=_not_empty)
    squared: bool = setting("whether the distance is squared", default=False)

    def describe(self, given: Given) -> Matching:
        return _vector_matching(given, self.features, unit=False)


@attrs.frozen
class Shuffled:
    """Settings of `core.shuffled`."""

    size: int = setting("pictures in a batch", at_least=1)
    drop_last: bool = setting(
        "whether an incomplete last batch is left out; the only batch never is", default=True
    )

    def check(self, given: Given) -> None:
        pass

    def batch(self) -> BatchShape:
        return BatchShape(self.size if self.drop_last else None)


@attrs.frozen
class Identities:
    """Settings of `core.identities`."""

    ids: int = setting("different identities in a batch", at_least=1)
    per_id: int = setting("pictures of each", at_least=1)

    def check(self, given: Given) -> None:
        given.need(
            given.identities >= self.ids,
            "ids",
            f"asks for {self.ids} different identities in a batch, but the training data have "
            f"{given.identities}",
        )

    def batch(self) -> BatchShape:
        return BatchShape(self.ids * self.per_id, self.ids, self.per_id)


@attrs.frozen
class Flip:
    """Settings of `core.flip`."""

    p: float = setting("probability", default=0.5, at_least=0, at_most=1)


@attrs.frozen
class PadCrop:
    """Settings of `core.pad_crop`."""

    pad: int = setting("pixels added on each side", default=10, at_least=0)
    fill: int = setting("value of the added pixels", default=0, at_least=0, at_most=255)


@attrs.frozen
class Train:
    """`core.train` has no settings of its own: they are in [train] and [optim]."""

    def check(self, given: Given) -> None:
        given.need(bool(given.losses), "", "needs at least one [[loss]]")
