"""Settings and wiring of `PLUGIN.contrastive`."""

from __future__ import annotations

import attrs
from reidcore.api import Given, VectorName, setting


@attrs.frozen
class Contrastive:
    """Settings of `PLUGIN.contrastive`."""

    feature: VectorName = setting("the vector to train; it is scaled to unit length")
    margin: float = setting(
        "how far different identities are pushed apart; unit vectors are at most 2 apart",
        default=1.0,
        above=0,
        at_most=2,
    )

    def check(self, given: Given) -> None:
        given.need(
            given.batch.per_id is None or given.batch.per_id >= 2,
            "",
            "needs several pictures of an identity in a batch, but data.batch gives one of each",
        )
