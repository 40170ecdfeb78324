"""Keeps uploaded pictures as files, for the gallery to name; the names follow from the content."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from reidcore.errors import OutputError

YOUNG = 3600.0
"""Seconds for which a file that no row names may still be on its way into the gallery."""


def store(folder: Path, content: bytes, ending: str) -> Path:
    """Write an upload unless it is there, and return its path; it is on disk when this returns.

    Raises OutputError where it cannot be written.
    """
    path = folder / (hashlib.blake2b(content, digest_size=16).hexdigest() + ending)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.is_file():
            os.utime(path)  # young again: `sweep` leaves it alone
            return path
        handle, partial = tempfile.mkstemp(dir=folder, prefix=".partial-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        why = "the disk is full" if error.errno in (27, 28, 122) else error.strerror
        raise OutputError(f"cannot write {path}: {why}") from error
    return path


def sweep(folder: Path, named: Collection[str], forgotten: Collection[str] = ()) -> int:
    """Remove uploads that no row names, and return how many. named: sources of all rows. forgotten:
    sources that are removed however young they are."""
    removed = 0
    if not folder.is_dir():
        return 0
    for file in folder.iterdir():
        path = str(file)
        try:
            old = time.time() - file.stat().st_mtime > YOUNG
        except FileNotFoundError:
            continue
        if path not in named and (old or path in forgotten):
            file.unlink(missing_ok=True)
            removed += 1
    return removed
