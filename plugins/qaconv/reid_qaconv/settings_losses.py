"""Settings and wiring of the plugin's losses."""

from __future__ import annotations

import attrs

from reidcore.api import Given, MapName, MatcherName, VectorName, setting

_MASK = (
    "whether identities that the memory has not seen yet are left out of the loss, as in version "
    "1.1 of the authors' code and later; norm layers see them in any case"
)


def _need_identities(given: Given) -> None:
    given.need(
        given.identities >= 2,
        "",
        f"needs at least two training identities; the data have {given.identities}",
    )


def _need_pairs(given: Given) -> None:
    ids, per_id = given.batch.ids, given.batch.per_id
    if ids is None or per_id is None:
        found = "promises no numbers of identities and pictures"
    else:
        found = f"has {ids} x {per_id}"
    given.need(
        (ids or 0) >= 2 and (per_id or 0) >= 2,
        "",
        "needs batches with at least two identities and two pictures of each, but data.batch "
        f"{found}. Use qaconv.graph or core.identities with ids and per_id of 2 or more.",
    )


@attrs.frozen
class Memory:
    """Settings of `qaconv.memory`."""

    feature: MapName = setting("the map that the memory keeps: the one that the matcher reads")
    matcher: MatcherName = setting("the matcher whose logits are trained")
    mask_unseen: bool = setting(_MASK, default=False)

    def check(self, given: Given) -> None:
        given.need_logits("matcher", self.matcher)
        _need_identities(given)


@attrs.frozen
class Vectors:
    """Settings of `qaconv.vectors`."""

    feature: VectorName = setting("the vector that the memory keeps")
    mask_unseen: bool = setting(_MASK, default=False)

    def check(self, given: Given) -> None:
        _need_identities(given)


@attrs.frozen
class Pairwise:
    """Settings of `qaconv.pairwise`."""

    matcher: MatcherName = setting("the matcher whose logits are trained")

    def check(self, given: Given) -> None:
        given.need_logits("matcher", self.matcher)
        _need_pairs(given)


@attrs.frozen
class Triplet:
    """Settings of `qaconv.triplet`."""

    matcher: MatcherName = setting("the matcher whose logits are trained")
    margin: float = setting(
        "by how much a positive's logit must exceed a negative's", default=16.0, at_least=0
    )

    def check(self, given: Given) -> None:
        given.need_logits("matcher", self.matcher)
        _need_pairs(given)
