"""Settings and wiring of `PLUGIN.positions`."""

from __future__ import annotations

import attrs
from reidcore.api import Given, MapName, Matching, TensorSpec, setting


@attrs.frozen
class Positions:
    """Settings of `PLUGIN.positions`."""

    feature: MapName = setting("the map whose positions are compared")

    def describe(self, given: Given) -> Matching:
        channels, height, width = given.map(self.feature)
        pairs = (height * width) ** 2
        return Matching(
            {"map": TensorSpec((channels, height, width))},
            unit=True,
            symmetric=True,
            pair_bytes=4 * pairs,
            pair_flops=2 * channels * pairs,
        )
