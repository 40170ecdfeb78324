"""Checks of samplers."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import torch

from reidcore.model.building import build_part
from reidcore.testing.failures import ConformanceError
from reidcore.testing.samples import Sample
from reidcore.testing.toy_inputs import (
    ToyAsk,
    toy_rows,
    with_global_seed,
    without_global_draws,
)

_SEEDS = (1, 2, 3)
"""Seeds of the generators that are handed over."""


def order_follows_from_the_generator(sample: Sample) -> None:
    """Batches follow from rows and generator alone, not from global random numbers or earlier
    epochs; their indices are valid and their shape is as declared."""
    plan = sample.plan()
    (wired,) = sample.instances(plan)
    shape = wired.config.batch()
    identities = min(plan.given.identities, max(4, 2 * (shape.ids or 2)))
    # Not as many pictures of an identity as identities, so that taking one for the other is seen.
    each = max(identities + 1, shape.per_id or 1)
    rows, ask = toy_rows(plan.given, identities, each), ToyAsk(plan.given)

    def epoch(sampler: Any, seed: int, other: int) -> list[list[int]]:
        draw = torch.Generator().manual_seed(seed)
        return without_global_draws(other, lambda: _drawn(sampler.epoch(rows, draw, ask)))

    def fresh() -> Any:
        return with_global_seed(0, lambda: build_part(plan, wired))

    sampler = fresh()
    orders = {seed: epoch(sampler if seed == 1 else fresh(), seed, other=1) for seed in _SEEDS}
    for seed, order in orders.items():
        if epoch(fresh(), seed, other=3) != order:
            raise ConformanceError(
                "the same generator gives another order at another time; draw from nothing else"
            )
    epoch(sampler, 2, other=2)
    if epoch(sampler, 1, other=1) != orders[1]:
        raise ConformanceError(
            "with another epoch before it, the same generator gives another order"
        )
    if not orders[1]:
        raise ConformanceError(f"it gives no batch of {len(rows)} pictures")
    for batch in orders[1]:
        if not all(0 <= index < len(rows) for index in batch):
            raise ConformanceError(f"a batch has indices outside of {len(rows)} rows: {batch}")
        labels = Counter(int(rows.pid[index]) for index in batch)
        for what, declared, numbers in (
            ("pictures", shape.size, {len(batch)}),
            ("identities", shape.ids, {len(labels)}),
            ("pictures of an identity", shape.per_id, set(labels.values())),
        ):
            if declared is not None and numbers != {declared}:
                raise ConformanceError(
                    f"declared are {declared} {what} in a batch, but one has {sorted(numbers)}"
                )


def _drawn(batches: Any) -> list[list[int]]:
    drawn = [[int(index) for index in batch] for batch in itertools.islice(batches, 10**4)]
    if len(drawn) == 10**4:
        raise ConformanceError("an epoch does not end")
    return drawn
