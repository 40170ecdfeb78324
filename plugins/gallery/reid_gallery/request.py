"""What is asked of a search."""

from __future__ import annotations

import attrs

from reid_gallery.filters import Filter
from reidcore.errors import UsageError


@attrs.frozen
class Request:
    """What is asked of a search.

    Attributes:
        filter: the rows that count.
        top: matches listed of each query.
        ranking: a ranking of the run, by default its first.
        candidates: nearest pictures of each query that postprocessors rank.
        unknown_above: a query with no match of at least this probability is unknown.
    """

    filter: Filter = attrs.field(factory=Filter)
    top: int = 10
    ranking: str | None = None
    candidates: int = 200
    unknown_above: float | None = None

    def check(self) -> None:
        """Raise UsageError for numbers that mean nothing."""
        for name in ("top", "candidates"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.unknown_above is not None and not 0 <= self.unknown_above <= 1:
            raise UsageError(
                f"unknown_above is a probability between 0 and 1, got {self.unknown_above}"
            )
