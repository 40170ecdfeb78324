"""What the page tells of an answer, in plain words: matches, and where they were seen when."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import attrs

from reid_gallery.serve.schemas import Answer, Match

LIKELY = 0.5
"""The probability from which on a match is counted as the same person."""
DATED = 1e8
"""Times from here on (in 1973) are dates; smaller ones count from some start."""
WORDS = ((0.9, "very likely the same person"), (LIKELY, "likely the same person"),
         (0.1, "perhaps the same person"), (0.0, "probably somebody else"))  # fmt: skip


@attrs.frozen
class Sighting:
    """A match. when: its time in words, "" if it is not known. chance: a percentage, and `words`
    for it, "" where the run cannot tell. query: the name of the query that is nearest to it."""

    match: Match
    when: str
    chance: str
    words: str
    query: str

    @property
    def likely(self) -> bool:
        """Whether it is counted as the same person; without probabilities all are."""
        return self.match.probability is None or self.match.probability >= LIKELY

    @property
    def where(self) -> str:
        """The camera in words."""
        return place(self.match.camera)


@attrs.frozen
class Point:
    """A sighting on the timeline. left: from its start in percent."""

    left: float
    sighting: Sighting


@attrs.frozen
class Lane:
    """A camera's line of the timeline, in the order of time."""

    where: str
    points: list[Point]


@attrs.frozen
class Timeline:
    """Sightings by camera. ticks: times at its start, middle and end, as far as they differ.
    undated: how many sightings have no time, and are left out."""

    lanes: list[Lane]
    ticks: list[str]
    undated: int


@attrs.frozen
class Found:
    """What the page tells of a search."""

    summary: str
    sightings: list[Sighting]
    timeline: Timeline


def found(answers: list[Answer], matches: list[Match]) -> Found:
    """Return what to tell. matches: of all answers together, nearest first."""
    nearest: dict[int, tuple[float, str]] = {}
    for answer in answers:
        for match in answer.matches:
            here = match.distance, answer.query
            nearest[match.id] = min(here, nearest.get(match.id, here))
    sightings = [
        Sighting(one, clock(one.time), *chance(one.probability), nearest[one.id][1])
        for one in matches
    ]
    return Found(summary(sightings), sightings, timeline(sightings))


def clock(seconds: float | None) -> str:
    """Return a time in words: "30 Nov 2026, 12:04:37" in UTC, or "0:01:40" from some start."""
    if seconds is None:
        return ""
    if seconds < DATED:
        sign, whole = "-" if seconds < 0 else "", int(abs(seconds))
        return f"{sign}{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return f"{seconds:.0f} s"
    return f"{moment.day} {moment:%b %Y, %H:%M:%S}"


def chance(probability: float | None) -> tuple[str, str]:
    """Return a probability as a percentage and in words."""
    if probability is None:
        return "", ""
    words = next(words for least, words in WORDS if round(probability, 2) >= least)
    if probability > 0.995:
        return "over 99%", words
    if probability < 0.005:
        return "under 1%", words
    return f"{probability:.0%}", words


def place(camera: str | None) -> str:
    """Return a camera in words."""
    return f"camera {camera}" if camera else "a camera that is not known"


def summary(sightings: list[Sighting]) -> str:
    """Return where the person was seen, as a sentence or two."""
    if not sightings:
        return "No picture fits. Choose more cameras, or a longer time."
    shown = "Here is the most similar picture"
    if len(sightings) > 1:
        shown = f"Here are the {len(sightings)} most similar pictures, the most similar first"
    if all(one.match.probability is None for one in sightings):
        return f"{shown}. Look to see who is the same person."
    likely = [one for one in sightings if one.likely]
    if not likely:
        return f"Probably not seen here. {shown}; nobody is likely the same person."
    counts = Counter(one.where for one in likely)
    places = [where if n == 1 else f"{where} ({n} times)" for where, n in counts.most_common()]
    return f"Probably seen by {enumeration(places)}. {shown}."


def enumeration(words: list[str]) -> str:
    """Return words as a sentence lists them."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def timeline(sightings: list[Sighting]) -> Timeline:
    """Return sightings by camera, each at its place in time."""
    dated = sorted(
        ((one.match.time, one) for one in sightings if one.match.time is not None),
        key=lambda pair: pair[0],
    )
    undated = len(sightings) - len(dated)
    if not dated:
        return Timeline([], [], undated)
    first, last = dated[0][0], dated[-1][0]
    lanes: dict[str, list[Point]] = {}
    for time, one in dated:
        left = 50.0 if first == last else 3 + 94 * (time - first) / (last - first)
        lanes.setdefault(one.where, []).append(Point(round(left, 2), one))
    order = sorted(lanes.items(), key=lambda lane: (len(lane[0]), lane[0]))
    ticks = [first] if first == last else [first, (first + last) / 2, last]
    return Timeline([Lane(*lane) for lane in order], [clock(one) for one in ticks], undated)


def sentence(detail: str) -> str:
    """Return a problem's detail as a sentence."""
    text = detail.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
