"""The contrastive loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from reidcore.modules import Batch, Context, Loss
from torch import Tensor

from reid_PLUGIN.settings_contrastive import Contrastive as Settings


class Contrastive(Loss):
    """Over all pairs of a batch with Euclidean distance d of unit vectors: the mean of d^2 / 2 of
    equal identities plus that of max(0, margin - d)^2 / 2 of different ones (Hadsell et al. 2006,
    equation 4). The term `close` is the share of different ones within the margin."""

    def __init__(self, config: Settings):
        super().__init__()
        self.feature = config.feature
        self.margin = config.margin

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        vectors = F.normalize(features[self.feature], dim=1)
        # The root of 0 has no gradient.
        distances = (2 - 2 * vectors @ vectors.T).clamp(min=1e-12).sqrt()
        same = batch.pid[:, None] == batch.pid
        itself = torch.eye(len(batch), dtype=torch.bool, device=same.device)
        equal, other = distances[same & ~itself], distances[~same]
        short = (self.margin - other).clamp(min=0)
        loss = _mean(equal.square()) / 2 + _mean(short.square()) / 2
        return loss, {"close": _mean((short > 0).to(loss))}


def _mean(values: Tensor) -> Tensor:
    """The mean, 0 of nothing."""
    return values.sum() / max(1, len(values))


def build(config: Settings, context: Context) -> Contrastive:
    return Contrastive(config)
