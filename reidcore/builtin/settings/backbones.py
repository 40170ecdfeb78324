"""Settings and wiring of the core's backbones."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.contracts.component import Feature
from reidcore.contracts.given import Given
from reidcore.contracts.settings import IMAGENET, setting
from reidcore.sizes import (
    OSNET_WIDTHS,
    mobilenet_v2_shapes,
    osnet_shapes,
    resnet_shapes,
    vgg19_bn_shapes,
)

WEIGHTS = (
    'what to start from: "" random, "imagenet" torchvision\'s published weights, "PLUGIN:NAME" '
    "those that a plugin names, or the path of a checkpoint"
)
UNPUBLISHED_WEIGHTS = (
    'what to start from: "" random, "PLUGIN:NAME" weights that a plugin names, or the path of a '
    "checkpoint"
)
ALLOW = (
    "keys of the checkpoint or of the network that may stay unmatched: shell patterns, or leading "
    "components such as layer4.0"
)


def _note_weights(given: Given, weights: str, unpublished: str) -> None:
    """Notes the file; `unpublished` says for what torchvision has no weights, if so."""
    given.need(
        weights != IMAGENET or not unpublished,
        "weights",
        f"is {IMAGENET!r}, but torchvision publishes no weights for {unpublished}; give the path "
        "of a checkpoint",
    )
    given.weights("weights", weights)


def _need_extents(given: Given, map_shape: tuple[int, ...], positions: int, why: str) -> None:
    height, width = map_shape[1:]
    given.need(
        height * width >= positions,
        "",
        f"needs larger pictures than {given.image[0]}x{given.image[1]}: {why}",
    )


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
    norm: Literal["batch", "ibn_a", "ibn_b"] = setting(
        "ibn_a: instance norm for half the channels of the first norm in every block of layer1 to "
        "layer3; ibn_b: instance norm in the stem and behind the last block of layer1 and layer2",
        default="batch",
    )
    attention: Literal["none", "se"] = setting(
        "se: squeeze-and-excitation on the residual of every block", default="none"
    )
    weights: str = setting(WEIGHTS, default="")
    allow: list[str] = setting(ALLOW, default=[])

    def outputs(self, given: Given) -> dict[str, Feature]:
        shapes = resnet_shapes(self.depth, given.image, self.last_stride, self.width)
        changed = {
            f"width = {self.width:g}": self.width != 1,
            f'norm = "{self.norm}"': self.norm != "batch",
            f'attention = "{self.attention}"': self.attention != "none",
        }
        _note_weights(given, self.weights, " and ".join(key for key in changed if changed[key]))
        last = {"ibn_a": "layer3", "ibn_b": "layer2"}.get(self.norm)
        if last:
            _need_extents(
                given, shapes[last], 2, f"instance norm of {last} needs more than one position"
            )
        return {stage: Feature.map(*shape) for stage, shape in shapes.items()}


@attrs.frozen
class OSNet:
    """Settings of `core.osnet`."""

    width: float = setting(
        "factor on all channel numbers: 0.25, 0.5, 0.75 or 1, as published",
        default=1.0,
        check=lambda value: None if value in OSNET_WIDTHS else "expected 0.25, 0.5, 0.75 or 1",
    )
    weights: str = setting(UNPUBLISHED_WEIGHTS, default="")
    allow: list[str] = setting(ALLOW, default=[])

    def outputs(self, given: Given) -> dict[str, Feature]:
        shapes = osnet_shapes(self.width, given.image)
        _note_weights(given, self.weights, "an OSNet")
        _need_extents(given, shapes["layer2"], 1, "nothing would be left of them after layer2")
        vector = {"fc": Feature.vector(*shapes.pop("fc"))}
        return {stage: Feature("map", shape) for stage, shape in shapes.items()} | vector


@attrs.frozen
class MobileNetV2:
    """Settings of `core.mobilenet_v2`."""

    last_stride: Literal[1, 2] = setting(
        "stride of the last block that shrinks, in layer4; 1 doubles its resolution", default=1
    )
    width: float = setting(
        "factor on channel numbers, which become multiples of 8", default=1.0, above=0
    )
    weights: str = setting(WEIGHTS, default="")
    allow: list[str] = setting(ALLOW, default=[])

    def outputs(self, given: Given) -> dict[str, Feature]:
        shapes = mobilenet_v2_shapes(given.image, self.last_stride, self.width)
        _note_weights(given, self.weights, f"width = {self.width:g}" if self.width != 1 else "")
        return {stage: Feature.map(*shape) for stage, shape in shapes.items()}


@attrs.frozen
class VGG19BN:
    """Settings of `core.vgg19_bn`."""

    last_stride: Literal[1, 2] = setting(
        "stride of layer4; 1 goes without the last max pooling, which doubles its resolution",
        default=1,
    )
    width: float = setting(
        "factor on all channel numbers; layer4 has 512 times as many", default=1.0, above=0
    )
    weights: str = setting(WEIGHTS, default="")
    allow: list[str] = setting(ALLOW, default=[])

    def outputs(self, given: Given) -> dict[str, Feature]:
        shapes = vgg19_bn_shapes(given.image, self.last_stride, self.width)
        _note_weights(given, self.weights, f"width = {self.width:g}" if self.width != 1 else "")
        _need_extents(given, shapes["layer4"], 1, "nothing would be left of them in layer4")
        return {stage: Feature.map(*shape) for stage, shape in shapes.items()}
