"""The text of a run file: reading it, and finding the line that a message is about. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reidcore.errors import RunFileError, UsageError, nearest
from reidcore.runfiles.strict import Fault, dotted

_KEY = r"""(?:[\w\-]+|"[^"\\]*"|'[^']*')"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"


def _split_keys(text: str) -> list[str]:
    return [key.strip("\"'") for key in re.findall(_KEY, text)]


class Lines:
    """Finds the line of a table or key in TOML text, for messages; best effort, 0 if unknown."""

    def __init__(self, text: str):
        self.found: dict[tuple[str | int, ...], int] = {}
        self.sets: dict[tuple[str | int, ...], str] = {}
        """What `--set` has changed: path -> key=value as typed."""
        self.replaced: dict[tuple[str | int, ...], tuple[Path, Lines]] = {}
        """Tables that come from another file."""
        table: tuple[str | int, ...] = ()
        counts: dict[tuple[str | int, ...], int] = {}
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
    def _inside(
        keys: Sequence[str], counts: Mapping[tuple[str | int, ...], int]
    ) -> tuple[str | int, ...]:
        """The path of `[keys]`: below `[[head]]`, `[head.x]` belongs to the last head."""
        path: tuple[str | int, ...] = ()
        for key in keys[:-1]:
            path = (*path, key)
            path = (*path, counts[path]) if path in counts else path
        return (*path, keys[-1])

    def set_by(self, path: Sequence[str | int]) -> str:
        """`--set key=value` if that put there what stands at the path, else ""."""
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self.sets:
                return f"--set {self.sets[tuple(path[:length])]}"
        return ""

    def replace(self, path: tuple[str | int, ...], file: Path, lines: Lines) -> None:
        """What stands at the path comes from another file."""
        self.replaced[path] = (file, lines)
        self.sets = {at: text for at, text in self.sets.items() if at[: len(path)] != path}

    def place(self, path: Sequence[str | int], file: Path) -> str:
        """`file:line` of what stands at the path, `file` alone where the line is unknown."""
        lines = self
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self.replaced:
                file, lines = self.replaced[tuple(path[:length])]
        line = lines.of(path)
        return f"{file.name}:{line}" if line else file.name

    def of(self, path: Sequence[str | int]) -> int:
        for length in range(len(path), 0, -1):
            if tuple(path[:length]) in self.found:
                return self.found[tuple(path[:length])]
        return 0


class Problems:
    """Collects problems with their place in the file, to be raised together."""

    def __init__(self, path: Path, lines: Lines):
        self.path = path
        self.lines = lines
        self.texts: list[str] = []

    def add(self, path: Sequence[str | int], place: str, text: str) -> None:
        file = self.lines.set_by(path) or self.lines.place(path, self.path)
        message = f"{file}: {place}: {text}" if place else f"{file}: {text}"
        if message not in self.texts:
            self.texts.append(message)

    def faults(self, path: Sequence[str | int], place: str, faults: Iterable[Fault]) -> None:
        for fault in faults:
            at = (
                f" at {dotted(fault.path)}"
                if fault.path and "unknown key" not in fault.text
                else ""
            )
            inside = fault.path[:-1] if "unknown key" in fault.text else ()
            at = f" in {dotted(inside)}" if inside else at
            text, comma, hint = fault.text.partition(", did you mean")
            self.add((*path, *fault.path), place, text + at + comma + hint)

    def done(self) -> None:
        if self.texts:
            raise RunFileError(self.texts)


def read_text(path: Path) -> str:
    """The file's text. Raises `UsageError` naming the absolute path tried and the nearest name."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no run file at {path.absolute()}{_similar(path)}") from None
    except IsADirectoryError:
        raise UsageError(f"{path.absolute()} is a folder, not a run file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise UsageError(f"{path.absolute()} cannot be read: {error.strerror or error}") from None


def _similar(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (there is no folder {folder.absolute()})"
    return nearest(path.name, [p.name for p in folder.glob("*.toml")])


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        line = _statement(text, getattr(error, "lineno", 0))
        source = text.split("\n")[line - 1].strip()
        quoted = f" in {source!r}" if source else ""
        raise RunFileError([f"{path.name}:{line}: not valid TOML{quoted}: {error}"]) from None
    except RecursionError:
        raise RunFileError([f"{path.name}: not valid TOML: nested too deeply"]) from None


def _statement(text: str, noticed: int) -> int:
    """The line, from 1, at which the first statement begins that is not valid TOML. Where a bracket
    or quote is left open, that is above the line in which the parser noticed (0 if unknown)."""
    import tomli

    lines = text.split("\n")
    for good in range((noticed or len(lines)) - 1, 0, -1):
        try:
            tomli.loads("\n".join(lines[:good]))
        except tomli.TOMLDecodeError:
            continue
        return next((n for n in range(good, len(lines)) if lines[n].strip()), good) + 1
    return 1
