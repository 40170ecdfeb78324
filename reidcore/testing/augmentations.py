"""Checks of augmentations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reidcore.model.building import build_part
from reidcore.support.wording import in_words
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample
from reidcore.testing.toy_inputs import with_global_seed
from reidcore.wiring.plan import Plan


def change_follows_from_the_generator(sample: Sample) -> None:
    """A changed picture is uint8 of the same size and follows from picture and generator alone."""
    for plan in sample.plans():
        height, width = plan.given.image
        for wired in sample.instances(plan):
            for seed in range(8):
                draw = torch.Generator().manual_seed(seed)
                picture = torch.randint(0, 256, (3, height, width), generator=draw).to(torch.uint8)
                found = [_changed(plan, wired, picture, seed, other) for other in (1, 2)]
                if found[0].shape != picture.shape or found[0].dtype != torch.uint8:
                    raise ConformanceError(
                        f"uint8 {list(picture.shape)} becomes {found[0].dtype} "
                        f"{list(found[0].shape)}"
                    )
                if not torch.equal(found[0], found[1]):
                    raise ConformanceError("with the same generator it gives another picture")


def _changed(plan: Plan, wired: Any, picture: Tensor, seed: int, other: int) -> Tensor:
    augment = build_part(plan, wired)
    draw = torch.Generator().manual_seed(seed)
    found = with_global_seed(other, lambda: augment(picture.clone(), draw))
    if not isinstance(found, Tensor):
        raise ConformanceError(f"it gives {in_words(TypeError(type(found).__name__))}")
    return found
