"""Settings and wiring of the core's losses."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.builtin.settings.checks import not_empty
from reidcore.contracts.given import Given, WiringError
from reidcore.contracts.settings import MatcherName, VectorName, setting


@attrs.frozen
class Softmax:
    """Settings of `core.softmax`."""

    features: list[VectorName] = setting(
        "the vectors to classify, all by one classifier; their losses are added", check=not_empty
    )
    smoothing: float = setting(
        "share of the target that is spread over all identities", default=0.0, at_least=0, below=1
    )
    bias: bool = setting("whether the classifier has a bias", default=False)

    def check(self, given: Given) -> None:
        lengths = {name: given.vector(name) for name in self.features}
        first = self.features[0]
        for name, length in lengths.items():
            given.need(
                length == lengths[first],
                "features",
                f"share one classifier, so they need one length, but {first!r} has "
                f"{lengths[first]} and {name!r} has {length}. Use one loss for each length.",
            )
        given.need_identities()


@attrs.frozen
class Triplet:
    """Settings of `core.triplet`."""

    feature: VectorName | None = setting("the vector whose distances are trained", default=None)
    matcher: MatcherName | None = setting(
        "instead of a feature, the matcher whose distance is trained", default=None
    )
    metric: Literal["euclidean", "cosine", "unit"] = setting(
        "distance between features; cosine is 1 - cos, unit the Euclidean distance of the features "
        "scaled to unit length",
        default="euclidean",
    )
    mining: Literal["hard", "weighted"] = setting(
        "the hardest positive and negative of each anchor, or all of them with weights that grow "
        "with hardness (AGW's, which has soft = true)",
        default="hard",
    )
    margin: float = setting(
        "by how much a negative must be farther than a positive, in units of the distance",
        default=0.3,
        at_least=0,
    )
    soft: bool = setting("log(1 + exp(x)) in place of the margin", default=False)

    def check(self, given: Given) -> None:
        if (self.feature is None) == (self.matcher is None):
            found = "neither" if self.feature is None else "both"
            raise WiringError("", f"needs either feature or matcher, but {found} is set")
        given.need(
            self.matcher is None or self.metric == "euclidean",
            "metric",
            "is for a feature; a matcher has its own distance. Remove metric or matcher.",
        )
        given.need_pairs()


@attrs.frozen
class ArcFace:
    """Settings of `core.arcface`."""

    feature: VectorName = setting("the vector to classify")
    scale: float = setting("what the cosines are multiplied by", default=64.0, above=0)
    margin: float = setting(
        "added to the angle between a vector and its own identity, in radians",
        default=0.5,
        at_least=0,
        at_most=1.5,
    )

    def check(self, given: Given) -> None:
        given.need_identities()


@attrs.frozen
class CosFace:
    """Settings of `core.cosface`."""

    feature: VectorName = setting("the vector to classify")
    scale: float = setting("what the cosines are multiplied by", default=64.0, above=0)
    margin: float = setting(
        "taken from the cosine between a vector and its own identity",
        default=0.35,
        at_least=0,
        at_most=2,
    )

    def check(self, given: Given) -> None:
        given.need_identities()


@attrs.frozen
class Circle:
    """Settings of `core.circle`."""

    feature: VectorName = setting("the vector whose cosines are trained")
    form: Literal["class", "pair"] = setting(
        "class: cosines to one learnt weight of each training identity; pair: cosines between the "
        "pictures of a batch",
        default="class",
    )
    scale: float = setting("gamma in the paper, a factor on all logits", default=128.0, above=0)
    margin: float = setting(
        "m in the paper: cosines of the same identity are drawn above 1 - m, others below m",
        default=0.25,
        above=-1,
        below=1,
    )

    def check(self, given: Given) -> None:
        if self.form == "pair":
            given.need_pairs()
        else:
            given.need_identities()


@attrs.frozen
class Center:
    """Settings of `core.center`."""

    feature: VectorName = setting("the vector that is drawn to its identity's center")
    alpha: float = setting(
        "step by which centers follow the vectors", default=0.5, at_least=0, at_most=1
    )

    def check(self, given: Given) -> None:
        pass
