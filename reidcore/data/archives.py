"""Pictures in zip archives. Members are read into memory; nothing is unpacked. Torch-free."""

from __future__ import annotations

import os
import stat
from collections import Counter, OrderedDict
from pathlib import Path, PurePosixPath
from threading import Lock
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import attrs

from reidcore.data.picture_files import BadPicture, check_size, open_regular, unreadable
from reidcore.errors import DataError
from reidcore.support.wording import in_words, shortened

SMALL = 2**26
"""Bytes that a member may have however well it is packed."""
MOST_PACKED = 100
"""A larger member that is packed better than so many to one is no picture, but made to fill memory.
"""
_MOST_OPEN = 16
_ENCRYPTED = 0x1


@attrs.frozen
class ZipMember:
    """Opens a picture in a zip. archive: its absolute path. member: the picture's name in it."""

    archive: str
    member: str

    def read(self) -> bytes:
        """Return the member's content. Raises BadPicture."""
        held, info = self._found()
        try:
            with held.lock:  # zipfile counts its open members without one
                stream = held.file.open(info)
            try:
                return stream.read(info.file_size)  # and no more, whatever is packed there
            finally:
                with held.lock:
                    stream.close()
        except OSError as error:
            raise BadPicture(unreadable(self.archive, error)) from None
        except Exception as error:  # of several packers, and of damaged archives
            raise BadPicture(f"cannot be unpacked: {shortened(in_words(error), 200)}") from None

    def check(self) -> None:
        """Raise BadPicture unless the archive has the member and it may be read."""
        self._found()

    def _found(self) -> tuple[_Held, ZipInfo]:
        held = _OPEN.archive(self.archive)
        try:
            info = held.file.getinfo(self.member)
        except KeyError:
            raise BadPicture("is missing") from None
        if info.is_dir():
            raise BadPicture("is a folder")
        if info.flag_bits & _ENCRYPTED:
            raise BadPicture("is encrypted; make a zip without a password")
        if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise BadPicture("is packed in an unusual way; make a zip by 'deflate' or 'store'")
        check_size(info.file_size)
        if info.compress_size > held.state[1]:
            raise BadPicture(f"is said to take more bytes than {self.archive} has")
        if info.file_size > max(SMALL, MOST_PACKED * info.compress_size):
            raise BadPicture(
                f"grows from {info.compress_size:,} to {info.file_size:,} bytes when it is "
                "unpacked, which no picture does"
            )
        return held, info


def member_at(path: str | os.PathLike[str]) -> ZipMember | None:
    """Return the member that a path through an archive leads to, such as "frames.zip/0001.jpg";
    None if no part of the path is a zip."""
    archive, inner = os.fspath(path), ""
    while True:
        archive, name = os.path.split(archive)
        if not name:
            return None
        inner = f"{name}/{inner}" if inner else name
        if os.path.isfile(archive):
            break
    member = ZipMember(archive, inner)
    if is_archive(archive):
        return member  # what is wrong with it is told when it is read
    try:
        _OPEN.archive(archive)
    except BadPicture:
        return None
    return member


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names a zip: a regular file whose name ends so."""
    return Path(path).suffix.lower() == ".zip" and Path(path).is_file()


def archive_names(archive: Path) -> list[str]:
    """Return the names of a zip's files in its order, without hidden ones.

    Raises DataError for an archive that cannot be read, and for names that are listed twice or are
    no plain paths inside the archive.
    """
    try:
        members = _OPEN.archive(str(archive)).file.namelist()
    except BadPicture as error:
        raise error.of(str(archive)) from None
    names = [name for name in members if not name.endswith("/")]
    for name in names:
        path = PurePosixPath(name)
        if path.as_posix() != name or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise DataError(
                f"{archive} has a member of the name {shortened(name, 200)!r}, expected a plain "
                "path such as shots/0001.jpg"
            )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{archive} has two members of the name {shortened(twice[0], 200)!r}")
    return [name for name in names if not any(one.startswith(".") for one in name.split("/"))]


def read_member(archive: Path, member: str) -> bytes:
    """Return the content of a member that is no picture. Raises DataError."""
    try:
        return ZipMember(str(archive), member).read()
    except BadPicture as error:
        raise error.of(f"{archive}/{member}") from None


@attrs.frozen(eq=False)
class _Held:
    """An open archive. state: what tells that the file has been replaced."""

    state: tuple[int, ...]
    file: ZipFile
    lock: Lock = attrs.field(factory=Lock)


class _OpenArchives:
    """The archives that this process has open, the last used last.

    A forked process starts with none: a file that two processes read has one place in it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def archive(self, path: str) -> _Held:
        """Return an archive, opened if it is not open or has changed. Raises BadPicture."""
        try:
            found = os.stat(path)
            state = (found.st_ino, found.st_size, found.st_mtime_ns)
            with self._lock:
                held = self._held.pop(path, None)
                if held is None or held.state != state:
                    if not stat.S_ISREG(found.st_mode):
                        raise BadPicture("is in no regular file")
                    held = _Held(state, _opened(path))
                self._held[path] = held
                if len(self._held) > _MOST_OPEN:
                    self._held.popitem(last=False)  # closed when its last reader is done
            return held
        except BadPicture:
            raise
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else None
            raise BadPicture(f"cannot be read: {path}: {said or error}") from None
        except BadZipFile as error:
            raise BadPicture(f"cannot be read: {path} is no sound zip: {error}") from None
        except Exception as error:
            raise BadPicture(f"cannot be read: {path}: {shortened(in_words(error), 200)}") from None


def _opened(path: str) -> ZipFile:
    file = open_regular(path)
    try:
        return ZipFile(file)
    except BaseException:
        file.close()
        raise


_OPEN = _OpenArchives()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_OPEN.__init__)  # type: ignore[misc]
