"""What the tests of losses share: labelled vectors, a wiring around them, and loops."""

from __future__ import annotations

import math

import pytest
import torch

from reidcore.api import BatchShape, Feature, Given, Matching, WiringError
from reidcore.modules import Batch, Images


def batch_of(labels: list[int]) -> Batch:
    none = torch.zeros(len(labels), dtype=torch.int64)
    return Batch(Images(torch.zeros(len(labels), 3, 1, 1), none, none), torch.tensor(labels))


def given(**changes) -> Given:
    features = {"x.a": Feature.vector(5), "x.b": Feature.vector(5), "x.c": Feature.vector(3)}
    defaults = {
        "identities": 4,
        "features": features,
        "batch": BatchShape(8, 4, 2),
        "matchers": {"scaled": Matching({})},
    }
    return Given((8, 8), **(defaults | changes))


LABELS = [0, 0, 1, 1, 2, 2, 2, 3]


def features(seed: int = 0) -> dict[str, torch.Tensor]:
    """Vectors around one centre per identity, so that some triplets are solved and some are not."""
    generator = torch.Generator().manual_seed(seed)

    def noise(count: int, length: int) -> torch.Tensor:
        return torch.randn(count, length, generator=generator, dtype=torch.float64)

    return {
        name: noise(4, length)[LABELS] + 0.4 * noise(len(LABELS), length)
        for name, length in (("x.a", 5), ("x.b", 5), ("x.c", 3))
    }


def entropy_by_loop(logits: list[list[float]], labels: list[int], smoothing: float) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        normaliser = math.log(sum(math.exp(value) for value in row))
        for index, value in enumerate(row):
            target = (1 - smoothing) * (index == label) + smoothing / len(row)
            total -= target * (value - normaliser)
    return total / len(labels)


def distance_by_loop(a: list[float], b: list[float], metric: str) -> float:
    if metric == "unit":
        a, b = ([x / math.hypot(*vector) for x in vector] for vector in (a, b))
    if metric != "cosine":
        return math.sqrt(max(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)), 1e-12))
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / math.hypot(*a) / math.hypot(*b)


def refusal(config, run: Given) -> WiringError:
    with pytest.raises(WiringError) as caught:
        config.check(run)
    return caught.value
