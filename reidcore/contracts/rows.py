"""Columns of a manifest, and the numbers that identities, cameras and modalities get.

Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from reidcore.contracts.component import Row

REQUIRED = ("path", "pid", "split")
"""Columns that every manifest has."""

OPTIONAL = ("camera", "time", "modality")
"""Columns that a manifest may have."""

COLUMNS = ("path", "pid", "camera", "split", "time", "modality")
"""All columns, in the order in which they are written."""


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
