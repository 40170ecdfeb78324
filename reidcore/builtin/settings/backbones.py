"""Settings and wiring of the core's backbones."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import Feature, Given, setting
from reidcore.sizes import resnet_shapes


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
