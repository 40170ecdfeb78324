"""Global context blocks (Cao et al. 2019)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn


def positions(maps: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H * W, C], row by row; a view in either memory format."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def _transform(channels: int, inner: int) -> nn.Sequential:
    squeeze, excite = nn.Linear(channels, inner), nn.Linear(inner, channels)
    # A block starts as the identity (half of it with mul), so that pretrained weights still fit.
    nn.init.zeros_(excite.weight)
    nn.init.zeros_(excite.bias)
    return nn.Sequential(
        OrderedDict(squeeze=squeeze, norm=nn.LayerNorm(inner), relu=nn.ReLU(), excite=excite)
    )


class GlobalContext(nn.Module):
    """Changes every position of a map by the same function of its context, the mean over positions
    weighed by attention (Cao et al. 2019, GCNet, fig. 4d).

    [B, C, H, W] -> [B, C, H, W]. The context [B, C] passes linear, layer norm, ReLU and linear,
    with C * ratio channels inside, rounded down, at least one. fusion: x + t, x * sigmoid(t), or
    with transforms of their own first the product, then the sum. pool: attention, a softmax over
    the positions of one linear map of the channels, or average.
    """

    def __init__(
        self,
        channels: int,
        ratio: float = 1 / 16,
        fusion: Literal["add", "mul", "both"] = "add",
        pool: Literal["attention", "average"] = "attention",
    ):
        super().__init__()
        inner = max(1, int(channels * ratio))
        self.mask = None
        if pool == "attention":
            self.mask = nn.Linear(channels, 1)
            nn.init.kaiming_normal_(self.mask.weight, nonlinearity="relu")
            nn.init.zeros_(self.mask.bias)
        self.mul = _transform(channels, inner) if fusion in ("mul", "both") else None
        self.add = _transform(channels, inner) if fusion in ("add", "both") else None

    def weights(self, places: Tensor) -> Tensor:
        """[B, P, C] -> [B, P]: what every position weighs in the context, in all 1."""
        if self.mask is None:
            return torch.full_like(places[..., 0], 1 / places.shape[1])
        return self.mask(places).squeeze(2).softmax(1)

    def context(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C]."""
        places = positions(maps)
        return (self.weights(places).to(places.dtype)[:, None] @ places).squeeze(1)

    def forward(self, maps: Tensor) -> Tensor:
        context = self.context(maps)
        if self.mul is not None:
            maps = maps * self.mul(context).sigmoid()[:, :, None, None]
        if self.add is not None:
            maps = maps + self.add(context)[:, :, None, None]
        return maps
