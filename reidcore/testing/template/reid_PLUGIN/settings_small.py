"""Settings and wiring of `PLUGIN.small`."""

from __future__ import annotations

import attrs
from reidcore.api import Feature, Given, setting
from reidcore.sizes import conv_size

STAGES = ("layer1", "layer2", "layer3", "layer4")


@attrs.frozen
class Small:
    """Settings of `PLUGIN.small`."""

    channels: int = setting(
        "channels of layer1; every further stage has twice as many", default=32, at_least=1
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        height, width = given.image
        stages = {}
        for number, stage in enumerate(STAGES):
            height, width = conv_size(height, 3, 2, 1), conv_size(width, 3, 2, 1)
            stages[stage] = Feature.map(self.channels * 2**number, height, width)
        return stages
