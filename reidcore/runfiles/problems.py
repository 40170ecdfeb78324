"""Collects the problems of a run file, each with the line it stands in. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from reidcore.errors import RunFileError
from reidcore.runfiles.key_lines import KeyLines
from reidcore.runfiles.strict import Fault
from reidcore.runfiles.value_words import dotted


class Problems:
    """Problems of a run file, each with its place there, to be raised together.

    texts: the messages so far. unusable: tables that are so wrong that what refers into them is
    not checked.
    """

    def __init__(self, path: Path, lines: KeyLines):
        self.path = path
        self.lines = lines
        self.texts: list[str] = []
        self.unusable: set[str] = set()

    def add(self, path: Sequence[str | int], place: str, text: str) -> None:
        """Note a problem once; `place` is the table in the user's words, such as "[data]"."""
        file = self.lines.set_by(path) or self.lines.place(path, self.path)
        message = f"{file}: {place}: {text}" if place else f"{file}: {text}"
        if message not in self.texts:
            self.texts.append(message)

    def add_faults(self, path: Sequence[str | int], place: str, faults: Iterable[Fault]) -> None:
        """Note the faults inside the table at the path."""
        for fault in faults:
            if "unknown key" in fault.text:  # which the text names
                at = f" in {dotted(fault.path[:-1])}" if fault.path[:-1] else ""
            else:
                at = f" at {dotted(fault.path)}" if fault.path else ""
            text, comma, hint = fault.text.partition(", did you mean")
            self.add((*path, *fault.path), place, text + at + comma + hint)

    def raise_any(self) -> None:
        """Raise `RunFileError` if there is a problem."""
        if self.texts:
            raise RunFileError(self.texts)
