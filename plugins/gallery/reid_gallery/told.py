"""Lance's errors as sentences for the person who can act on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reidcore.errors import DataError, OutputError, ReidError, UsageError, nearest

GONE = re.compile(r"not found|No such file", re.IGNORECASE)
_CONDITION = "Error applying filter"
_FULL = re.compile(r"No space left|File too large|Quota|quota|os error (28|27|122)")
_DENIED = re.compile(r"Permission denied|Read-only file system|os error (13|30)|AccessDenied")


def short(error: BaseException) -> str:
    """Return Lance's words in one line, without places in its source."""
    text = re.sub(r",?\s*/?[\w./-]*rust/[\w./-]+:\d+:\d+", "", str(error))
    text = re.sub(
        r"(Invalid user input|LanceError\(\w+\)|Error parsing statement|External error"
        r"|Query Execution error|Error applying filter expression to batch): ",
        "",
        text,
    )
    return " ".join(text.split())[:300].rstrip(" ,.")


@contextmanager
def told(place: str, where: str = "") -> Iterator[None]:
    """Raise ReidError for what Lance or the system says against reading or writing at `place`.

    where: a user's condition that rows are asked for, which may fail on a row, as 1 / 0 does.
    """
    try:
        yield
    except ReidError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        text = str(error)
        if where and _CONDITION in text:
            raise condition_error(where, error, ()) from error
        if _FULL.search(text):
            why = "the disk is full" if "arge" not in text else "the file may not grow further"
            raise OutputError(
                f"cannot write {place}: {why}; what was there is unchanged"
            ) from error
        if _DENIED.search(text):
            raise OutputError(f"cannot write or read {place}: {short(error)}") from error
        if "conflict" in text.lower():
            raise OutputError(
                f"{place} is being changed by several programs at once: {short(error)}; do it again"
            ) from error
        raise DataError(f"{place} cannot be read: {short(error)}") from error


def condition_error(where: str, error: BaseException, columns: Sequence[str]) -> UsageError:
    """Return what is wrong with a condition in SQL."""
    text = str(error)
    if unknown := re.search(r"No field named \"?([^\s\".]+)", text):
        name = unknown[1]
        return UsageError(
            f"--where {where!r}: the gallery has no column {name!r}{nearest(name, columns)}; it "
            f"has {', '.join(columns)}. Texts stand in single quotes"
        )
    if literal := re.search(r"literal (\w+)\((.*?)\) and could not convert .*type '(\w+)", text):
        kind, value, wanted = literal.groups()
        of = "text" if kind == "Utf8" else "a number"
        holds = {"Utf8": "texts, which stand in single quotes, such as '3'"}.get(
            wanted, f"values of the type {wanted}"
        )
        shown = value.strip("\"'")
        return UsageError(f"--where {where!r}: {shown} is {of}, but the column holds {holds}")
    if _CONDITION in text:
        return UsageError(f"--where {where!r} cannot be told of every row: {short(error)}")
    return UsageError(f"--where {where!r} is no condition in SQL: {short(error)}")
