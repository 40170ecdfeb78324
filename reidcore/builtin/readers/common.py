"""Helpers for readers of published archives: find folders, list pictures, refuse incomplete copies.

Torch-free and NumPy-free.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

from reidcore.errors import DataError

Counts = Literal["published", "any"]
"""Setting of readers: refuse numbers other than the published ones, or take any."""


@attrs.frozen
class Found:
    """A picture of an archive.

    Attributes:
        split: The split it belongs to.
        file: Its name without the folder.
        said: Match of the name, whose groups say identity, camera and so on.
    """

    split: str
    file: str
    said: re.Match[str]


@attrs.frozen
class NamedPictures:
    """An archive with a folder for each split, in which names of pictures say everything else.

    Attributes:
        name: Name of the data set, for messages.
        folders: Name of the folder of each split.
        pattern: Pattern of a whole file name, with a group `pid`.
        example: One of the file names, for messages.
        ending: Ending of the file names.
    """

    name: str
    folders: Mapping[str, str]
    pattern: re.Pattern[str]
    example: str
    ending: str = ".jpg"

    def read(self, root: Path) -> list[Found]:
        """Return the pictures of all folders, by split and name.

        Raises:
            DataError: A folder is missing or empty, or a picture has another kind of name.
        """
        folders = list(self.folders.values())
        check_layout(root, self.name, lambda near: lacking(near, folders), ", ".join(folders))
        found, strange = [], []
        for split, folder in self.folders.items():
            for file in pictures(root / folder, self.ending):
                said = self.pattern.fullmatch(file)
                if said is None:
                    strange.append(root / folder / file)
                else:
                    found.append(Found(split, file, said))
        if strange:
            count = (
                "1 picture has a name"
                if len(strange) == 1
                else f"{len(strange)} pictures have names"
            )
            raise DataError(
                f"{count} other than {self.name}'s, such as {self.example}; first {strange[0]}"
            )
        return found

    def check_counts(
        self,
        root: Path,
        found: Sequence[Found],
        files: Mapping[str, int],
        identities: Mapping[str, int],
    ) -> None:
        """Raise DataError if a split has another number of pictures or identities than expected."""
        have = Counter(one.split for one in found)
        seen = Counter(split for split, _ in {(one.split, one.said["pid"]) for one in found})
        counted = [(self.folders[s], have[s], number, "pictures") for s, number in files.items()]
        counted += [
            (self.folders[s], seen[s], number, "identities") for s, number in identities.items()
        ]
        refuse_part(root, self.name, counted)


def check_layout(root: Path, name: str, lacks: Callable[[Path], str], need: str) -> None:
    """Raise DataError unless a folder is the data set's; the text names one nearby that is.

    Args:
        root: The folder.
        name: Name of the data set.
        lacks: Function that returns what a folder lacks, such as "folder query", or "".
        need: All that the folder must hold, in words.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; extract the archive and name the folder it makes")
    lacking_here = lacks(root)
    if not lacking_here:
        return
    text = f"{root} is not {name}: it has no {lacking_here}"
    with os.scandir(root) as entries:
        inner = sorted(root / entry.name for entry in entries if entry.is_dir())
    fitting = [near for near in (root.parent, *inner) if not lacks(near)]
    if fitting:
        raise DataError(f"{text}. {fitting[0]} has all of them; set root to it")
    raise DataError(f"{text}; root must hold {need}")


def lacking(root: Path, folders: Iterable[str], files: Iterable[str] = ()) -> str:
    """Return, in words, the folders and files that are missing in `root`; "" if none is."""
    gone = {
        "folder": [name for name in folders if not os.path.isdir(root / name)],
        "file": [name for name in files if not os.path.isfile(root / name)],
    }
    return " and no ".join(f"{kind} {', '.join(names)}" for kind, names in gone.items() if names)


def pictures(folder: Path, ending: str = ".jpg") -> list[str]:
    """Return the names of a folder's pictures in order, without other files such as Thumbs.db.

    Raises:
        DataError: There are none.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(ending) and name[0] != ".")
    if not names:
        raise DataError(f"{folder} has no {ending} pictures; extract the archive again")
    return names


@attrs.frozen
class Listed:
    """A line of a list file.

    Attributes:
        list: Name of the file.
        line: Number of the line, from 1.
        said: Match of the line, whose groups say file and identity.
    """

    list: str
    line: int
    said: re.Match[str]

    def __str__(self) -> str:
        return f"{self.list} line {self.line}"


def read_list(path: Path, pattern: re.Pattern[str], example: str) -> list[Listed]:
    """Return the lines of a list file, without empty ones.

    Args:
        path: The file.
        pattern: Pattern of a whole line.
        example: A line that fits, for messages.

    Raises:
        DataError: A line does not fit the pattern, or there are none.
    """
    listed, strange = [], []
    # What is not UTF-8 fits no pattern or names no picture, so that the error names its line.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, text in enumerate(map(str.strip, file), 1):
            said = pattern.fullmatch(text)
            if said is not None:
                listed.append(Listed(path.name, number, said))
            elif text:
                strange.append((number, text))
    if strange:
        number, text = strange[0]
        count = "1 line" if len(strange) == 1 else f"{len(strange)} lines"
        raise DataError(
            f"{count} of {path} not such as {example!r}; first line {number}: {text[:100]!r}"
        )
    if not listed:
        raise DataError(f"{path} lists nothing; extract the archive again")
    return listed


def check_once(folder: Path, listed: Iterable[Listed]) -> None:
    """Raise DataError if a list has a picture twice, or two lists give it two identities.

    The patterns of the lists have the groups `file` and `pid`.
    """
    seen: dict[str, dict[str, Listed]] = {}
    for one in listed:
        lists = seen.setdefault(one.said["file"], {})
        for other in lists.values():
            if one.said["pid"] != other.said["pid"]:
                wrong = f"has identity {one.said['pid']}, but {other.said['pid']} in {other}"
            elif one.list == other.list:
                wrong = f"is listed already in line {other.line}"
            else:
                continue
            raise DataError(f"{one} of {folder}: {one.said['file']} {wrong}")
        lists[one.list] = one


def check_present(files: Iterable[tuple[str, Listed]], hint: str) -> None:
    """Raise DataError if a listed file is not there.

    Args:
        files: Path of each file, with the line that lists it.
        hint: Advice at the end of the message.
    """
    # Folders are listed, because asking for every picture takes minutes on a network drive.
    names: dict[str, frozenset[str]] = {}
    absent = []
    for path, listed in files:
        folder, name = os.path.split(path)
        if folder not in names:
            try:
                names[folder] = frozenset(os.listdir(folder))
            except (FileNotFoundError, NotADirectoryError):
                names[folder] = frozenset()
        if name not in names[folder]:
            absent.append((path, listed))
    if absent:
        count = (
            "1 listed picture is" if len(absent) == 1 else f"{len(absent):,} listed pictures are"
        )
        path, listed = absent[0]
        raise DataError(f"{count} not there; first {path} ({listed}). {hint}")


def refuse_part(root: Path, name: str, counted: Iterable[tuple[str, int, int, str]]) -> None:
    """Raise DataError unless every number is as published.

    Args:
        root: Folder of the data set.
        name: Name of the data set.
        counted: The place, the number found, the number expected, and the noun counted.
    """
    wrong = [
        f"{place} has {found:,} {what}, expected {expected:,}"
        for place, found, expected, what in counted
        if found != expected
    ]
    if wrong:
        raise DataError(
            f"{root} is not the whole of {name}: {'; '.join(wrong)}. Extract the archive "
            'again; for a part or a copy that was changed on purpose set counts = "any"'
        )
