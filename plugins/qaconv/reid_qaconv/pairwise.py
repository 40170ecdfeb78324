"""Losses on a matcher's logits between all pairs of a batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_qaconv.settings_losses import Pairwise as PairwiseSettings
from reid_qaconv.settings_losses import Triplet as TripletSettings
from reidcore.modules import Batch, Context, Loss, Unowned, at_least_float32


def hardest(logits: Tensor, pid: Tensor) -> tuple[Tensor, Tensor]:
    """Every row's lowest logit with another row of its identity, infinite if there is none, and its
    highest with a row of another identity, minus infinite if there is none.

    logits: [B, B]; row i is the anchor. pid: [B].
    """
    same = pid[:, None] == pid
    itself = torch.eye(len(pid), dtype=torch.bool, device=pid.device)
    positive = logits.masked_fill(~same | itself, torch.inf).amin(1)
    negative = logits.masked_fill(same, -torch.inf).amax(1)
    return positive, negative


class BatchPairs(Loss):
    """Base of losses that train a matcher through its logits [B, B] within the batch, the mean over
    all rows as anchors. Logs `accuracy`, the share of anchors whose positives all have higher
    logits than all negatives."""

    def __init__(self, config: PairwiseSettings | TripletSettings, context: Context):
        super().__init__()
        self.matcher = Unowned(context.matchers[config.matcher])

    def logits(self, features: Mapping[str, Tensor]) -> Tensor:
        """[B, B] within the batch; row i is on the query side."""
        matcher = self.matcher()
        template = matcher.template(features)
        logits: Tensor = matcher.logits(template, template)
        return at_least_float32(logits)

    def losses(self, logits: Tensor, pid: Tensor) -> Tensor:
        """Each anchor's loss [B]."""
        raise NotImplementedError

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = self.logits(features)
        positive, negative = hardest(logits.detach(), batch.pid)
        accuracy = (positive > negative).float().mean()
        return self.losses(logits, batch.pid).mean(), {"accuracy": accuracy}


class Pairwise(BatchPairs):
    """Binary cross-entropy of every pair of the batch, each row with itself included, summed over
    an anchor's pairs (version 2.0 of the authors' code)."""

    def losses(self, logits: Tensor, pid: Tensor) -> Tensor:
        same = (pid[:, None] == pid).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, same, reduction="none").sum(1)


class Triplet(BatchPairs):
    """max(0, margin - lowest positive logit + highest negative logit); a row is no positive of
    itself (Liao and Shao 2022)."""

    def __init__(self, config: TripletSettings, context: Context):
        super().__init__(config, context)
        self.margin = config.margin

    def losses(self, logits: Tensor, pid: Tensor) -> Tensor:
        positive, negative = hardest(logits, pid)
        return F.relu(self.margin - positive + negative)


def build_pairwise(config: PairwiseSettings, context: Context) -> Pairwise:
    return Pairwise(config, context)


def build_triplet(config: TripletSettings, context: Context) -> Triplet:
    return Triplet(config, context)
