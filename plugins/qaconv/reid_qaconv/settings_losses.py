"""Settings and wiring of the plugin's losses."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import Given, MapName, MatcherName, VectorName, setting

Unseen = Literal["counted", "masked", "left_out"]
_UNSEEN = (
    "what becomes of identities that the memory has not seen yet and holds zeros for. counted: "
    "they are in the loss and in norm layers, as in version 1.0 of the authors' code; masked: in "
    "norm layers alone, as from version 1.1 on; left_out: rows are compared with seen identities "
    "alone, so that zeros do not teach that what is alike differs"
)


@attrs.frozen
class Memory:
    """Settings of `qaconv.memory`."""

    feature: MapName = setting("the map that the memory keeps: the one that the matcher reads")
    matcher: MatcherName = setting("the matcher whose logits are trained")
    unseen: Unseen = setting(_UNSEEN, default="counted")
    momentum: float = setting(
        "share of an identity's old map that stays: 0 replaces it, as the paper recommends; above "
        "0 the memory is an exponential moving average, which the paper found inferior",
        default=0.0,
        at_least=0,
        below=1,
    )

    def check(self, given: Given) -> None:
        given.need_logits("matcher", self.matcher)
        given.need_identities()


@attrs.frozen
class Vectors:
    """Settings of `qaconv.vectors`."""

    feature: VectorName = setting("the vector that the memory keeps")
    unseen: Unseen = setting(_UNSEEN, default="counted")

    def check(self, given: Given) -> None:
        given.need_identities()


@attrs.frozen
class Pairwise:
    """Settings of `qaconv.pairwise`."""

    matcher: MatcherName = setting("the matcher whose logits are trained")

    def check(self, given: Given) -> None:
        given.need_logits("matcher", self.matcher)
        given.need_pairs("qaconv.graph or core.identities")


@attrs.frozen
class Triplet:
    """Settings of `qaconv.triplet`."""

    matcher: MatcherName = setting("the matcher whose logits are trained")
    margin: float = setting(
        "by how much a positive's logit must exceed a negative's", default=16.0, at_least=0
    )

    def check(self, given: Given) -> None:
        given.need_logits("matcher", self.matcher)
        given.need_pairs("qaconv.graph or core.identities")
