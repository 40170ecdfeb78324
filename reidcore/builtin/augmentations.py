"""The core's augmentations: uint8 [3, H, W] -> uint8 [3, H, W]."""

from __future__ import annotations

import torch
from torch import Tensor

from reidcore.builtin.settings import Flip as FlipSettings
from reidcore.builtin.settings import PadCrop as PadCropSettings
from reidcore.modules import Context


class Flip:
    """Mirrors left and right with probability p."""

    def __init__(self, config: FlipSettings):
        self.p = config.p

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        if torch.rand((), generator=generator) < self.p:
            return picture.flip(2)
        return picture


class PadCrop:
    """Pads all four sides and crops at a random place to the size before."""

    def __init__(self, config: PadCropSettings):
        self.pad = config.pad
        self.fill = config.fill

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        channels, height, width = picture.shape
        padded = picture.new_full(
            (channels, height + 2 * self.pad, width + 2 * self.pad), self.fill
        )
        padded[:, self.pad : self.pad + height, self.pad : self.pad + width] = picture
        top, left = torch.randint(2 * self.pad + 1, (2,), generator=generator).tolist()
        return padded[:, top : top + height, left : left + width].contiguous()


def build_flip(config: FlipSettings, context: Context) -> Flip:
    return Flip(config)


def build_pad_crop(config: PadCropSettings, context: Context) -> PadCrop:
    return PadCrop(config)
