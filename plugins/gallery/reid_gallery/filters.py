"""Which rows a search, a label or a removal is about: conditions on their columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from numbers import Real
from typing import Any

import attrs
import lance

from reid_gallery.told import condition_error
from reidcore.errors import UsageError, nearest

MOST_NAMES = 20
QUOTES = ("'", '"', "`")
OTHERS = ("--", "/*", "$")
"""What begins a comment, or a text that has no quotes."""


def check_condition(where: str) -> None:
    """Raise UsageError where a condition is none by itself: "a) OR (b", or a parenthesis or quote
    that Lance reads otherwise than this does, as in comments, $$ and E'...', would escape from the
    other conditions beside it."""
    depth, quote, before = 0, "", ""
    for place, letter in enumerate(where):
        if quote:
            quote = "" if letter == quote else quote
        elif where.startswith(OTHERS, place) or (
            letter in QUOTES and (before.isalnum() or before in ("_", "&"))
        ):
            raise UsageError(
                f"--where {where!r} has {before if letter in QUOTES else ''}"
                f"{where[place : place + 2]}, expected a condition in SQL without comments, $ and "
                "letters before a quote"
            )
        elif letter in QUOTES:
            quote = letter
        else:
            depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth < 0:
            break
        before = letter
    if depth or quote:
        raise UsageError(
            f"--where {where!r} is no condition in SQL: its parentheses or quotes do not match"
        )


@attrs.frozen
class Filter:
    """Conditions that rows meet, all of them.

    Attributes:
        cameras: names of cameras, of which a row has one; none for all.
        after, before: seconds on the clock of the pictures; at or after the first, before the
            second.
        where: a condition in SQL on any columns, such as "identity IS NULL AND speed > 3".
            UsageError is raised for one that would escape from the others.
        identity: the name that they have.
    """

    cameras: tuple[str, ...] = ()
    after: float | None = None
    before: float | None = None
    where: str = attrs.field(default="", validator=lambda own, field, where: check_condition(where))
    identity: str | None = None

    @classmethod
    def of(
        cls,
        camera: str | Sequence[str] | None = None,
        after: float | str | datetime | None = None,
        before: float | str | datetime | None = None,
        where: str = "",
        identity: str | None = None,
    ) -> Filter:
        """Return the filter of what a user gives. Raises UsageError for a camera that is no text,
        for a time that is none, and for a condition that is none by itself."""
        given: Any = camera
        names = () if given is None else (given,) if isinstance(given, str) else given
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            raise UsageError(
                f"camera is {camera!r}, of the type {type(camera).__name__}; cameras are texts, "
                "such as '3'"
            )
        times = seconds(after, "after"), seconds(before, "before")
        return cls(tuple(names), *times, where, identity)

    @property
    def sql(self) -> str:
        """The conditions in SQL, "" without any."""
        parts = []
        if self.cameras:
            parts.append(f"camera IN ({', '.join(map(quoted, self.cameras))})")
        if self.after is not None:
            parts.append(f"time >= {self.after!r}")
        if self.before is not None:
            parts.append(f"time < {self.before!r}")
        if self.identity is not None:
            parts.append(f"identity = {quoted(self.identity)}")
        if self.where:
            parts.append(f"({self.where})")
        return " AND ".join(parts)

    def check(self, dataset: lance.LanceDataset) -> str | None:
        """Return the conditions in SQL, None without any. Raises UsageError for a column that the
        gallery does not have, and for what is no condition."""
        if self.where:
            columns = [name for name in dataset.schema.names if "__" not in name and name != "key"]
            try:
                dataset.scanner(columns=["id"], filter=self.sql).explain_plan()
            except (OSError, ValueError) as error:
                raise condition_error(self.where, error, columns) from None
            except RuntimeError:  # of Lance's planner, whose own words say nothing
                raise UsageError(
                    f"--where {self.where!r} has something that Lance does not know; a condition "
                    "in SQL compares columns with numbers and with texts in single quotes, and has "
                    "no placeholders such as ? and :name"
                ) from None
        return self.sql or None

    def check_found(self, dataset: lance.LanceDataset) -> None:
        """Raise UsageError, where no row meets the conditions, if that is since there is no such
        camera."""
        if not self.cameras:
            return
        known = cameras(dataset)
        for name in self.cameras:
            if name not in known:
                shown = ", ".join(known[:MOST_NAMES]) or "none"
                raise UsageError(
                    f"the gallery has no camera {name!r}{nearest(name, known)}; it has {shown}"
                    + (f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else "")
                )


def cameras(dataset: lance.LanceDataset) -> list[str]:
    """Return the names of a gallery's cameras in order."""
    found: set[str] = set()
    for batch in dataset.to_batches(columns=["camera"]):
        found.update(name for name in batch.column(0).unique().to_pylist() if name is not None)
    return sorted(found, key=lambda name: (len(name), name))


def quoted(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def seconds(given: float | str | datetime | None, name: str) -> float | None:
    """Return a time in seconds: a number as it is; a date and time, such as 2026-11-29T14:02, in
    seconds since 1970, in UTC where it names no zone. Raises UsageError for anything else."""
    if given is None:
        return None
    if isinstance(given, str):
        text = given
        try:
            given = float(text)
        except ValueError:
            try:
                given = datetime.fromisoformat(text)
            except ValueError:
                raise UsageError(
                    f"{name} is {given!r}, expected seconds, such as 12.5, or a date and time, "
                    "such as 2026-11-29T14:02"
                ) from None
    if isinstance(given, datetime):
        zoned = given if given.tzinfo is not None else given.replace(tzinfo=UTC)
        return zoned.timestamp()
    if not isinstance(given, Real) or not math.isfinite(given):
        raise UsageError(f"{name} is {given!r}, expected seconds or a date and time")
    return float(given)
