"""Generalised-mean pooling."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from reidcore.modules import Context, Images
from torch import Tensor, nn

from reid_PLUGIN.settings_gem import GeM as Settings

LEAST = 1e-6  # powers of 0 have no gradient


class GeM(nn.Module):
    """[B, C, H, W] to `vector` [B, C]: (mean over all positions of x^p)^(1/p), x at least 1e-6
    (Radenović et al. 2019, equation 3). One exponent for all channels, learned."""

    def __init__(self, config: Settings):
        super().__init__()
        self.source = config.source
        self.p = nn.Parameter(torch.tensor(config.p))

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        maps = features[self.source]
        # Powers of half-precision numbers overflow.
        with torch.autocast(maps.device.type, enabled=False):
            powers = maps.to(self.p.dtype).clamp(min=LEAST).pow(self.p)
            return {"vector": powers.mean((2, 3)).pow(1 / self.p)}


def build(config: Settings, context: Context) -> GeM:
    return GeM(config)
