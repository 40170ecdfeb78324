"""The paper's comparison: self-attention and co-attention in place of the dynamic layers. The paper
names them only; the definitions are this plugin's (see its README)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from reid_ipad.branches import Compressing
from reid_ipad.settings_heads import SelfAttention as SelfAttentionSettings
from reid_ipad.settings_matchers import CoAttention as CoAttentionSettings
from reidcore.modules import Context, Images, Matcher, Template, at_least_float32


class SelfAttention(Compressing):
    """A compressed map and what its locations gather from each other: `map` = F + g(F) weighed by
    softmax(theta(F) . phi(F) / sqrt(k)), [B, C, H, W], and its mean `vector` [B, C]."""

    def __init__(self, config: SelfAttentionSettings, context: Context):
        super().__init__(config, context)
        channels = config.channels
        keys = config.keys or max(1, channels // 2)
        self.wanted = context.wanted
        self.theta = nn.Conv2d(channels, keys, 1, bias=False)
        self.phi = nn.Conv2d(channels, keys, 1, bias=False)
        self.g = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        compressed = self.compression(features[self.source])
        queries, keys, values = (
            layer(compressed).flatten(2) for layer in (self.theta, self.phi, self.g)
        )
        affinity = queries.transpose(1, 2) @ keys / keys.shape[1] ** 0.5
        gathered = values @ affinity.softmax(2).transpose(1, 2)
        maps = compressed + gathered.unflatten(2, compressed.shape[2:])
        out = {"map": maps, "vector": maps.mean((2, 3))}
        return {name: value for name, value in out.items() if name in self.wanted}


class CoAttention(Matcher):
    """Distance of two pictures' maps [C, H, W], each pooled over its locations by weights that the
    other gives: |f_{j|i} - f_{i|j}|. Views stand below each other, so that the locations of all of
    them are weighed together."""

    def __init__(self, config: CoAttentionSettings, context: Context):
        super().__init__()
        self.feature = config.feature
        self.dense = config.form == "dense"
        channels, self.height, _ = context.map(config.feature)
        self.views = len(context.views)
        keys = config.keys or max(1, channels // 2)
        self.theta = nn.Linear(channels, keys, bias=False)
        self.phi = nn.Linear(channels, keys, bias=False)

    def template(self, features: Mapping[str, Tensor]) -> Template:
        return {"map": at_least_float32(features[self.feature])}

    def merge(self, views: Sequence[Template]) -> Template:
        # Pictures whose views stand below each other already, as in query expansion, are averaged.
        if self.views == 1 or views[0]["map"].shape[2] != self.height:
            return super().merge(views)
        return {"map": torch.cat([view["map"] for view in views], 2)}

    def attended(self, a: Template, b: Template) -> tuple[Tensor, Tensor]:
        """[A, B, C] twice: the gallery pictures as the queries look at them, and the queries as the
        gallery pictures do."""
        x, y = (side["map"].flatten(2).transpose(1, 2) for side in (a, b))
        scale = self.phi.out_features**-0.5
        if self.dense:
            affinity = torch.einsum("apk,bqk->abpq", self.theta(x), self.phi(y)) * scale
            in_b, in_a = affinity.softmax(3).mean(2), affinity.softmax(2).mean(3)
        else:
            in_b = torch.einsum("ak,bqk->abq", self.theta(x.mean(1)), self.phi(y)) * scale
            in_a = torch.einsum("bk,apk->abp", self.theta(y.mean(1)), self.phi(x)) * scale
            in_b, in_a = in_b.softmax(2), in_a.softmax(2)
        return (
            torch.einsum("abq,bqc->abc", in_b, y),
            torch.einsum("abp,apc->abc", in_a, x),
        )

    def distance(self, a: Template, b: Template) -> Tensor:
        with torch.autocast(a["map"].device.type, enabled=False):
            of_b, of_a = self.attended(a, b)
            return torch.linalg.vector_norm(of_b - of_a, dim=2)


def build_self_attention(config: SelfAttentionSettings, context: Context) -> SelfAttention:
    return SelfAttention(config, context)


def build_co_attention(config: CoAttentionSettings, context: Context) -> CoAttention:
    return CoAttention(config, context)
