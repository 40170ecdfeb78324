"""Checks of augmentations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from reidcore.model.building import build_part
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample
from reidcore.testing.toy_inputs import without_global_draws
from reidcore.wiring.plan import Plan

_PICTURES = 32
"""Pictures that are changed, so that what happens to one in ten is likely seen."""


def change_follows_from_the_generator(sample: Sample) -> None:
    """A changed picture is uint8 of the same size and follows from picture and generator alone, not
    from global random numbers, a generator of the part's own or earlier pictures."""
    for plan in sample.plans():
        for wired in sample.instances(plan):
            order = list(range(_PICTURES))
            first = _changed(plan, wired, order, seed=1)
            second = _changed(plan, wired, order[::-1], seed=2)
            if not all(torch.equal(first[number], second[number]) for number in order):
                raise ConformanceError(
                    "with the same generator it gives another picture; it must not draw from a "
                    "generator of its own, nor keep anything from one picture to the next"
                )


def _changed(plan: Plan, wired: Any, numbers: Iterable[int], seed: int) -> dict[int, Tensor]:
    """Return random pictures as a fresh augmentation changes them in this order, by number.

    seed: of the global generators, from which nothing may be drawn.
    """
    augment = build_part(plan, wired)
    changed = {}
    for number in numbers:
        draw = torch.Generator().manual_seed(number)
        picture = torch.randint(0, 256, (3, *plan.given.image), generator=draw).to(torch.uint8)
        given = picture.clone()
        found = without_global_draws(
            seed,
            lambda given=given, draw=draw: augment(given, draw),  # type: ignore[misc]
        )
        if not isinstance(found, Tensor):
            raise ConformanceError(f"it gives {type(found).__name__}, not a tensor")
        if found.shape != picture.shape or found.dtype != torch.uint8:
            raise ConformanceError(
                f"uint8 {list(picture.shape)} becomes {found.dtype} {list(found.shape)}"
            )
        changed[number] = found
    return changed
