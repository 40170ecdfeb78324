"""Locks between processes that change a gallery in a local folder. Killed processes let go of them.

Searches take none. Where there are no locks, as in an object store or on Windows, Lance still keeps
commits apart, but two adders that are given the same picture at once may both add it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMIT = "commit.lock"
"""Held while what is there is compared with what is to be added or removed, and committed."""
FILES = "files.lock"
"""Shared by those who write files that are not committed yet; held alone by who removes such."""

GATE = "gate.lock"
"""Passed by those who begin to write files; held by who waits for all of them to be done."""


@contextmanager
def held(folder: Path | None, name: str, shared: bool = False) -> Iterator[bool]:
    """Hold one of a gallery's locks, waiting for it. Yields whether it is held: there is none
    without a local folder, or where the system cannot lock."""
    try:
        import fcntl
    except ImportError:
        folder = None
    if folder is None or not folder.is_dir():
        yield False
        return
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            yield False
        else:
            yield True
    finally:
        os.close(handle)
