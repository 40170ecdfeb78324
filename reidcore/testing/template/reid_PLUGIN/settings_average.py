"""Settings and wiring of `PLUGIN.average`."""

from __future__ import annotations

import attrs
from reidcore.api import Given, setting


@attrs.frozen
class Average:
    """Settings of `PLUGIN.average`."""

    decay: float = setting(
        "how much of the average stays at every step", default=0.99, at_least=0, below=1
    )

    def check(self, given: Given) -> None:
        given.need(bool(given.losses), "", "needs at least one [[loss]]")
