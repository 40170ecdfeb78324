"""Settings and wiring of `ddag.parts`."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import Feature, Given, MapName, VectorName, setting


@attrs.frozen
class Parts:
    """Settings of `ddag.parts`."""

    source: MapName = setting("the map to cut into horizontal parts")
    base: VectorName = setting(
        "the vector that the parts are added to: the normalised one of a neck (neck.bn), or "
        "neck.pooled, the paper's identity residual"
    )
    parts: int = setting("number of parts", default=3, at_least=1)
    aggregation: Literal["weighted", "average", "concat"] = setting(
        "how the attended parts join the base: their sum with learnt weights or their mean, added; "
        "or all behind each other, which is longer",
        default="weighted",
    )
    weights: Literal["softmax", "raw"] = setting(
        "learnt weights as the softmax of numbers, as in the authors' program, or as they are, as "
        "in the paper; for aggregation = weighted",
        default="softmax",
    )
    attention: Literal["rows", "columns"] = setting(
        "what sums to 1: a part's attention to all parts, as in the authors' program, or all "
        "parts' attention to one, as the paper's equation 2 is printed",
        default="rows",
    )
    norm: bool = setting(
        "whether the result is batch-normalised, as in the authors' program; the paper does not",
        default=True,
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        channels, height, _ = given.map(self.source)
        length = given.vector(self.base)
        given.need(
            self.parts <= height,
            "parts",
            f"is {self.parts}, but {self.source!r} has only {height} rows; use at most {height}",
        )
        given.need(
            self.weights == "softmax" or self.aggregation == "weighted",
            "weights",
            f"is {self.weights!r}, but aggregation = {self.aggregation!r} has none; remove it",
        )
        if self.aggregation == "concat":
            return {"x": Feature.vector(length + self.parts * channels)}
        given.need(
            length == channels,
            "base",
            f"names {self.base!r} of length {length}, to which parts of the {channels} channels of "
            f"{self.source!r} cannot be added; name a vector of as many",
        )
        return {"x": Feature.vector(length)}
