"""Appearance and interaction vectors of maps (Blythman et al. 2022, sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_airnet.context import GlobalContext, positions
from reid_airnet.settings_pool import Pool as PoolSettings
from reidcore.api import Heat
from reidcore.modules import Context, Images, at_least_float32


class Maximum(nn.Module):
    """[B, C, H, W] -> [B, C], the maximum over the positions. The gradient is the first one's where
    several are equal."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.flatten(2).max(2).values


class AttentionPool(nn.Module):
    """W_v^T X X^T W_u with the map X [C, positions], W_v [C, C] and W_u [C] (equation 3, with X for
    its transpose, as the stated shapes need it).

    [B, C, H, W] -> [B, C], at least float32, also under autocast: the sum is quadratic in X and
    runs over all positions. weights: sum: X^T W_u as it is, mean: divided by the number of
    positions, softmax: its softmax over the positions. bias: of the values X^T W_v.
    """

    def __init__(
        self,
        channels: int,
        weights: Literal["sum", "mean", "softmax"] = "sum",
        bias: bool = False,
    ):
        super().__init__()
        self.kind = weights
        self.attention = nn.Linear(channels, 1, bias=False)
        self.value = nn.Linear(channels, channels, bias=bias)
        # Not zero: with both at zero neither has a gradient.
        nn.init.normal_(self.attention.weight, std=0.01)
        nn.init.normal_(self.value.weight, std=0.01)
        if bias:
            nn.init.zeros_(self.value.bias)

    def weights(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, H * W], row by row: what every position weighs."""
        with torch.autocast(maps.device.type, enabled=False):
            return self._weights(positions(at_least_float32(maps)))

    def _weights(self, places: Tensor) -> Tensor:
        weights = self.attention(places).squeeze(2)
        if self.kind == "softmax":
            return weights.softmax(1)
        return weights / places.shape[1] if self.kind == "mean" else weights

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            places = positions(at_least_float32(maps))
            weights = self._weights(places)
            # Pooled before W_v is applied: one product with a vector instead of one per position.
            pooled = (weights[:, None] @ places).squeeze(1)
            out = F.linear(pooled, self.value.weight)
            if self.value.bias is not None:
                out = out + weights.sum(1, keepdim=True) * self.value.bias
            return out


class Pool(nn.Module):
    """The wanted ones of the vectors a1, a2, i and m, each before (`a1`) and after (`a1_bn`) batch
    normalisation. [B, C, H, W] of its map -> [B, C]."""

    def __init__(self, config: PoolSettings, context: Context):
        super().__init__()
        self.wanted = context.wanted
        self.sources = {
            name: source
            for name, source in config.sources().items()
            if {name, f"{name}_bn"} & self.wanted
        }
        self.pools = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        for name, source in self.sources.items():
            channels = context.map(source)[0]
            self.pools[name] = _pooling(name, channels, config)
            if f"{name}_bn" in self.wanted:
                self.norms[name] = nn.BatchNorm1d(channels)
                self.norms[name].bias.requires_grad_(config.shift)

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        out = {}
        for name, source in self.sources.items():
            pooled = self.pools[name](features[source])
            if name in self.wanted:
                out[name] = pooled
            if name in self.norms:
                out[f"{name}_bn"] = self.norms[name](pooled)
        return out

    def explain(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Heat]:
        """Where the positions' weights in i are large."""
        if "i" not in self.sources:
            return {}
        maps = features[self.sources["i"]]
        pool = self.pools["i"]
        assert isinstance(pool, AttentionPool)
        weights = pool.weights(maps).reshape(len(maps), *maps.shape[2:])
        return {"i": Heat(weights.detach().cpu().numpy(), meaning="attention")}


def _pooling(name: str, channels: int, config: PoolSettings) -> nn.Module:
    if name == "i":
        return AttentionPool(channels, config.attention, config.bias)
    if name == "m":
        context = GlobalContext(channels, config.gc_ratio, config.gc_fusion, config.gc_pool)
        return nn.Sequential(context, Maximum())
    return Maximum()


def build_pool(config: PoolSettings, context: Context) -> Pool:
    return Pool(config, context)
