"""The head that turns a map into unit vectors, one for each location."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_qaconv.settings_matching import Local as LocalSettings
from reidcore.modules import Context, Images, at_least_float32


def unit_locations(maps: Tensor) -> Tensor:
    """[B, C, H, W] with every location scaled to length 1 over its channels, at least float32; zero
    vectors stay zero (x / max(|x|, 1e-12))."""
    with torch.autocast(maps.device.type, enabled=False):
        return F.normalize(at_least_float32(maps), dim=1)


class Local(nn.Module):
    """A map with fewer channels, normalised at each location: `map` (Liao and Shao 2020, sections
    3.1 and 5.1). [B, C, H, W] -> [B, channels, H, W], at least float32."""

    def __init__(self, config: LocalSettings, context: Context):
        super().__init__()
        self.source = config.source
        self.neck = nn.Sequential()
        if config.channels:
            inputs, kernel = context.map(config.source)[0], config.kernel
            self.neck.append(
                nn.Conv2d(inputs, config.channels, kernel, padding=kernel // 2, bias=config.bias)
            )
            if config.bn:
                self.neck.append(nn.BatchNorm2d(config.channels))

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        return {"map": unit_locations(self.neck(features[self.source]))}


def build_local(config: LocalSettings, context: Context) -> Local:
    return Local(config, context)
