"""Reads JSON files strictly: whatever does not fit is named by its file and key. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from reidcore.errors import DataError
from reidcore.support.files import read_text
from reidcore.support.wording import one_line_of

DEEPEST = 200
"""Tables and lists inside each other, far more than any file of ours has."""
MOST_DIGITS = 300
"""Of an integer, which then is within the range of floating point."""
LONGEST_KEY = 120
"""Characters of a key that a message shows."""


@attrs.frozen
class _TooLong:
    """An integer of more than MOST_DIGITS digits."""

    digits: int


@attrs.frozen
class Found:
    """A value in a JSON file and its place there.

    What is taken out of it is checked: a value of another type, a key that is missing, a number
    that is none raise DataError, which names the file and the dotted key.
    """

    value: Any
    file: Path
    key: str = ""

    def refused(self, expected: str) -> DataError:
        """Return the error for a value that is not what was expected."""
        where = one_line_of(self.key, LONGEST_KEY) if self.key else "it"
        return DataError(
            f"{self.file} is damaged: {where} is {_in_words(self.value)}, expected {expected}"
        )

    def get(self, key: str) -> Found | None:
        """Return what stands under a key of a table, None if there is no such key."""
        return self.table().get(key)

    def __getitem__(self, key: str) -> Found:
        found = self.get(key)
        if found is None:
            inner = one_line_of(self._inside(key).key, LONGEST_KEY)
            raise DataError(f"{self.file} is damaged: the key {inner} is missing")
        return found

    def table(self) -> dict[str, Found]:
        """Return a table's keys with what stands under them."""
        if not isinstance(self.value, dict):
            raise self.refused("a table")
        return {key: self._inside(key, value) for key, value in self.value.items()}

    def items(self) -> list[Found]:
        """Return what is in a list."""
        if not isinstance(self.value, list):
            raise self.refused("a list")
        return [
            attrs.evolve(self, value=value, key=f"{self.key}[{index}]")
            for index, value in enumerate(self.value)
        ]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.refused("a text")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.refused("true or false")
        return self.value

    def integer(self, at_least: int) -> int:
        """Return an integer that is no less, and has less than 64 bits."""
        if type(self.value) is not int or not at_least <= self.value < 1 << 63:
            raise self.refused(f"an integer of at least {at_least}")
        return self.value

    def number(self, at_least: float = -math.inf) -> float:
        """Return a finite number."""
        if type(self.value) not in (int, float) or not math.isfinite(self.value):
            raise self.refused("a number")
        if self.value < at_least:
            raise self.refused(f"a number of at least {at_least:g}")
        return float(self.value)

    def _inside(self, key: str, value: Any = None) -> Found:
        return attrs.evolve(self, value=value, key=f"{self.key}.{key}" if self.key else key)


def read_found(path: Path) -> Found:
    """Return what a JSON file holds. Raises DataError if it is missing, cannot be read or is
    damaged."""
    return parsed(read_text(path), path)


def parsed(text: str, path: Path) -> Found:
    """Return what a JSON text in a file holds. Raises DataError if it is damaged."""
    try:
        found = Found(json.loads(text, parse_int=_integer), path)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is damaged: it is not JSON: {error}") from None
    except RecursionError:
        raise DataError(f"{path} is damaged: it is nested too deeply") from None
    _check(found)
    return found


def read_json(path: Path) -> Any:
    """Return what a JSON file holds. Raises DataError if it is missing or damaged."""
    return read_found(path).value


def _integer(text: str) -> int | _TooLong:
    digits = len(text.lstrip("-"))
    return int(text) if digits <= MOST_DIGITS else _TooLong(digits)


def _check(found: Found) -> None:
    """Refuse what nothing can work with, wherever it stands."""
    level = [found]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return
    raise DataError(f"{level[0].file} is damaged: it is nested too deeply")


def _inside(found: Found) -> Iterator[Found]:
    """Yield what is in a table or list, once what it is itself has been checked."""
    value = found.value
    if isinstance(value, _TooLong):
        raise found.refused(f"one of at most {MOST_DIGITS}")
    texts = [*value] if isinstance(value, dict) else [value] if isinstance(value, str) else []
    if any(not _is_unicode(text) for text in texts):
        raise found.refused("text that is Unicode")
    if isinstance(value, dict):
        yield from found.table().values()
    elif isinstance(value, list):
        yield from found.items()


def _is_unicode(text: str) -> bool:
    """Return whether a text can be written; JSON's escapes can spell half of a character."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def _in_words(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, _TooLong):
        return f"an integer of {value.digits} digits"
    if isinstance(value, int | float):
        return f"the number {one_line_of(repr(value), LONGEST_KEY)}"
    if isinstance(value, str):
        return f"the text {one_line_of(ascii(value), LONGEST_KEY)}"
    return "a list" if isinstance(value, list) else "a table"
