"""Settings and wiring of the core's heads."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.contracts.component import Feature
from reidcore.contracts.given import Given, WiringError
from reidcore.contracts.settings import FeatureName, MapName, setting


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
        given.need_batch_norm()
        vector = Feature.vector(feature.shape[0])
        return {"pooled": vector, "bn": vector}
