"""Reads the text of a run file, and its TOML. Torch-free."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from reidcore.errors import DataError, RunFileError, UsageError, nearest
from reidcore.support.wording import one_line_of

_TOO_LONG = re.compile(r"[0-9](_?[0-9]){4300}")


TOO_LONG = "an integer of more than 4,300 digits cannot be read; TOML's have at most 64 bits"


def read_text(path: Path) -> str:
    """Return the text of a run file.

    Raises `UsageError` naming the absolute path tried and the nearest name, `DataError` for a file
    that the system does not let be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"no run file at {path.absolute()}{_similar(path)}") from None
    except IsADirectoryError:
        raise UsageError(f"{path.absolute()} is a folder, not a run file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from None
    except OSError as error:
        raise DataError(f"{path.absolute()} cannot be read: {error.strerror or error}") from None


def _similar(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (there is no folder {folder.absolute()})"
    return nearest(path.name, [p.name for p in folder.glob("*.toml")])


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Return the tables of a run file; `RunFileError` names the line that is not TOML."""
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        line = _first_wrong_line(text, getattr(error, "lineno", 0))
        source = text.split("\n")[line - 1].strip()
        quoted = f" in {one_line_of(repr(source))}" if source else ""
        raise RunFileError([f"{path.name}:{line}: not valid TOML{quoted}: {error}"]) from None
    except ValueError:  # Python reads at most 4,300 digits
        lines = enumerate(text.split("\n"), 1)
        line, key = next((n, s.partition("=")[0].strip()) for n, s in lines if _TOO_LONG.search(s))
        raise RunFileError([f"{path.name}:{line}: {one_line_of(key)}: {TOO_LONG}"]) from None
    except RecursionError:
        raise RunFileError([f"{path.name}: not valid TOML: nested too deeply"]) from None


def _first_wrong_line(text: str, noticed: int) -> int:
    """Return the line, from 1, where the first statement begins that is not valid TOML.

    Where a bracket or quote is left open, that is above the line in which the parser noticed (0 if
    unknown).
    """
    import tomli

    lines = text.split("\n")
    for good in range((noticed or len(lines)) - 1, 0, -1):
        try:
            tomli.loads("\n".join(lines[:good]))
        except ValueError:
            continue
        return next((n for n in range(good, len(lines)) if lines[n].strip()), good) + 1
    return 1
