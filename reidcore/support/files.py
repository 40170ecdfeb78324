"""Writes files and folders atomically. `json_files` reads JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reidcore.errors import DataError, UsageError


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write a file so that its readers see all of the old one or all of the new one: beside `path`,
    flushed to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: Path | None) -> None:
    """Raise UsageError for a file that cannot be written there, before work is done for it."""
    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.absolute().parent}")
    if path is not None and path.is_dir():
        raise UsageError(f"{path} is a folder; name a file")


def check_new(folder: Path) -> None:
    """Raise UsageError if there is something at `folder`."""
    if folder.exists():
        raise UsageError(f"{folder.absolute()} exists already; name a new folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder to write into, which becomes `folder` when the `with` block ends well.

    Raises UsageError if the folder exists, DataError if it cannot be written.
    """
    check_new(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, folder)
    except OSError as error:
        raise DataError(f"cannot write {folder.absolute()}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
