"""Heads of the core: pooling, and the batch-norm neck."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from reidcore.builtin.settings.heads import BNNeck as BNNeckSettings
from reidcore.builtin.settings.heads import Pool as PoolSettings
from reidcore.contracts.parts import Context
from reidcore.contracts.pictures import Images
from reidcore.contracts.precision import at_least_float32


def average(maps: Tensor) -> Tensor:
    """Return the means over the positions, [B, C, H, W] -> [B, C]."""
    return maps.mean((2, 3))


def maximum(maps: Tensor) -> Tensor:
    """Return the maxima over the positions, [B, C, H, W] -> [B, C]."""
    return maps.amax((2, 3))


class GeneralizedMean(nn.Module):
    """Generalised mean over the positions, (mean of x^p)^(1/p), with one learnt p (Radenovic et al.
    2018). p starts at 3; values below 1e-6 count as 1e-6. [B, C, H, W] -> [B, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(3.0))

    def forward(self, maps: Tensor) -> Tensor:
        # Powers of half precision values overflow.
        with torch.autocast(maps.device.type, enabled=False):
            powers = at_least_float32(maps).clamp(min=1e-6).pow(self.p)
            return powers.mean((2, 3)).pow(1 / self.p)


def _pooling(kind: str) -> Callable[[Tensor], Tensor]:
    """Return the pooling of this name: "average", "max" or "gem"."""
    if kind == "gem":
        return GeneralizedMean()
    return {"average": average, "max": maximum}[kind]


class Pool(nn.Module):
    """Head that pools a map over its positions into `vector`."""

    def __init__(self, config: PoolSettings):
        super().__init__()
        self.source = config.source
        self.pool = _pooling(config.kind)

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        return {"vector": self.pool(features[self.source])}


class BNNeck(nn.Module):
    """Batch-norm neck: a vector before (`pooled`) and after (`bn`) batch norm (Luo et al. 2019)."""

    def __init__(self, config: BNNeckSettings, context: Context):
        super().__init__()
        self.source = config.source
        self.wanted = context.wanted
        feature = context.feature(config.source)
        self.pool = _pooling(config.pool) if feature.kind == "map" else None
        if "bn" in self.wanted:
            self.norm = nn.BatchNorm1d(feature.shape[0])
            self.norm.bias.requires_grad_(config.shift)

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        source = features[self.source]
        pooled = source if self.pool is None else self.pool(source)
        out = {}
        if "pooled" in self.wanted:
            out["pooled"] = pooled
        if "bn" in self.wanted:
            out["bn"] = self.norm(pooled)
        return out


def build_pool(config: PoolSettings, context: Context) -> Pool:
    return Pool(config)


def build_bnneck(config: BNNeckSettings, context: Context) -> BNNeck:
    return BNNeck(config, context)
