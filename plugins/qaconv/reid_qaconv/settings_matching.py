"""Settings and wiring of the plugin's head and matcher."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import (
    Feature,
    FusedChoice,
    Given,
    MapName,
    Matching,
    TensorSpec,
    fused_setting,
    setting,
)


def _odd(value: int) -> str | None:
    return None if value % 2 else "expected an odd number"


@attrs.frozen
class Local:
    """Settings of `qaconv.local`. The published versions: 1.0 to 1.2 as by default, 2.1 with
    bn = false and bias = true; the paper's text with kernel = 1."""

    source: MapName = setting("the map whose locations become unit vectors")
    channels: int = setting(
        "channels after the convolution; 0: no convolution, the map's own", default=128, at_least=0
    )
    kernel: Literal[1, 3] = setting("height and width of the convolution's kernel", default=3)
    bn: bool = setting("whether batch normalisation follows the convolution", default=True)
    bias: bool = setting("whether the convolution has a bias", default=False)

    def outputs(self, given: Given) -> dict[str, Feature]:
        channels, height, width = given.map(self.source)
        return {"map": Feature.map(self.channels or channels, height, width)}


@attrs.frozen
class Matcher:
    """Settings of `qaconv.matcher`."""

    feature: MapName = setting(
        "the map to match, a unit vector at every location, such as `qaconv.local` gives"
    )
    head: Literal["untied", "shared"] = setting(
        "untied: a weight for every location of the query and of the gallery picture (versions 1.0 "
        "to 1.2); shared: one for both, so that distances are symmetric (from version 2.1 on)",
        default="untied",
    )
    kernel: int = setting(
        "height and width of the patches that are compared, in locations; odd",
        default=1,
        at_least=1,
        check=_odd,
    )
    score_scale: float = setting(
        "what logits are divided by before the sigmoid of a distance; 10 as in the authors' code, "
        "1 for the probability that is trained",
        default=10.0,
        above=0,
    )
    operands: Literal["float32", "float16", "bfloat16"] = setting(
        "type that test pictures' maps are rounded to and kept in before they are multiplied; "
        "products are added in float32 at any rate, and training rounds nothing",
        default="float32",
    )
    drawn: Literal["contribution", "cosine"] = setting(
        "what says which correspondences are drawn: what a pair of locations adds to the score, as "
        "in the authors' drawings, or their cosine, the local score of the paper's text",
        default="contribution",
    )
    drawn_scale: float = setting(
        "what contributions are multiplied by in drawings", default=200.0, above=0
    )
    drawn_above: float = setting(
        "correspondences of this score and less are listed but not drawn", default=0.5
    )
    fused: FusedChoice = fused_setting()

    def describe(self, given: Given) -> Matching:
        channels, height, width = given.map(self.feature)
        given.need(
            self.kernel <= min(height, width),
            "kernel",
            f"is {self.kernel}, but {self.feature!r} has only {height} x {width} locations",
        )
        locations, length = height * width, channels * self.kernel**2
        return Matching(
            {"map": TensorSpec((channels, height, width), self.operands)},
            unit=True,
            symmetric=self.head == "shared",
            logits=True,
            # Both pictures' best matches before and after normalisation, which the kernel has not;
            # logit and distance.
            pair_bytes=4 * ((0 if self.fused == "always" else 2 * 2 * locations) + 4),
            pair_flops=2 * locations**2 * length,
        )
