"""What readers know of a data set, its columns, and the numbers that its labels get.

Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

from reidcore.contracts.component import Row

REQUIRED = ("path", "pid", "split")
"""Columns that every manifest has."""

OPTIONAL = ("camera", "time", "modality")
"""Columns that a manifest may have."""

COLUMNS = ("path", "pid", "camera", "split", "time", "modality")
"""All columns, in the order in which they are written."""


@attrs.frozen
class Facts:
    """Published figures of a data set, which a reader knows without the data set's folder.

    Attributes:
        identities: Identities of the split train.
        cameras: Names of the cameras as in the rows.
        modalities: Names of the modalities as in the rows; empty if none is stated.
        columns: Optional manifest columns that the reader fills: of camera, time, modality.
        counts: Number of pictures by split; empty if unknown.
        protocol: Name of the evaluation protocol for the test pictures.
        groups: Number of identities by group of splits, such as
            {("train", "val"): 1041, ("query", "gallery"): 3060}. The splits of a group show the
            same identities, two groups none in common. Without groups, `identities` stands for
            whatever splits a run trains on.

    Example:
        >>> from reidcore.api import Facts
        >>> facts = Facts(751, groups={("train",): 751, ("query", "gallery"): 750})
        >>> facts.identities_in(["train"])
        751
    """

    identities: int
    cameras: Sequence[str] = ()
    modalities: Sequence[str] = ()
    columns: frozenset[str] = frozenset({"camera"})
    counts: Mapping[str, int] = attrs.field(factory=dict)
    protocol: str = "cross_camera"
    groups: Mapping[tuple[str, ...], int] = attrs.field(factory=dict)

    def identities_in(self, splits: Iterable[str]) -> int:
        """Return the number of identities in all of these splits together."""
        if not self.groups:
            return self.identities
        chosen = set(splits)
        return sum(count for group, count in self.groups.items() if chosen & set(group))


def natural_key(text: str) -> tuple[list[str | tuple[int, str]], str]:
    """Return a sorting key by which "2" comes before "10"; distinct texts have distinct keys.

    Numbers may be longer than Python makes integers of.
    """
    parts: list[str | tuple[int, str]] = list(re.split("([0-9]+)", text))
    for place in range(1, len(parts), 2):
        digits = str(parts[place]).lstrip("0")
        parts[place] = len(digits), digits
    return parts, text


def label_names(rows: Iterable[Row]) -> list[str]:
    """Return the distinct identities in natural order; an identity's index is its label."""
    return sorted({row.pid for row in rows}, key=natural_key)


def camera_numbers(rows: Iterable[Row]) -> dict[str, int]:
    """Return the number of every camera name in `rows`; -1 for "", if some row has no camera.

    Non-negative integers keep their value if all names are such (below 2**31, as numbers are
    stored in tensors); otherwise names are numbered from 0 in natural order.
    """
    names = sorted({row.camera for row in rows}, key=natural_key)
    known = [name for name in names if name]
    if all(re.fullmatch("[0-9]{1,10}", name) and int(name) < 2**31 for name in known):
        numbers = {name: int(name) for name in known}
    else:
        numbers = {name: number for number, name in enumerate(known)}
    return {"": -1, **numbers} if "" in names else numbers


def modality_names(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the stated modalities: "visible", then "infrared", then others in natural order.

    ("visible",) if no row states one.
    """
    stated = {row.modality for row in rows if row.modality}
    first = [name for name in ("visible", "infrared") if name in stated]
    return (*first, *sorted(stated.difference(first), key=natural_key)) or ("visible",)


def columns(rows: Sequence[Row]) -> frozenset[str]:
    """Return those of camera, time and modality that all rows fill; none without rows."""
    return frozenset(
        name
        for name in OPTIONAL
        if rows and all(getattr(row, name) not in ("", None) for row in rows)
    )
