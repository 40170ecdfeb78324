"""Finds the lines of a run file that messages are about. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from reidcore.runfiles.keys import KeyPath
from reidcore.support.wording import one_line_of

_KEY = r"""(?:[\w\-]+|"[^"\\]*"|'[^']*')"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"


def _split_keys(text: str) -> list[str]:
    return [key.strip("\"'") for key in re.findall(_KEY, text)]


class KeyLines:
    """The line of every table and key of a TOML text, for messages; 0 where it is unknown.

    found: line by path. sets: paths that `--set` has changed, with its key=value as typed.
    replaced: tables that come from another file, with its path and lines.
    """

    def __init__(self, text: str):
        self.found: dict[KeyPath, int] = {}
        self.sets: dict[KeyPath, str] = {}
        self.replaced: dict[KeyPath, tuple[Path, KeyLines]] = {}
        table: KeyPath = ()
        counts: dict[KeyPath, int] = {}
        for number, line in enumerate(text.split("\n"), 1):
            header = re.match(rf"\s*(\[\[?)\s*({_KEYS})\s*\]", line)
            key = re.match(rf"\s*({_KEYS})\s*=", line)
            if header:
                table = self._inside(_split_keys(header[2]), counts)
                for length in range(1, len(table)):
                    self.found.setdefault(table[:length], number)
                if header[1] == "[[":
                    self.found.setdefault(table, number)
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                self.found.setdefault(table, number)
            elif key:
                steps = _split_keys(key[1])
                self.found.setdefault((*table, ".".join(steps)), number)
                for length in range(len(steps)):
                    self.found.setdefault((*table, *steps[: length + 1]), number)

    @staticmethod
    def _inside(keys: Sequence[str], counts: Mapping[KeyPath, int]) -> KeyPath:
        """Return the path of the table `[keys]`; after a `[[head]]`, `[head.x]` is in that."""
        path: KeyPath = ()
        for key in keys[:-1]:
            path = (*path, key)
            path = (*path, counts[path]) if path in counts else path
        return (*path, keys[-1])

    def set_by(self, path: Sequence[str | int]) -> str:
        """Return the `--set key=value` that has put there what stands at the path, else ""."""
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self.sets:
                return f"--set {one_line_of(self.sets[tuple(path[:length])])}"
        return ""

    def replace(self, path: KeyPath, file: Path, lines: KeyLines) -> None:
        """Note that the table at the path comes from another file."""
        self.replaced[path] = (file, lines)
        self.sets = {at: text for at, text in self.sets.items() if at[: len(path)] != path}

    def place(self, path: Sequence[str | int], file: Path) -> str:
        """Return `file:line` of what stands at the path, `file` alone if its line is unknown."""
        lines = self
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self.replaced:
                file, lines = self.replaced[tuple(path[:length])]
        line = lines.of(path)
        return f"{file.name}:{line}" if line else file.name

    def of(self, path: Sequence[str | int]) -> int:
        """Return the line of what stands at the path, or of the innermost table around it."""
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self.found:
                return self.found[tuple(path[:length])]
        return 0
