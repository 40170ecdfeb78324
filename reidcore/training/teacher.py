"""A trained run that looks at another run's training pictures.

`reidcore.contracts.trained_run` says what it promises.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reidcore.contracts.pictures import Images
from reidcore.contracts.trained_run import Seen, TrainedRun
from reidcore.distributed.shared_batches import SharedImages
from reidcore.ranking.comparer import make_fusion
from reidcore.ranking.fusion import Fusion
from reidcore.runfolder.opening import load_with
from reidcore.wiring.plan import Plan


class TrainedTeacher:
    """The model of a finished run, frozen; see `Teacher`.

    It follows the pictures to their device and dtype. What it has made of a batch it keeps until it
    is given another, because several losses ask for the same.
    """

    def __init__(self, run: TrainedRun, plan: Plan, student: Seen):
        self._wanted = sorted(run.wanted)
        self._own, self._student = run.seen, student
        self._model = load_with(Path(run.folder), plan, self._wanted, "cpu").requires_grad_(False)
        self._rankings = {one.name: one for one in plan.rankings}
        self._fusions: dict[str, Fusion] = {}
        known = {name: number for number, name in enumerate(self._own.modalities)}
        self._modalities = torch.tensor([known.get(name, 0) for name in student.modalities] or [0])
        self._last: tuple[weakref.ref[Images], Mapping[str, Tensor]] | None = None

    def __deepcopy__(self, memo: object) -> TrainedTeacher:
        return self  # nothing of it changes, and a dry run copies its model

    def features(self, images: Images) -> Mapping[str, Tensor]:
        if self._last is None or self._last[0]() is not images:
            self._last = weakref.ref(images), self._computed(images)
        return self._last[1]

    def _computed(self, images: Images) -> Mapping[str, Tensor]:
        own = images.own if isinstance(images, SharedImages) else images
        pixels = own.pixels
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            self._model.to(pixels.device, pixels.dtype)
            self._modalities = self._modalities.to(pixels.device)
            shown = resized(pixels, self._student, self._own)
            made = self._model(Images(shown, self._modalities[own.modality]))
        made = {name: made[name] for name in self._wanted}
        if isinstance(images, SharedImages):
            return {name: images.division.gathered(value) for name, value in made.items()}
        return made

    @torch.no_grad()
    def distances(self, ranking: str, features: Mapping[str, Tensor]) -> Tensor:
        if ranking not in self._fusions:
            table = self._rankings[ranking]
            self._fusions[ranking] = make_fusion(table, self._model, self._model.pairs)
        fusion = self._fusions[ranking]
        templates = {one.name: self._template(one.name, features) for one in fusion.shares}
        return fusion.sum(
            lambda share: share.matcher.distance(templates[share.name], templates[share.name])
        )

    @torch.no_grad()
    def logits(self, matcher: str, features: Mapping[str, Tensor]) -> Tensor:
        template = self._template(matcher, features)
        return self._model.matchers[matcher].logits(template, template)

    def _template(self, matcher: str, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        module = self._model.matchers[matcher]
        return module.merge([module.template(features)])


def resized(pixels: Tensor, before: Seen, after: Seen) -> Tensor:
    """Return pictures [B, 3, H, W], prepared as `before` says, as `after` says; as they are where
    that is the same."""
    size = before.image != after.image
    norm = (before.mean, before.deviation) != (after.mean, after.deviation)
    if not size and not norm:
        return pixels
    scaled = [
        channel * deviation + mean
        for channel, mean, deviation in zip(
            pixels.unbind(1), before.mean, before.deviation, strict=True
        )
    ]
    pixels = torch.stack(scaled, 1)
    if size:
        mode = "bilinear" if after.interpolation == "bilinear" else "bicubic"
        pixels = F.interpolate(pixels, after.image, mode=mode, antialias=True).clamp(0, 1)
    # Numbers instead of tensors: a tensor sent to a GPU would wait for its queue.
    for channel, mean, deviation in zip(pixels.unbind(1), after.mean, after.deviation, strict=True):
        channel.sub_(mean).div_(deviation)
    return pixels
