"""The core's losses on cosines with a margin: ArcFace, CosFace, Circle loss."""

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
    """Cross-entropy over the training identities of logits that follow from cosines, the mean over
    rows.

    The cosines are those between the vectors and one learnt weight of each identity; all are
    float32 at least. Logs `accuracy`, the share of rows whose identity has the highest cosine.
    """

    def __init__(self, feature: str, context: Context):
        super().__init__()
        self.feature = feature
        self.weight = nn.Parameter(torch.empty(context.identities, context.vector(feature)))
        nn.init.xavier_uniform_(self.weight)

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        """[B, identities] of cosines [B, identities]; own: bool, where a row meets its identity."""
        raise NotImplementedError

    def identity_scores(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The cosines to every identity's weight, without margin and scale."""
        return {self.feature: cosine_similarity(features[self.feature], self.weight)}

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        cosine = self.identity_scores(features)[self.feature]
        own = batch.pid[:, None] == torch.arange(len(self.weight), device=batch.pid.device)
        accuracy = (cosine.argmax(1) == batch.pid).float().mean()
        return F.cross_entropy(self.logits(cosine, own), batch.pid), {"accuracy": accuracy}


class ArcFace(CosineSoftmax):
    """Logits scale * cos, with the margin m added to the angle of the own identity (Deng et al.
    2019, eq. 3).

    Where angle + m exceeds pi, cos(angle + m) would rise again; there the logit is
    scale * (cos(angle) - m sin(m)), as in the authors' program, so that it falls with the angle
    everywhere.
    """

    def __init__(self, config: ArcFaceSettings, context: Context):
        super().__init__(config.feature, context)
        self.scale = config.scale
        self.margin = config.margin

    def widened_angle(self, cosine: Tensor) -> Tensor:
        """cos(angle + m) of cos(angle)."""
        # The root has no slope at 0, where a vector and its identity are parallel.
        sine = (1 - cosine.square()).clamp(min=1e-12).sqrt()
        widened = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return torch.where(cosine > -math.cos(self.margin), widened, beyond)

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        return self.scale * torch.where(own, self.widened_angle(cosine), cosine)


class CosFace(CosineSoftmax):
    """Logits scale * cos, less scale * margin for the own identity (Wang et al. 2018, eq. 4)."""

    def __init__(self, config: CosFaceSettings, context: Context):
        super().__init__(config.feature, context)
        self.scale = config.scale
        self.margin = config.margin

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        return self.scale * torch.where(own, cosine - self.margin, cosine)


def circle_logits(similarity: Tensor, same: Tensor, scale: float, margin: float) -> Tensor:
    """scale * a_p * (s - (1 - m)) for pairs of the same identity, scale * a_n * (s - m) for others
    (Sun et al. 2020, eq. 6).

    The weights a_p = max(0, 1 + m - s) and a_n = max(0, s + m) (eq. 5) tell how far a similarity s
    is from its optimum; they carry no gradient, as in the paper's derivatives.
    """
    fixed = similarity.detach()
    positive = (1 + margin - fixed).clamp(min=0) * (similarity - (1 - margin))
    negative = (fixed + margin).clamp(min=0) * (similarity - margin)
    return scale * torch.where(same, positive, negative)


class CircleOfClasses(CosineSoftmax):
    """Circle loss with class-level labels (Sun et al. 2020, section 3): a row's one positive is its
    identity's weight, its negatives are the others', so that eq. 6 is a cross-entropy."""

    def __init__(self, config: CircleSettings, context: Context):
        super().__init__(config.feature, context)
        self.scale = config.scale
        self.margin = config.margin

    def logits(self, cosine: Tensor, own: Tensor) -> Tensor:
        return circle_logits(cosine, own, self.scale, self.margin)


class CircleOfPairs(Loss):
    """Circle loss with pair-wise labels (Sun et al. 2020, eq. 6), the mean over anchors: all rows.

    An anchor's positives are the other rows of its identity, its negatives those of other
    identities: log(1 + sum_n exp(logit_n) * sum_p exp(-logit_p)) of `circle_logits`. An anchor
    without positives or without negatives adds 0.
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
