"""A loss of pytorch-metric-learning as a loss of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from pytorch_metric_learning.losses import BaseMetricLossFunction
from torch import Tensor

from reid_metric_learning.classes import RUN_GIVES, make
from reid_metric_learning.settings import MetricLossSettings
from reidcore.modules import Batch, Context, Loss


class MetricLoss(Loss):
    """One of the library's losses of a vector feature [B, D] and the identities, float32 also in
    mixed precision.

    identities, length: number of classes and length of the vector, for losses that own a weight for
    each identity, such as proxies; the optimizer of the run trains it. Logs `mined`, the number of
    pairs or triplets that a miner picks, and for losses with similarities to classes `accuracy`,
    the share of rows whose own class is the most similar.
    """

    def __init__(self, config: MetricLossSettings, identities: int, length: int):
        super().__init__()
        self.feature = config.feature
        sizes = dict(zip(RUN_GIVES, (identities, length, length), strict=True))
        self.function: BaseMetricLossFunction = make("loss", config.loss, config.arguments, sizes)
        self.miner = None
        if config.miner:
            self.miner = make("miner", config.miner, config.miner_arguments, sizes)

    def mined(self, x: Tensor, pid: Tensor) -> tuple[Tensor, ...] | None:
        """Rows of anchors, positives and negatives of triplets, or of anchors and positives and of
        anchors and negatives of pairs; None for all."""
        if self.miner is None:
            return None
        # Miners note what they found as attributes, and nothing of a forward pass may stay.
        return copy.copy(self.miner)(x.detach(), pid)

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        x = features[self.feature]
        with torch.autocast(x.device.type, enabled=False):
            mined = self.mined(x, batch.pid)
            value = self.function(x, batch.pid, mined)
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise ValueError("it is not reduced to one number")
            return value.reshape(()), self._terms(x, batch.pid, mined)

    @torch.no_grad()
    def _terms(self, x: Tensor, pid: Tensor, mined: tuple[Tensor, ...] | None) -> dict[str, Tensor]:
        terms = {}
        if mined is not None:
            anchors = mined[:1] if len(mined) == 3 else mined[::2]
            terms["mined"] = torch.tensor(float(sum(map(len, anchors))))
        # Without the second condition some losses' "logits" are distances.
        if hasattr(self.function, "get_logits") and self.function.distance.is_inverted:
            own = self.function.get_logits(x).argmax(1) == pid
            terms["accuracy"] = own.float().mean()
        return terms


def build_loss(config: MetricLossSettings, context: Context) -> MetricLoss:
    return MetricLoss(config, context.identities, context.vector(config.feature))
