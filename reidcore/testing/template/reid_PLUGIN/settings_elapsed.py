"""Settings and wiring of `PLUGIN.elapsed`."""

from __future__ import annotations

import attrs
from reidcore.api import Given, setting


@attrs.frozen
class Elapsed:
    """Settings of `PLUGIN.elapsed`."""

    seconds: float = setting("scale of the time between two pictures", default=600.0, above=0)
    weight: float = setting("share of time in the result", default=0.05, at_least=0, at_most=1)

    def check(self, given: Given) -> bool:
        given.need_column("time")
        given.need_unit()
        return True
