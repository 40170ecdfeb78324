"""Losses by which a model learns from a trained run: its features, its distances, its logits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidcore.builtin.settings.distillation import (
    DistillDistances,
    DistillFeatures,
    DistillLogits,
)
from reidcore.contracts.parts import Context, Loss, Unowned
from reidcore.contracts.pictures import Batch, Images
from reidcore.contracts.precision import at_least_float32
from reidcore.contracts.trained_run import Teacher, TrainedRun
from reidcore.distributed.shared_batches import SharedImages


class Features(Loss):
    """Distance of a feature from the teacher's of the same picture, the mean over the batch.

    Where the two have not as many channels, a linear layer of the loss, which is trained and not
    used afterwards, brings the student's to the teacher's (Romero et al. 2015).
    """

    def __init__(self, config: DistillFeatures, context: Context):
        super().__init__()
        run = context.trained_run("teacher", config.teacher)
        shape = context.feature(config.feature).shape
        theirs = shape if run is None else run.features[config.theirs].shape
        self.feature, self.theirs, self.metric = config.feature, config.theirs, config.metric
        self.teacher = _opened(run, context, {config.theirs: theirs})
        self.projection: nn.Module | None = None
        if shape[0] != theirs[0]:
            self.projection = (
                nn.Linear(shape[0], theirs[0], bias=False)
                if len(shape) == 1
                else nn.Conv2d(shape[0], theirs[0], 1, bias=False)
            )

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        own = features[self.feature]
        if self.projection is not None:
            own = self.projection(own)
        own = at_least_float32(own)
        target = self.teacher.features(batch.images)[self.theirs]
        if self.metric == "squared":
            return F.mse_loss(own, target)
        return (1 - F.cosine_similarity(own, target, dim=1)).mean()


class Distances(Loss):
    """Huber loss of a matcher's distances between the pictures of a batch and the teacher's.

    Both are divided by their mean over the batch's pairs, so that only their ratios are learnt and
    any kind of distance can teach any other (Park et al. 2019, eqs. 4 to 6, the mean over pairs).
    It logs `correlation`, Pearson's, of the two.
    """

    def __init__(self, config: DistillDistances, context: Context):
        super().__init__()
        run = context.trained_run("teacher", config.teacher)
        self.matcher = Unowned(context.matchers[config.matcher])
        self.ranking = config.named(run) if run is not None else ""
        self.teacher = _opened(run, context)

    def forward(
        self, features: Mapping[str, Tensor], batch: Batch
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        matcher = self.matcher()
        template = matcher.template(features)
        own = _pairs(matcher.distance(template, template))
        shown = self.teacher.features(batch.images)
        target = _pairs(self.teacher.distances(self.ranking, shown))
        if not len(own):
            return own.sum(), {}
        own, target = (one / one.mean().clamp(min=1e-12) for one in (own, target))
        both = torch.stack([own.detach(), target])
        spread = both - both.mean(1, keepdim=True)
        correlation = F.cosine_similarity(spread[0], spread[1], dim=0)
        return F.smooth_l1_loss(own, target), {"correlation": correlation}


class Logits(Loss):
    """Divergence of a matcher's probabilities, that two pictures show one identity, from the
    teacher's: the mean over a batch's pairs of KL(teacher || student), times the square of the
    temperature (Hinton et al. 2015), 0 where they agree.

    Of a matcher without logits d becomes scale * (threshold - d); the loss owns and trains both
    numbers.
    """

    def __init__(self, config: DistillLogits, context: Context):
        super().__init__()
        run = context.trained_run("teacher", config.teacher)
        self.matcher = Unowned(context.matchers[config.matcher])
        self.has_logits = context.given.matchers[config.matcher].logits
        self.theirs = config.named(run) if run is not None else ""
        self.temperature = config.temperature
        self.teacher = _opened(run, context)
        if not self.has_logits:
            # A scale by its logarithm stays positive. Cosine distances lie in [0, 1].
            self.log_scale = nn.Parameter(torch.tensor(2.3))
            self.threshold = nn.Parameter(torch.tensor(0.25))

    def logits(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return the student's logits [B, B]."""
        matcher = self.matcher()
        template = matcher.template(features)
        if self.has_logits:
            return matcher.logits(template, template)
        return self.log_scale.exp() * (self.threshold - matcher.distance(template, template))

    def forward(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        own = _pairs(at_least_float32(self.logits(features)))
        shown = self.teacher.features(batch.images)
        target = _pairs(self.teacher.logits(self.theirs, shown))
        if not len(own):
            return own.sum()
        own, target = own / self.temperature, target / self.temperature
        share = target.sigmoid()
        given, least = (F.binary_cross_entropy_with_logits(one, share) for one in (own, target))
        return (given - least) * self.temperature**2


def _pairs(matrix: Tensor) -> Tensor:
    """Return the entries [B * (B - 1)] of a matrix [B, B] that compare two pictures."""
    size = len(matrix)
    # Behind the first entry every (size + 1)th is on the diagonal. A mask would wait for a GPU.
    return matrix.reshape(-1)[1:].reshape(size - 1, size + 1)[:, :-1].reshape(-1)


def _opened(
    run: TrainedRun | None, context: Context, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Teacher:
    """Return the teacher, or a stand-in where a check goes on without it."""
    if run is None:
        return StandIn(shapes or {})
    if run.seen.image != context.seen.image:
        sizes = ["x".join(map(str, one.image)) for one in (context.seen, run.seen)]
        context.say(f"the teacher sees the pictures of {sizes[0]} resized to its {sizes[1]}")
    return run.open(context.seen)


class StandIn:
    """What a check takes for a teacher that is not there: numbers that follow from the pictures."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self._shapes = dict(shapes)

    def features(self, images: Images) -> dict[str, Tensor]:
        own = images.own if isinstance(images, SharedImages) else images
        mean = own.pixels.flatten(1).mean(1)
        if isinstance(images, SharedImages):
            mean = images.division.gathered(mean)
        made = {"": mean[:, None]}
        for name, shape in self._shapes.items():
            places = torch.arange(1, math.prod(shape) + 1, device=mean.device)
            made[name] = torch.cos(mean[:, None] * places).reshape(-1, *shape)
        return made

    def distances(self, ranking: str, features: Mapping[str, Tensor]) -> Tensor:
        return (features[""] - features[""].T).abs()

    def logits(self, matcher: str, features: Mapping[str, Tensor]) -> Tensor:
        return 1 - self.distances("", features)


def build_features(config: DistillFeatures, context: Context) -> Features:
    return Features(config, context)


def build_distances(config: DistillDistances, context: Context) -> Distances:
    return Distances(config, context)


def build_logits(config: DistillLogits, context: Context) -> Logits:
    return Logits(config, context)
