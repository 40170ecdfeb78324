"""Temporary files and folders, `.NAME.TOKEN.tmp`. The process that makes one holds it by a lock, so
that what a killed process has left can be told from what another is writing."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # as on Windows: nothing is held, and nothing is removed
    LOCKS = False
else:
    LOCKS = True

LONGEST = 200
"""Bytes of a name that its temporary one begins with: file systems take names of 255."""


@contextmanager
def temporary_file(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Make a new file beside `path`; yields its path and the file, open for writing. At the end of
    the `with` block it is removed, unless it has been renamed."""
    partial, handle = _make_held(path, _new_file)
    try:
        with open(handle, "wb") as file:
            yield partial, file
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Make a new folder beside `path`, and those above it. At the end of the `with` block it is
    removed, unless it has been renamed, and with it those above that are left empty."""
    made = [above for above in path.parents if not os.path.lexists(above)]
    partial, handle = _make_held(path, _new_folder)
    try:
        yield partial
    finally:
        os.close(handle)
        shutil.rmtree(partial, ignore_errors=True)
        for above in made:
            with suppress(OSError):  # there is something in it
                above.rmdir()


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what killed processes have left in a folder: temporaries of the file or folder `name`,
    or of all, that no process holds. What cannot be looked at or removed stays."""
    stem = re.escape(_stem(name)) if name else ".+"
    pattern = re.compile(rf"\.{stem}\.[0-9a-f]+\.tmp", re.DOTALL)
    with suppress(OSError):
        for path in [one for one in folder.iterdir() if pattern.fullmatch(one.name)]:
            with suppress(OSError):
                _remove_if_left(path)


def _make_held(path: Path, make: Callable[[Path], int | None]) -> tuple[Path, int]:
    """Return the path and the descriptor of what is made beside `path`, held by this process; what
    another takes for a leftover before it is held is made again."""
    while True:
        partial = path.with_name(f".{_stem(path.name)}.{secrets.token_hex(4)}.tmp")
        handle = make(partial)
        if handle is None:
            continue
        if _hold(handle, partial):
            return partial, handle
        os.close(handle)


def _new_file(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o666)


def _new_folder(path: Path) -> int | None:
    path.mkdir(parents=True)
    try:
        return os.open(path if LOCKS else os.devnull, os.O_RDONLY)
    except FileNotFoundError:  # another has removed it
        return None


def _stem(name: str) -> str:
    return os.fsencode(name)[:LONGEST].decode(errors="ignore")


def _hold(handle: int, path: Path) -> bool:
    """Lock an open file or folder of this process; return False if another has removed it. Where
    the system cannot lock, nobody removes it."""
    if not LOCKS:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks
        return True


def _remove_if_left(path: Path) -> None:
    """Remove a temporary, unless a process holds it or nobody can tell."""
    if not LOCKS or path.is_symlink() or not (path.is_file() or path.is_dir()):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises OSError where it is held
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)
