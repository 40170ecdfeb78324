"""Tells errors that come of numbers and sizes which no machine can compute with. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "unable to allocate")
RANGE = ("overflow", "out of range")
LARGE = 1000
"""Numbers of settings from which on one may be what is too large."""


def is_too_much(error: BaseException, settings: Any) -> bool:
    """Return whether an exception says that memory is short, or that a number is too large, which
    then must be one of the settings."""
    text = str(error).lower()
    kinds = (RuntimeError, TypeError, ValueError)
    if isinstance(error, MemoryError) or (
        isinstance(error, kinds) and any(words in text for words in MEMORY)
    ):
        return True
    ranged = isinstance(error, kinds) and any(words in text for words in RANGE)
    return (ranged or isinstance(error, OverflowError)) and bool(largest(settings))


def largest(settings: Any, least: float = LARGE) -> str:
    """Return the largest number of nested settings, such as "backbone.width = 1e+30"; "" if none
    is `least` or more."""
    key, value = max(_numbers(settings), key=lambda item: abs(item[1]), default=("", 0))
    return f"{key} = {value}" if abs(value) >= least else ""


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner, key)
