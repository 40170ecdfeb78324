"""Class memories: contrastive losses against one running mean for every identity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_msinet.settings_losses import Memory
from reidcore.modules import Batch, Context, Extract, Loss


class ClassMemory(nn.Module):
    """One entry [length] for each of `classes` (Gu et al. 2023, section 3.1; the training and the
    validation memory are two of them).

    normalize: "both" scales vectors and entries to unit length, "features" vectors alone, "none"
    neither.
    """

    memory: Tensor

    def __init__(
        self,
        classes: int,
        length: int,
        temperature: float = 0.05,
        momentum: float = 0.2,
        normalize: str = "both",
    ):
        super().__init__()
        self.temperature = temperature
        self.momentum = momentum
        self.normalize = normalize
        self.register_buffer("memory", torch.zeros(classes, length))

    def scaled(self, x: Tensor) -> Tensor:
        """Vectors [B, length] as they meet the memory."""
        return x if self.normalize == "none" else F.normalize(x, dim=1)

    def logits(self, x: Tensor) -> Tensor:
        """[B, length] -> [B, classes]. The memory has no gradient."""
        return self.scaled(x) @ self.memory.T / self.temperature

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of x [B, length] (eq. 2)."""
        return F.cross_entropy(self.logits(x), labels)

    @torch.no_grad()
    def update(self, x: Tensor, labels: Tensor) -> None:
        """Moves each row's entry towards it, one row after another in the order of the batch
        (eq. 3): c - (1 - momentum)(c - x), then to unit length if entries have it."""
        x = self.scaled(x.detach().to(self.memory.dtype))
        same = labels[:, None] == labels
        turn = same.tril(-1).sum(1)
        # Rows of different identities do not meet, so the first of each move at once, and so on.
        # Their numbers are asked for once: the host waits for a GPU each time.
        counts = (turn[:, None] == torch.arange(len(turn), device=turn.device)).sum(0).tolist()
        for rows in turn.argsort(stable=True).split(counts):
            if not len(rows):
                return
            moved = self.momentum * self.memory[labels[rows]] + (1 - self.momentum) * x[rows]
            self.memory[labels[rows]] = self._entry(moved)

    def _entry(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) if self.normalize == "both" else x

    @torch.no_grad()
    def start_from(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Sets the entries to the centroids of (vectors, labels)."""
        sums = torch.zeros_like(self.memory)
        counts = self.memory.new_zeros(len(sums))
        for x, labels in batches:
            of = F.one_hot(labels, len(sums)).T.to(sums)
            sums += of @ self.scaled(x.to(sums))
            counts += of.sum(1)
        self.memory.copy_(self._entry(sums / counts.clamp(min=1)[:, None]))


class MemoryLoss(Loss):
    """Cross-entropy of every row against one memory of all training identities, which follows the
    batches. Logs `accuracy`, the share of rows whose identity scores highest."""

    def __init__(self, config: Memory, context: Context):
        super().__init__()
        self.feature = config.feature
        self.start = config.memory_init
        self.classes = ClassMemory(
            context.identities,
            context.vector(config.feature),
            config.temperature,
            config.momentum,
            config.normalize,
        )

    def identity_scores(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The logits."""
        return {self.feature: self.classes.logits(features[self.feature])}

    def before_training(self, extract: Extract) -> None:
        if self.start == "centroid":
            self.classes.start_from(
                (features[self.feature], batch.pid) for features, batch in extract()
            )

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        logits = self.identity_scores(features)[self.feature]
        accuracy = (logits.argmax(1) == batch.pid).float().mean()
        return F.cross_entropy(logits, batch.pid), {"accuracy": accuracy}

    def after_step(self, features: Mapping[str, Tensor], batch: Batch) -> None:
        self.classes.update(features[self.feature], batch.pid)


def build_memory(config: Memory, context: Context) -> MemoryLoss:
    return MemoryLoss(config, context)
