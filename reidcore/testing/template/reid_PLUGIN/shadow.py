"""An augmentation: a shadow from one side."""

from __future__ import annotations

import torch
from reidcore.modules import Context
from torch import Tensor

from reid_PLUGIN.settings_shadow import Shadow as Settings


class Shadow:
    """uint8 [3, H, W] to the same, everything left or right of a random column multiplied by a
    factor from [least, 1]."""

    def __init__(self, config: Settings):
        self.probability = config.probability
        self.least = config.least

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        chance, factor, edge, side = torch.rand(4, generator=generator).tolist()
        if chance >= self.probability:
            return picture
        column = round(edge * picture.shape[2])
        where = slice(0, column) if side < 0.5 else slice(column, None)
        dark = picture.clone()
        shade = self.least + (1 - self.least) * factor
        dark[:, :, where] = (dark[:, :, where].float() * shade).to(torch.uint8)
        return dark


def build(config: Settings, context: Context) -> Shadow:
    return Shadow(config)
