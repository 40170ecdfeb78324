"""Reads files of pictures, and nothing but regular files: a pipe would wait for ever, a device may
give without end. Torch-free.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO, cast

from reidcore.errors import DataError

MOST_BYTES = 2**31
"""Larger files are refused unread: there is no picture in them that Pillow would decode."""

_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class BadPicture(DataError):
    """A file that is no picture, or a damaged one; the text is the end of a sentence that begins
    with its path, such as "is missing"."""

    def of(self, named: str) -> DataError:
        """Return the error with the whole sentence. named: the picture, in words."""
        text = str(self)
        said = text.startswith(("is missing", "is too large", "cannot be "))
        return DataError(f"{named} {text}" if said else f"{named} cannot be read: it {text}")


class BehindFile(BadPicture):
    """A path of which a part that should be a folder is a file, such as "frames.zip/0001.jpg"."""


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a picture's file. Raises BadPicture."""
    check_file(path)
    try:
        with open_regular(path) as file:
            content = file.read()
    except (OSError, ValueError) as error:
        raise BadPicture(unreadable(path, error)) from None
    if not content:
        raise BadPicture("is empty (zero bytes)")
    return content


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise BadPicture unless a regular file that is not empty lies at `path`; it is not opened."""
    try:
        state = os.stat(path)
    except NotADirectoryError as error:
        raise BehindFile(unreadable(path, error)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise BadPicture(unreadable(path, error)) from None
    if kind := _kind(state.st_mode):
        hint = "" if kind == "a folder" else ", expected a picture's file"
        raise BadPicture(f"is {kind}{hint}")
    check_size(state.st_size)


def check_size(size: int) -> None:
    """Raise BadPicture for a number of bytes that no picture has."""
    if not size:
        raise BadPicture("is empty (zero bytes)")
    if size > MOST_BYTES:
        raise BadPicture(f"has {size:,} bytes, too many for a picture")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Return a regular file, opened to read. Raises OSError, and BadPicture for other kinds."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    # Unbuffered: each small read would hand the interpreter's lock to another thread.
    file = open(path, "rb", buffering=0, opener=lambda name, _: os.open(name, flags))  # noqa: SIM115
    if kind := _kind(os.fstat(file.fileno()).st_mode):  # replaced since it was looked at
        file.close()
        raise BadPicture(f"is {kind}, expected a picture's file")
    return cast(BinaryIO, file)


def unreadable(path: str | os.PathLike[str], error: Exception) -> str:
    """Return what BadPicture says of an error of the system."""
    if isinstance(error, FileNotFoundError):
        swapped = "\\" in os.fspath(path) and os.sep == "/"
        return "is missing" + "; paths are written with '/', not '\\'" * swapped
    said = error.strerror if isinstance(error, OSError) else None
    return f"cannot be read: {said or error}"


def _kind(mode: int) -> str:
    """Return what a path leads to, in words; "" for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    return next((words for test, words in _KINDS.items() if test(mode)), "no regular file")
