"""Losses of the core on cosines with a margin: ArcFace, CosFace and circle loss."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidcore.builtin.distances import cosine_similarity
from reidcore.builtin.settings.losses import ArcFace as ArcFaceSettings
from reidcore.builtin.settings.losses import Circle as CircleSettings
from reidcore.builtin.settings.losses import CosFace as CosFaceSettings
from reidcore.contracts.parts import Context, Loss
from reidcore.contracts.pictures import Batch


class CosineSoftmax(Loss):
    """Base class of cross-entropies over the training identities whose logits follow from cosines.

    The cosines are those between the vectors and one learnt weight of each identity, in float32 at
    least. It logs `accuracy`, the share of pictures whose identity has the highest cosine.
    """

    def __init__(self, feature: str, context: Context):
        super().__init__()
        self.feature = feature
        self.weight = nn.Parameter(torch.empty(context.identities, context.vector(feature)))
        nn.init.xavier_uniform_(self.weight)

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        """Return the logits [B, identities].

        Args:
            cosine: [B, identities].
            own: bool [B, identities], true for each picture's own identity.
        """
        raise NotImplementedError

    def identity_scores(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the cosines to every identity's weight, without margin and scale."""
        return {self.feature: cosine_similarity(features[self.feature], self.weight)}

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        cosine = self.identity_scores(features)[self.feature]
        own = batch.pid[:, None] == torch.arange(len(self.weight), device=batch.pid.device)
        accuracy = (cosine.argmax(1) == batch.pid).float().mean()
        return F.cross_entropy(self.logits(cosine, own), batch.pid), {"accuracy": accuracy}


class ArcFace(CosineSoftmax):
    """ArcFace: logits scale * cos, with a margin m added to the angle of the own identity (Deng et
    al. 2019, eq. 3).

    Where angle + m exceeds pi, cos(angle + m) would rise again; there the logit is
    scale * (cos(angle) - m sin(m)), as in the authors' program, so that it falls with the angle
    everywhere.
    """

    def __init__(self, config: ArcFaceSettings, context: Context):
        super().__init__(config.feature, context)
        self.scale = config.scale
        self.margin = config.margin

    def widened_angle(self, cosine: Tensor) -> Tensor:
        """Return cos(angle + m) for cos(angle)."""
        # The root has no slope at 0, where a vector and its identity are parallel.
        sine = (1 - cosine.square()).clamp(min=1e-12).sqrt()
        widened = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine > -math.cos(self.margin), widened, beyond)

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        return self.scale * torch.where(own, self.widened_angle(cosine), cosine)


class CosFace(CosineSoftmax):
    """CosFace: logits scale * cos, less scale * margin for the own identity (Wang et al. 2018, eq.
    4)."""

    def __init__(self, config: CosFaceSettings, context: Context):
        super().__init__(config.feature, context)
        self.scale = config.scale
        self.margin = config.margin

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        return self.scale * torch.where(own, cosine - self.margin, cosine)


def circle_logits(similarity: Tensor, same: Tensor, scale: float, margin: float) -> Tensor:
    """Return the logits of circle loss (Sun et al. 2020, eq. 6).

    They are scale * a_p * (s - (1 - m)) for pairs of the same identity and scale * a_n * (s - m)
    for others. The weights a_p = max(0, 1 + m - s) and a_n = max(0, s + m) (eq. 5) say how far a
    similarity s is from its optimum; they carry no gradient, as in the paper's derivatives.

    Args:
        similarity: Cosines s, of any shape.
        same: bool, true for pairs of the same identity.
        scale: Factor on all logits.
        margin: The margin m.
    """
    fixed = similarity.detach()
    positive = (1 + margin - fixed).clamp(min=0) * (similarity - (1 - margin))
    negative = (fixed + margin).clamp(min=0) * (similarity - margin)
    return scale * torch.where(same, positive, negative)


class CircleOfClasses(CosineSoftmax):
    """Circle loss between vectors and one learnt weight of each identity (Sun et al. 2020, sec. 3).

    A vector's only positive is its identity's weight, its negatives are the other weights, so that
    eq. 6 is a cross-entropy.
    """

    def __init__(self, config: CircleSettings, context: Context):
        super().__init__(config.feature, context)
        self.scale = config.scale
        self.margin = config.margin

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        return circle_logits(cosine, own, self.scale, self.margin)


class CircleOfPairs(Loss):
    """Circle loss between the vectors of a batch, the mean over anchors (Sun et al. 2020, eq. 6).

    Every vector is an anchor. Its positives are the other vectors of its identity, its negatives
    those of other identities: log(1 + sum_n exp(logit_n) * sum_p exp(-logit_p)) of
    `circle_logits`. An anchor without positives or without negatives adds 0.
    """

    def __init__(self, config: CircleSettings):
        super().__init__()
        self.feature = config.feature
        self.scale = config.scale
        self.margin = config.margin

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        x = features[self.feature]
        same = batch.pid[:, None] == batch.pid
        logits = circle_logits(cosine_similarity(x, x), same, self.scale, self.margin)
        itself = torch.eye(len(same), dtype=torch.bool, device=same.device)
        # Half of the least number instead of -inf: an empty sum keeps a gradient, which is 0.
        nothing = torch.finfo(logits.dtype).min / 2
        positive = (-logits).masked_fill(~same | itself, nothing).logsumexp(1)
        negative = logits.masked_fill(same, nothing).logsumexp(1)
        return F.softplus(positive + negative).mean()


def build_arcface(config: ArcFaceSettings, context: Context) -> ArcFace:
    return ArcFace(config, context)


def build_cosface(config: CosFaceSettings, context: Context) -> CosFace:
    return CosFace(config, context)


def build_circle(config: CircleSettings, context: Context) -> CircleOfClasses | CircleOfPairs:
    if config.form == "pair":
        return CircleOfPairs(config)
    return CircleOfClasses(config, context)
