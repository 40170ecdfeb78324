"""Tells how far a long job is."""

from __future__ import annotations

import time
from typing import Any

from reidcore.tools import Reporter, duration


class Progress:
    """Tells how far adding is, with its rate and the time left."""

    def __init__(self, reporter: Reporter):
        self._reporter = reporter
        self._total, self._since = 0, time.monotonic()

    def start(self, total: int) -> None:
        self._total, self._since = total, time.monotonic()

    def at(self, before: int) -> Any:
        """Return what is told how many pictures of a shard are done."""

        def done(here: int) -> None:
            count = before + here
            rate = count / max(1e-9, time.monotonic() - self._since)
            self._reporter.working(
                f"{count} of {self._total} pictures  {rate:.0f} pictures/s  "
                f"{duration((self._total - count) / max(rate, 1e-9))} left"
            )

        return done
