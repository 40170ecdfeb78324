"""Softmax, triplet and center loss of the core; `margin_losses` has those with a margin."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidcore.builtin.distances import cosine_similarity, euclidean
from reidcore.builtin.settings.losses import Center as CenterSettings
from reidcore.builtin.settings.losses import Softmax as SoftmaxSettings
from reidcore.builtin.settings.losses import Triplet as TripletSettings
from reidcore.contracts.parts import Context, Loss, Unowned
from reidcore.contracts.pictures import Batch
from reidcore.contracts.precision import at_least_float32


class Softmax(Loss):
    """Cross-entropy of a linear classifier over the training identities, summed over features.

    With smoothing eps the target is (1 - eps) onehot + eps / identities (Szegedy et al. 2016).
    It logs `accuracy`, the share of pictures whose identity has the largest logit, averaged over
    features.
    """

    def __init__(self, config: SoftmaxSettings, context: Context):
        super().__init__()
        self.features = config.features
        self.smoothing = config.smoothing
        length = context.vector(config.features[0])
        self.classifier = nn.Linear(length, context.identities, bias=config.bias)
        # Small weights as in Luo et al. 2019: the first logits say almost nothing.
        nn.init.normal_(self.classifier.weight, std=0.001)
        if config.bias:
            nn.init.zeros_(self.classifier.bias)

    def identity_scores(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits of every feature."""
        return {name: self.classifier(features[name]) for name in self.features}

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        losses, right = [], []
        for logits in self.identity_scores(features).values():
            losses.append(F.cross_entropy(logits, batch.pid, label_smoothing=self.smoothing))
            right.append((logits.argmax(1) == batch.pid).float().mean())
        return torch.stack(losses).sum(), {"accuracy": torch.stack(right).mean()}


def batch_hard(distances: Tensor, pid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distances to every anchor's hardest positive and negative (Hermans et al. 2017).

    The positives of an anchor are all pictures of its identity, itself included; the hardest is the
    farthest. The hardest negative is the closest picture of another identity. Equal distances share
    the gradient, so that the order of duplicates in a batch does not matter.

    Args:
        distances: [B, B]; row i is the anchor.
        pid: int64 [B], the identities.

    Returns:
        [B] and [B]; the distance to a negative is infinite where there is none.
    """
    same = pid[:, None] == pid
    positive = distances.masked_fill(~same, -torch.inf).amax(1)
    negative = distances.masked_fill(same, torch.inf).amin(1)
    return positive, negative


def weighted(distances: Tensor, pid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted means of every anchor's distances to positives and to negatives.

    Positives, the anchor included, weigh exp(d) and negatives exp(-d), divided by their sum. The
    gradient flows through the weights (Ye et al. 2022, Deep Learning for Person Re-identification,
    section 4.1, and its program).

    Args:
        distances: [B, B]; row i is the anchor.
        pid: int64 [B], the identities.

    Returns:
        [B] and [B]; the mean over negatives is infinite where there is none.
    """
    same = pid[:, None] == pid

    def average(signed: Tensor, mask: Tensor) -> Tensor:
        # The program shifts by the row's maximum with zeros for what is masked, and adds 1e-6.
        shift = signed.masked_fill(~mask, 0).amax(1, keepdim=True)
        weights = (signed - shift).exp().masked_fill(~mask, 0)
        weights = weights / (weights.sum(1, keepdim=True) + 1e-6)
        return (distances * weights).sum(1)

    negative = average(-distances, ~same).masked_fill(same.all(1), torch.inf)
    return average(distances, same), negative


class Triplet(Loss):
    """Triplet loss with batch-hard (Hermans et al. 2017) or weighted positives and negatives.

    It is the mean over all anchors of max(0, positive - negative + margin), or with a soft margin
    of log(1 + exp(positive - negative)). It logs `hard`, the share of anchors whose positive is not
    closer by the margin (by 0 if soft).
    """

    def __init__(self, config: TripletSettings, context: Context):
        super().__init__()
        self.feature = config.feature
        self.metric = config.metric
        self.soft = config.soft
        self.mined = weighted if config.mining == "weighted" else batch_hard
        self.margin = 0.0 if config.soft else config.margin
        # The loss trains the matcher, but the model owns it.
        self.matcher = None
        if config.matcher is not None:
            self.matcher = Unowned(context.matchers[config.matcher])

    def distances(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the distances [B, B] within the batch."""
        if self.matcher is not None:
            matcher = self.matcher()
            templates = matcher.template(features)
            return matcher.distance(templates, templates)
        assert self.feature is not None
        x = features[self.feature]
        if self.metric == "cosine":
            return 1 - cosine_similarity(x, x)
        if self.metric == "unit":
            x = F.normalize(at_least_float32(x), dim=1)
        return euclidean(x, x)

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        positive, negative = self.mined(self.distances(features), batch.pid)
        excess = positive - negative + self.margin
        losses = F.softplus(excess) if self.soft else F.relu(excess)
        return losses.mean(), {"hard": (excess.detach() > 0).float().mean()}


class Center(Loss):
    """Center loss: half the squared distance of a vector from its identity's center, the mean over
    the batch (Wen et al. 2016, eq. 2, which has the sum, there as in its softmax loss).

    Centers start at zero and have no gradient. After each step they follow the batch (eq. 4):
    c - alpha * sum(c - x) / (1 + n) over the n vectors x of the identity.
    """

    centers: Tensor

    def __init__(self, config: CenterSettings, context: Context):
        super().__init__()
        self.feature = config.feature
        self.alpha = config.alpha
        length = context.vector(config.feature)
        self.register_buffer("centers", torch.zeros(context.identities, length))

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        offsets = at_least_float32(features[self.feature]) - self.centers[batch.pid]
        return offsets.square().sum(1).mean() / 2

    def after_step(self, features: Mapping[str, Tensor], batch: Batch) -> None:
        before = self.centers[batch.pid]
        same = batch.pid[:, None] == batch.pid
        of = same.to(before.dtype)
        # A product instead of index_add_, whose order of addition is open on a GPU. All rows of an
        # identity write the same, its first one's: to list identities, the host would wait.
        towards = of @ (before - at_least_float32(features[self.feature]))
        moved = before - self.alpha * towards / (1 + of.sum(1, keepdim=True))
        self.centers[batch.pid] = moved[of.argmax(1)]


def build_softmax(config: SoftmaxSettings, context: Context) -> Softmax:
    return Softmax(config, context)


def build_triplet(config: TripletSettings, context: Context) -> Triplet:
    return Triplet(config, context)


def build_center(config: CenterSettings, context: Context) -> Center:
    return Center(config, context)
