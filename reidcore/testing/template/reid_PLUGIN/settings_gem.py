"""Settings and wiring of `PLUGIN.gem`."""

from __future__ import annotations

import attrs
from reidcore.api import Feature, Given, MapName, setting


@attrs.frozen
class GeM:
    """Settings of `PLUGIN.gem`."""

    source: MapName = setting("the map to pool")
    p: float = setting(
        "the exponent at the start; 1 is the average, large ones come near the maximum",
        default=3.0,
        at_least=1,
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        channels, _, _ = given.map(self.source)
        return {"vector": Feature.vector(channels)}
