"""Settings and wiring of the core's postprocessors."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.contracts.given import Given
from reidcore.contracts.settings import setting


@attrs.frozen
class Expand:
    """Settings of `core.expand`."""

    top: int = setting(
        "how many gallery pictures a query is merged with, the nearest ones", default=5, at_least=1
    )

    def check(self, given: Given) -> bool:
        given.need_matcher_distances()
        return given.unit


@attrs.frozen
class Rerank:
    """Settings of `core.rerank`."""

    k1: int = setting("how many neighbours may be reciprocal", default=20, at_least=1)
    k2: int = setting(
        "over how many neighbours, the picture itself included, encodings are averaged",
        default=6,
        at_least=1,
    )
    weight: float = setting(
        "share of the matcher's distance in the result, lambda in the paper",
        default=0.3,
        at_least=0,
        at_most=1,
    )
    variant: Literal["zhong", "qaconv"] = setting(
        "whose published program is followed: zhong may square distances, qaconv never does",
        default="zhong",
    )
    square: bool = setting(
        "whether distances are squared first, as Zhong et al. do; for Euclidean distances that are "
        "not squared yet; core.cosine is a quarter of a squared one as it is",
        default=False,
    )
    half: bool = setting(
        "whether encodings and Jaccard distances are rounded to float16, as in QAConv's program",
        default=False,
    )

    def check(self, given: Given) -> bool:
        given.need(
            self.variant == "zhong" or not self.square,
            "square",
            "is for variant = 'zhong'; 'qaconv' takes distances as they are. Remove square or "
            "variant.",
        )
        given.need_matcher_distances()
        return True
