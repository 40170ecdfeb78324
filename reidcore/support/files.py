"""Writes files and folders atomically, and reads text. `json_files` reads JSON.

What the system says against writing becomes an `OutputError`, a sentence that names the path.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from reidcore.errors import DataError, OutputError, UsageError
from reidcore.support.temporaries import remove_leftovers, temporary_file, temporary_folder

STREAMS = "/dev/std", "/dev/fd/", "/proc/"
"""What the names of open files begin with, as in `-o /dev/stdout`."""


@contextmanager
def writing(path: Path, kept: str = "") -> Iterator[None]:
    """Raise OutputError where what the `with` block writes at `path` cannot be written. kept: words
    at the end of its text, on what is there now."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, kept) from error


def cannot_write(path: Path, error: OSError, kept: str = "") -> OutputError:
    """Return the error for a file or folder that the system does not let be written."""
    gone = isinstance(error, FileNotFoundError) and not os.path.isdir(path.parent)
    why = f"there is no folder {path.parent}" if gone else error.strerror or str(error)
    return OutputError(f"cannot write {_full(path)}: {why}{kept}")


def write_atomically(path: Path, data: str | bytes) -> None:
    """Write a file as `open_atomically` does, where all of it is in memory."""
    # A path that is not UTF-8 must not end a run; it is written as "caf\\udce9".
    content = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    with open_atomically(path) as file:
        file.write(content)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write into so that readers see all of the old one or all of the new one: it
    lies beside `path`, and is flushed to disk and renamed when the `with` block ends well. A link
    stays one; a device or pipe is written as it is.

    Raises `reidcore.errors.OutputError` where it cannot be written; the old file is then unchanged.
    An OSError in the block counts as one of writing.
    """
    there = os.path.isfile(path)
    kept = "; the file that was there is unchanged" if there else "; no file was made"
    if _is_stream(path):
        with writing(path), open(path, "wb") as stream:
            yield stream
        return
    place = Path(os.path.realpath(path)) if os.path.islink(path) else path
    with writing(path, kept), temporary_file(place) as (partial, file):
        yield file
        file.flush()
        os.fsync(file.fileno())
        if os.name == "nt":
            file.close()  # Windows renames no open file
        os.replace(partial, place)


def _is_stream(path: Path) -> bool:
    """Return True for a device, a pipe or another name of an open file."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if stat.S_ISREG(mode):
        return str(path).startswith(STREAMS)
    return not stat.S_ISDIR(mode)


def check_output(path: Path | None) -> None:
    """Raise UsageError for a file that has no folder or is one, OutputError for one that cannot be
    written there, before work is done for it. None is fine.

    Removes what a killed process has left of an earlier attempt.
    """
    if path is None:
        return
    above, folder = _above(path), _full(path).parent
    if above != folder and os.path.isdir(above) and _allows(above, os.X_OK):
        raise UsageError(f"{path}: there is no folder {folder}")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder; name a file")
    if _is_stream(path):
        _require(_allows(path, os.W_OK), path, errno.EACCES)
        return
    check_room(path)
    remove_leftovers(folder, path.name)


def check_new(folder: Path) -> None:
    """Raise UsageError if there is something at `folder`, OutputError if no folder can be made
    there, before work is done for it.

    Removes what a killed process has left of an earlier attempt.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{_full(folder)} exists already; name a new folder")
    check_room(folder)
    remove_leftovers(folder.parent, folder.name)


def _allows(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _above(path: Path) -> Path:
    """What is there of the folders above a path: the lowest one, or what stands in its place."""
    return next(one for one in _full(path).parents if os.path.lexists(one) or not one.name)


def check_room(path: Path) -> None:
    """Raise OutputError unless a file or folder can be made at `path`, with the folders above it,
    as far as permissions tell."""
    above = _above(path)
    _require(os.path.isdir(above), path, errno.ENOTDIR, f": {above}")
    if not _allows(above, os.W_OK | os.X_OK):
        read_only = hasattr(os, "statvfs") and os.statvfs(above).f_flag & os.ST_RDONLY
        _require(False, path, errno.EROFS if read_only else errno.EACCES, f": {above}")


def _require(fine: bool, path: Path, number: int, where: str = "") -> None:
    if not fine:
        raise OutputError(f"cannot write {_full(path)}: {os.strerror(number)}{where}")


def _full(path: Path) -> Path:
    """The absolute path, unless the current folder has gone."""
    with suppress(OSError):
        return path.absolute()
    return path


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder to write into, which becomes `folder` when the `with` block ends well.

    Raises UsageError if the folder exists, OutputError if it cannot be written; then nothing is
    left of it.
    """
    check_new(folder)
    kept = "; nothing was left there"
    partial = None
    try:
        with temporary_folder(folder) as partial:
            yield partial
            os.replace(partial, folder)
    except OutputError as error:  # of a file inside, whose path nobody knows
        if not isinstance(error.__cause__, OSError):
            raise
        raise cannot_write(folder, error.__cause__, kept) from error.__cause__
    except OSError as error:
        if partial is not None and _is_elsewhere(error, partial):
            raise
        raise cannot_write(folder, error, kept) from error


def _is_elsewhere(error: OSError, folder: Path) -> bool:
    """Return True if a system's error names what does not lie in the folder."""
    named = error.filename
    if not isinstance(named, str | bytes | os.PathLike):
        return False
    return not _full(Path(os.fsdecode(named))).is_relative_to(_full(folder))


def remove_file(path: Path) -> None:
    """Remove a file if it is there. Raises OutputError where it cannot be removed."""
    if os.path.lexists(path):
        with writing(path, "; it cannot be removed"):
            path.unlink(missing_ok=True)


def reserve(handle: int, size: int) -> None:
    """Make an open, new file `size` bytes long, with room on the disk for all of them: a process
    that writes into a mapped file whose disk is full is killed. Raises OSError where there is no
    room."""
    if not size:
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except (AttributeError, OSError) as error:
        unknown = errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS
        if isinstance(error, OSError) and error.errno not in unknown:
            raise
        zeros, written = bytes(min(size, 1 << 20)), 0
        while written < size:
            written += os.pwrite(handle, zeros[: size - written], written)


def not_there(path: Path) -> DataError:
    """Return the error for a file that a library could not open: it is missing, or unreadable."""
    try:
        with open(path, "rb"):
            return DataError(f"{_full(path)} cannot be opened")
    except FileNotFoundError:
        return DataError(f"{_full(path)} is missing")
    except OSError as error:
        return DataError(f"{_full(path)} cannot be read: {error.strerror or error}")


def read_text(path: Path) -> str:
    """Return the text of a file that a program has written. Raises DataError if it is missing,
    cannot be read, is empty or is not UTF-8."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except IsADirectoryError:
        raise DataError(f"{path} is damaged: it is a folder, expected a file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: it is not UTF-8: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if not text.strip():
        raise DataError(f"{path} is damaged: it is empty")
    return text


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
