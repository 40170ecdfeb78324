"""Settings and wiring of `ddag.two_stream`."""

from __future__ import annotations

import re
from typing import Literal

import attrs

from reidcore.api import IMAGENET, Feature, Given, setting
from reidcore.sizes import resnet_shapes

NAME = re.compile(r"[^\s.]+")


def _names(value: list[str]) -> str | None:
    if not value or len(set(value)) < len(value):
        return "expected different names, at least one"
    return None if all(map(NAME.fullmatch, value)) else "expected names without spaces and dots"


@attrs.frozen
class TwoStream:
    """Settings of `ddag.two_stream`."""

    modalities: list[str] = setting(
        "modalities with stages of their own; pictures whose modality is not stated are visible",
        default=["visible", "infrared"],
        check=_names,
    )
    own: Literal["stem", "layer1", "layer2", "layer3", "layer4"] = setting(
        "the last stage of which every modality has its own; the stages behind it are shared",
        default="stem",
    )
    depth: Literal[18, 34, 50, 101, 152] = setting("layers of the ResNet", default=50)
    last_stride: Literal[1, 2] = setting("stride of layer4", default=1)
    width: float = setting(
        "factor on all channel numbers; the stem has 64 times as many", default=1.0, above=0
    )
    norm: Literal["batch", "ibn_a"] = setting("as in core.resnet", default="batch")
    attention: Literal["none", "se"] = setting("as in core.resnet", default="none")
    weights: str = setting(
        'what to start from: "" random, "imagenet" torchvision\'s published weights, or the path '
        "of a checkpoint of a ResNet, which every modality starts from, or of a two_stream",
        default="",
    )
    allow: list[str] = setting(
        "keys of the checkpoint or of the network that may stay unmatched: shell patterns, or "
        "leading components such as layer4.0",
        default=[],
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        unknown = [name for name in given.modalities if name not in self.modalities]
        given.need(
            not unknown,
            "modalities",
            f"are {', '.join(self.modalities)}, but the data have {', '.join(unknown)}; name them "
            "all",
        )
        changed = {
            f"width = {self.width:g}": self.width != 1,
            f'norm = "{self.norm}"': self.norm != "batch",
            f'attention = "{self.attention}"': self.attention != "none",
        }
        given.need(
            self.weights != IMAGENET or not any(changed.values()),
            "weights",
            f"is {IMAGENET!r}, but torchvision publishes no weights for "
            f"{' and '.join(key for key in changed if changed[key])}; give the path of a "
            "checkpoint",
        )
        given.weights("weights", self.weights)
        shapes = resnet_shapes(self.depth, given.image, self.last_stride, self.width)
        _, height, width = shapes["layer3"]
        given.need(
            self.norm != "ibn_a" or height * width >= 2,
            "",
            f"needs larger pictures than {given.image[0]}x{given.image[1]}: instance norm of "
            "layer3 needs more than one position",
        )
        return {stage: Feature.map(*shape) for stage, shape in shapes.items()}
