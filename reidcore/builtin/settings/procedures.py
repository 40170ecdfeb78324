"""Settings and wiring of the core's procedures."""

from __future__ import annotations

import attrs

from reidcore.contracts.given import Given


@attrs.frozen
class Train:
    """`core.train` has no settings of its own: they are in [train] and [optim]."""

    def check(self, given: Given) -> None:
        given.need(bool(given.losses), "", "needs at least one [[loss]]")
