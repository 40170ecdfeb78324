"""Settings and wiring of the core's matchers."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.builtin.settings.checks import not_empty
from reidcore.contracts.component import Matching, TensorSpec
from reidcore.contracts.given import Given
from reidcore.contracts.settings import VectorName, setting


def _vector_matching(given: Given, features: list[VectorName], unit: bool) -> Matching:
    length = sum(given.vector(name) for name in features)
    return Matching(
        {"vector": TensorSpec((length,))}, unit=unit, symmetric=True, pair_flops=2 * length
    )


@attrs.frozen
class Cosine:
    """Settings of `core.cosine`."""

    features: list[VectorName] = setting("the vectors to concatenate", check=not_empty)
    each: bool = setting(
        "whether each vector is scaled to unit length before concatenation, so that all weigh the "
        "same",
        default=False,
    )

    def describe(self, given: Given) -> Matching:
        return _vector_matching(given, self.features, unit=True)


@attrs.frozen
class Euclidean:
    """Settings of `core.euclidean`."""

    features: list[VectorName] = setting("the vectors to concatenate", check=not_empty)
    squared: bool = setting("whether the distance is squared", default=False)
    unit: Literal["none", "merged", "views"] = setting(
        "what is scaled to unit length after concatenation: nothing, a picture's mean over its "
        "test views, or each view before that mean",
        default="none",
    )

    def describe(self, given: Given) -> Matching:
        return _vector_matching(given, self.features, unit=False)
