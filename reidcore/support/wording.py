"""Words for messages."""

from __future__ import annotations

from collections.abc import Sequence


def a_or_an(noun: str) -> str:
    """Return the noun with its article."""
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def one_line(error: BaseException) -> str:
    """The text of an exception on one line."""
    return " ".join(str(error).split())


def in_words(error: BaseException) -> str:
    """An exception's type and text on one line."""
    text = one_line(error)
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def few(names: Sequence[str], most: int = 4) -> str:
    """Return the first names, and how many more there are: `a, b, c, d and 3 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
