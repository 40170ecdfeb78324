"""The plugin `small`: a network that torch compiles in seconds."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from reidcore.api import Component, Feature, Given, hookimpl
from reidcore.modules import Context, Images


@attrs.frozen
class Small:
    def outputs(self, given: Given) -> dict[str, Feature]:
        return {"map": Feature.map(8, *(side // 4 for side in given.image))}


class SmallNet(nn.Module):
    """A convolution, a norm and a rectifier."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images: Images) -> dict[str, Tensor]:
        return {"map": torch.relu(self.norm(self.conv(images.pixels)))}


def build_small(config: Small, context: Context) -> SmallNet:
    return SmallNet()


@hookimpl
def reid_backbones() -> list[Component]:
    return [Component("net", Small, "compiled_parts:build_small")]
