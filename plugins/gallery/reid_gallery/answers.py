"""What a search answers."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import attrs


@attrs.frozen
class Match:
    """A picture of the gallery that a query was matched with.

    Attributes:
        rank: the place in the query's list, from 1.
        source: the picture's absolute path or URI.
        box: the part of it that counts, "left top right bottom" in pixels; None for all of it.
        camera, time, identity, tracklet, modality: what is known of it, None if it is not known;
            time in seconds.
        added: when it was added.
        distance: after the ranking's postprocessors, smaller is closer.
        probability: that the two show one identity; None where the run cannot tell.
        id: the row's number in the gallery.
        columns: the user's columns.
    """

    rank: int
    source: str
    box: str | None
    camera: str | None
    time: float | None
    identity: str | None
    tracklet: str | None
    modality: str | None
    added: datetime
    distance: float
    probability: float | None
    id: int
    columns: dict[str, Any] = attrs.field(factory=dict)

    def table(self) -> dict[str, Any]:
        """Return the match as JSON holds it, the user's columns behind its own fields, whose names
        they cannot take."""
        own = attrs.asdict(self)
        own["added"] = self.added.isoformat()
        shown = {key: value for key, value in own.items() if key != "columns"}
        shown["distance"] = _short(self.distance)
        if self.probability is not None:
            shown["probability"] = _short(self.probability)
        return {**shown, **{key: self.columns[key] for key in self.columns if key not in shown}}


@attrs.frozen
class Answer:
    """A query picture with its matches, nearest first.

    Attributes:
        query: the query picture's absolute path, with its box behind it if it has one.
        matches: at most as many as were asked for.
        unknown: whether no match is as probable as was asked for.
    """

    query: str
    matches: tuple[Match, ...]
    unknown: bool = False

    def table(self) -> dict[str, Any]:
        """Return the answer as JSON holds it."""
        found: dict[str, Any] = {"query": self.query}
        if self.unknown:
            found["unknown"] = True
        return {**found, "matches": [match.table() for match in self.matches]}


def _short(value: float) -> float:
    """A number as float32 tells it from its neighbours, in nine digits."""
    return float(f"{value:.9g}") if math.isfinite(value) else value
