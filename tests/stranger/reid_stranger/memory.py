"""The loss: a memory of class maps that trains a matcher through its logits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_stranger import plugin
from reidcore.modules import Batch, Context, Extract, Loss, Unowned


class Memory(Loss):
    """Class maps start as the centroids of the training pictures and follow the batches."""

    centroids: Tensor
    trust: Tensor
    steps: Tensor

    def __init__(self, config: plugin.Memory, context: Context):
        super().__init__()
        self.feature = config.feature
        self.balance = config.balance
        self.momentum = config.momentum
        self.matcher = Unowned(context.matchers[config.matcher])
        shape = context.map(config.feature)
        self.register_buffer("centroids", torch.zeros(context.identities, *shape))
        self.register_buffer("trust", torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def before_training(self, extract: Extract) -> None:
        sums = torch.zeros_like(self.centroids)
        for features, batch in extract():
            sums.index_add_(0, batch.pid, features[self.feature])
        self.centroids.copy_(F.normalize(sums, dim=1))

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        matcher = self.matcher()
        classes = matcher.template({self.feature: self.centroids.clone()})
        logits = matcher.logits(matcher.template(features), classes)
        target = F.one_hot(batch.pid, len(self.centroids)).to(logits)
        loss = F.binary_cross_entropy_with_logits(logits, target)
        return self.trust * loss, {"raw": loss}

    def after_step(self, features: Mapping[str, Tensor], batch: Batch) -> None:
        last = {int(pid): row for row, pid in enumerate(batch.pid)}
        pids = torch.tensor(list(last), device=self.centroids.device)
        new = features[self.feature][list(last.values())]
        old = self.centroids[pids]
        mixed = self.momentum * old + (1 - self.momentum) * new
        self.centroids[pids] = F.normalize(mixed, dim=1)
        self.steps += 1

    def after_epoch(self, means: Mapping[str, float]) -> None:
        self.trust.fill_(1 / (1 + means[self.balance]))


def build(config: plugin.Memory, context: Context) -> Memory:
    return Memory(config, context)
