"""Spatial alignment: pictures of one identity are to respond alike wherever they are compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reid_msinet.settings_losses import Sam
from reidcore.api import Heat
from reidcore.modules import Batch, Context, Images, Loss


def strongest(one: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """For every position of each of `others` [B, C, M] the largest inner product with a position of
    `one` [C, M], and the other way round: both [B, M]."""
    products = one.T @ others
    return products.amax(1), products.amax(2)


def activations(maps: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, B, M]: entry (g, p) has for each position of p the largest inner product
    with a position of g (Gu et al. 2023, eq. 7; M = H * W, row by row).

    Each pair is multiplied once, for both of its entries. One picture is compared at a time, in the
    backward pass once more, so that the B² M² inner products are never there together.
    """
    flat = maps.flatten(2)
    pairs = [
        checkpoint(strongest, one, flat[g:], use_reentrant=False) for g, one in enumerate(flat)
    ]
    rows = [
        torch.cat([*(pairs[p][1][g - p : g - p + 1] for p in range(g)), pairs[g][0]])
        for g in range(len(flat))
    ]
    return torch.stack(rows)


class PositionAttention(nn.Module):
    """The largest key q(n)·k(m) of every position n of a picture (section 3.3). [B, C, H, W] ->
    [B, M]."""

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 8
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        for convolution in (self.query, self.key):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)

    def forward(self, maps: Tensor) -> Tensor:
        query, key = self.query(maps).flatten(2), self.key(maps).flatten(2)
        return (query.transpose(1, 2) @ key).amax(2)


def unlikeness(vectors: Tensor, mask: Tensor, exclude_self: bool, by_pictures: bool) -> Tensor:
    """1 - cosine of all ordered pairs of an anchor's vectors, the mean over anchors.

    vectors: [B, B, M] of unit length, by anchor and picture. mask: [B, B], which pictures of each
    anchor take part. exclude_self: without pairs of a picture with itself. by_pictures: each
    anchor's sum over pairs is divided by its number of pictures instead of pairs.
    """
    mask = mask.to(vectors.dtype)
    number = mask.sum(1)
    # The cosines of all pairs add up to |sum|²; those of a picture with itself are 1.
    total = number.square() - (mask[:, :, None] * vectors).sum(1).square().sum(1)
    pairs = number * (number - 1) if exclude_self else number.square()
    return (total / (number if by_pictures else pairs).clamp(min=1)).mean()


class SpatialAlignment(Loss):
    """Distances 1 - cosine between activation vectors of a batch (section 3.3, eq. 8).

    An anchor's vectors of its positives are aligned with its self activation, or with each other
    where there is none, those of its negatives with each other; with unified pairs all of them with
    each other. Logs `pos` and `neg`.
    """

    def __init__(self, config: Sam, context: Context):
        super().__init__()
        self.source = config.source
        self.config = config
        needed = config.activation == "pam" and config.mode != "neg"
        if needed and config.pairs == "separated":
            self.attention = PositionAttention(context.map(config.source)[0])

    def grouped(self, maps: Tensor) -> Tensor:
        """Activation vectors [B, B, M] by anchor."""
        made = activations(maps)
        return made if self.config.orientation == "partner" else made.transpose(0, 1)

    def self_activation(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, M]."""
        if self.config.activation == "pam":
            return self.attention(maps)
        flat = maps.flatten(2)
        return (flat.transpose(1, 2) @ flat).amax(1)

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        maps, config = features[self.source], self.config
        with torch.autocast(maps.device.type, enabled=False):
            vectors = F.normalize(self.grouped(maps), dim=2)
            same = batch.pid[:, None] == batch.pid
            if config.pairs == "unified":
                every = torch.ones_like(same)
                return self._among(vectors, every), {}
            terms = {}
            if config.mode != "neg":
                terms["pos"] = self._positive(vectors, maps, same)
            if config.mode != "pos":
                terms["neg"] = self._among(vectors, ~same)
        return torch.stack(list(terms.values())).sum(), terms

    def explain(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Heat]:
        """`self_activation`, to which a picture's responses to its positives are aligned."""
        maps, activation = features[self.source], self.config.activation
        if activation == "none" or (activation == "pam" and not hasattr(self, "attention")):
            return {}
        own = self.self_activation(maps).reshape(len(maps), *maps.shape[2:])
        return {"self_activation": Heat(own.detach().cpu().numpy())}

    def _among(self, vectors: Tensor, mask: Tensor) -> Tensor:
        config = self.config
        return unlikeness(vectors, mask, config.exclude_self, config.negatives == "pictures")

    def _positive(self, vectors: Tensor, maps: Tensor, same: Tensor) -> Tensor:
        exclude_self = self.config.exclude_self
        if exclude_self:
            same = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        if self.config.activation == "none":
            return unlikeness(vectors, same, exclude_self, by_pictures=False)
        own, weights = F.normalize(self.self_activation(maps)), same.to(vectors.dtype)
        apart = 1 - (vectors * own[:, None]).sum(2)
        return ((apart * weights).sum(1) / weights.sum(1).clamp(min=1)).mean()


def build_sam(config: Sam, context: Context) -> SpatialAlignment:
    return SpatialAlignment(config, context)
