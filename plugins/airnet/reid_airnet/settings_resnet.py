"""Settings and wiring of the plugin's backbone. Torch-free."""

from __future__ import annotations

from typing import Literal

import attrs

from reid_airnet.settings_context import ContextSettings
from reidcore.api import IMAGENET, Feature, Given, setting
from reidcore.sizes import conv_size, resnet_shapes

Stage = Literal["layer1", "layer2", "layer3", "layer4"]
COPIES = ("a", "i")
"""Endings of the names of the two copies' maps: appearance, and interaction."""


@attrs.frozen
class ResNet(ContextSettings):
    """Settings of `airnet.resnet`. The paper counts five stages: its stage n is layer n - 1."""

    depth: Literal[18, 34, 50, 101, 152] = setting("layers of the network", default=50)
    width: float = setting(
        "factor on all channel numbers; the stem has 64 times as many", default=1.0, above=0
    )
    norm: Literal["batch", "ibn_a", "ibn_b"] = setting(
        "ibn_a: instance norm for half the channels of the first norm in every block of layer1 to "
        "layer3; ibn_b: instance norm in the stem and behind the last block of layer1 and layer2",
        default="batch",
    )
    last_stride: Literal[1, 2] = setting("stride of both copies of layer4", default=1)
    layer3_stride: Literal[1, 2] = setting(
        "stride of layer3; 1 is the other reading of conv4.1 in the paper, with last_stride 2 or 1",
        default=2,
    )
    split: Literal["layer4", "layer3"] = setting(
        "where the two branches part: before layer4, or behind the first block of layer3, so that "
        "its other blocks are there twice too",
        default="layer4",
    )
    gc: list[Stage] | None = setting(
        "stages with a global context block; not given: layer2 and layer3 with batch norm, none "
        "with instance norm",
        default=None,
    )
    gc_position: Literal["stage", "block"] = setting(
        "stage: one block on the stage's output; block: one in every residual block, before its "
        "sum",
        default="stage",
    )
    weights: str = setting(
        'what to start from: "" random, "imagenet" torchvision\'s published weights, or the path '
        "of a checkpoint of the undivided network; both copies start alike",
        default="",
    )
    allow: list[str] = setting(
        "keys of the checkpoint or of the network that may stay unmatched: shell patterns, or "
        "leading components such as layer4.0",
        default=[],
    )

    def contexts(self) -> list[Stage]:
        """The stages with a global context block."""
        if self.gc is not None:
            return self.gc
        return ["layer2", "layer3"] if self.norm == "batch" else []

    def outputs(self, given: Given) -> dict[str, Feature]:
        given.need(
            self.weights != IMAGENET or (self.width == 1 and self.norm == "batch"),
            "weights",
            f"is {IMAGENET!r}, but torchvision publishes no weights for width = {self.width:g} and "
            f'norm = "{self.norm}"; give the path of a checkpoint',
        )
        given.weights("weights", self.weights)
        shapes = resnet_shapes(self.depth, given.image, self.last_stride, self.width)
        if self.layer3_stride == 1:
            _, height, width = shapes["layer2"]
            shapes["layer3"] = (shapes["layer3"][0], height, width)
            height, width = (conv_size(one, 3, self.last_stride, 1) for one in (height, width))
            shapes["layer4"] = (shapes["layer4"][0], height, width)
        normed = {"ibn_a": "layer3", "ibn_b": "layer2"}.get(self.norm)
        if normed:
            given.need(
                shapes[normed][1] * shapes[normed][2] >= 2,
                "",
                f"needs larger pictures than {given.image[0]}x{given.image[1]}: instance norm of "
                f"{normed} needs more than one position",
            )
        copied = ["layer4"] if self.split == "layer4" else ["layer3", "layer4"]
        maps = {stage: shape for stage, shape in shapes.items() if stage not in copied}
        maps |= {f"{stage}{copy}": shapes[stage] for stage in copied for copy in COPIES}
        return {stage: Feature.map(*shape) for stage, shape in maps.items()}
