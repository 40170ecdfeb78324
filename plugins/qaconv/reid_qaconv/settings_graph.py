"""Settings and wiring of `qaconv.graph`."""

from __future__ import annotations

import attrs

from reidcore.api import BatchShape, Given, MatcherName, setting


@attrs.frozen
class Graph:
    """Settings of `qaconv.graph`."""

    matcher: MatcherName = setting("the matcher whose distances say which identities are near")
    ids: int = setting("identities in a batch: an anchor and those nearest to it", at_least=2)
    per_id: int = setting("pictures of each", default=2, at_least=1)

    def check(self, given: Given) -> None:
        given.need(
            given.identities >= self.ids,
            "ids",
            f"asks for {self.ids} different identities in a batch, but the training data have "
            f"{given.identities}",
        )

    def batch(self) -> BatchShape:
        return BatchShape(self.ids * self.per_id, self.ids, self.per_id)
