"""Class memories: losses of a batch against the last map or vector of every identity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_qaconv.local import unit_locations
from reid_qaconv.settings_losses import Memory as MemorySettings
from reid_qaconv.settings_losses import Vectors as VectorsSettings
from reidcore.errors import UsageError
from reidcore.modules import Batch, Context, Loss, Unowned, at_least_float32


def focal(logits: Tensor, same: Tensor) -> Tensor:
    """-(1 - p)^2 log p of every pair, p the probability of what is true: eq. 1 without its sums.

    logits: of any shape. same: bool of that shape, whether the pair is of one identity. The
    gradient flows through both factors.
    """
    logits = at_least_float32(logits)
    logits = torch.where(same, logits, -logits)
    return -torch.sigmoid(-logits).square() * F.logsigmoid(logits)


class ClassMemory(Loss):
    """Focal binary cross-entropy of every row against every identity's memory, summed over
    identities, the mean over rows (Liao and Shao 2020, eq. 1).

    The memory starts at zero and has no gradient. After each step it holds the batch's features;
    of several rows of one identity it takes the last. Logs `accuracy`, the share of rows whose
    identity has the highest logit.

    While most of the memory is zero, a row's own identity is less alike than others are. A matcher
    that starts with "what is alike is the same" unlearns it in ten steps, and needs epochs to learn
    it again, unless `unseen` is "left_out".
    """

    memory: Tensor
    seen: Tensor

    def __init__(self, config: MemorySettings | VectorsSettings, context: Context):
        super().__init__()
        self.feature = config.feature
        self.unseen = config.unseen
        shape = context.feature(config.feature).shape
        self.register_buffer("memory", torch.zeros(context.identities, *shape))
        self.register_buffer("seen", torch.zeros(context.identities, dtype=torch.bool))

    def logits(self, features: Mapping[str, Tensor], memory: Tensor) -> Tensor:
        """Each row against each of some memories: [B, M], larger means same identity."""
        raise NotImplementedError

    def losses(self, logits: Tensor, same: Tensor, seen: Tensor) -> Tensor:
        """Each row's loss [B]. logits, same: [B, M], same: whether it is the row's identity. seen:
        [M], whether the memory holds it."""
        pairs = focal(logits, same)
        if self.unseen == "masked":
            pairs = pairs * seen
        return pairs.sum(1)

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        identities = torch.arange(len(self.memory), device=batch.pid.device)
        memory, seen = self.memory, self.seen
        if self.unseen == "left_out":
            identities, memory, seen = identities[seen], memory[seen], seen[seen]
            if not len(identities):
                zero = features[self.feature].sum() * 0
                return zero, {"accuracy": zero.detach()}
        logits = self.logits(features, memory)
        accuracy = (identities[logits.argmax(1)] == batch.pid).float().mean()
        losses = self.losses(logits, batch.pid[:, None] == identities, seen)
        return losses.mean(), {"accuracy": accuracy}

    def after_step(self, features: Mapping[str, Tensor], batch: Batch) -> None:
        rows = torch.arange(len(batch), device=batch.pid.device)
        last = torch.where(batch.pid[:, None] == batch.pid, rows, -1).amax(1)
        # All rows of an identity write the same, because on a GPU the order of writing is open.
        self.memory[batch.pid] = self.kept(features[self.feature][last], batch.pid)
        self.seen[batch.pid] = True

    def kept(self, features: Tensor, pid: Tensor) -> Tensor:
        """What the memory holds of identities `pid` from now on, as new `features` are there."""
        return features


class MapMemory(ClassMemory):
    """A class memory of maps, compared by a matcher that the loss trains. The batch is the query
    side, the memory the gallery side, and both norms of the matcher see all pairs at once. With a
    `momentum` m a map that is there is replaced by m times itself and 1 - m times the new one, of
    length 1 at every location again."""

    def __init__(self, config: MemorySettings, context: Context):
        super().__init__(config, context)
        self.momentum = config.momentum
        self.matcher = Unowned(context.matchers[config.matcher])
        try:
            self.matcher().template({self.feature: self.memory[:1]})
        except KeyError as error:
            raise UsageError(
                f"loss {context.name!r} (qaconv.memory): feature is {self.feature!r}, but the "
                f"matcher {config.matcher!r} reads {error.args[0]!r}; name one map in both"
            ) from None

    def logits(self, features: Mapping[str, Tensor], memory: Tensor) -> Tensor:
        matcher = self.matcher()
        remembered = matcher.template({self.feature: memory})
        return matcher.logits(matcher.template(features), remembered)

    def kept(self, features: Tensor, pid: Tensor) -> Tensor:
        if not self.momentum:
            return features
        mean = self.momentum * self.memory[pid] + (1 - self.momentum) * features
        return torch.where(self.seen[pid, None, None, None], unit_locations(mean), features)


class VectorMemory(ClassMemory):
    """A class memory of vectors, compared by the cosine, which a batch norm of one channel makes a
    logit (the global features of table 1)."""

    def __init__(self, config: VectorsSettings, context: Context):
        super().__init__(config, context)
        self.norm = nn.BatchNorm1d(1)

    def logits(self, features: Mapping[str, Tensor], memory: Tensor) -> Tensor:
        x = features[self.feature]
        with torch.autocast(x.device.type, enabled=False):
            cosine = F.normalize(x, dim=1) @ F.normalize(memory, dim=1).T
        return self.norm(cosine.reshape(-1, 1)).view_as(cosine)


def build_memory(config: MemorySettings, context: Context) -> MapMemory:
    return MapMemory(config, context)


def build_vectors(config: VectorsSettings, context: Context) -> VectorMemory:
    return VectorMemory(config, context)
