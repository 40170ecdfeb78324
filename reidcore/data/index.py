"""Lists one's own pictures as manifest rows, from their file names. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.row_labels import SPLITS
from reidcore.contracts.rows import natural_key
from reidcore.data.archives import ZipMember, archive_names, is_archive
from reidcore.errors import DataError, UsageError, nearest

FIELDS = ("pid", "camera", "time", "modality", "split")
ONE_FOLDER_EACH = "{pid}/*"
"""The default pattern: one folder per identity."""

PICTURES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""Endings, in lower case, of the files that are looked at."""


@attrs.frozen
class Index:
    """The pictures of a folder.

    rows: the pictures that fit the pattern, in natural order of their paths. unmatched: the paths,
    relative to the folder, of those that do not. others: number of files that are no pictures, by
    their ending.
    """

    rows: list[Row]
    unmatched: list[str]
    others: int


def index_folder(folder: Path, pattern: str = ONE_FOLDER_EACH) -> Index:
    """Return the pictures under `folder`, in sub-folders too, or in a zip, by a pattern of their
    paths.

    In the pattern, `{pid}`, `{camera}`, `{time}` (seconds), `{modality}` and `{split}` stand for at
    least one character, `*` for any number and `?` for one, none of them for "/"; `**/` stands for
    any number of sub-folders. All take as few characters as possible, from the left. A field that
    stands twice must have the same text both times. Without `{split}` every row is "train". Hidden
    files and folders are skipped, links are followed. Raises `UsageError` for a wrong pattern and
    if no picture fits it, `DataError` if the folder or the pictures are missing.
    """
    fits = compile_pattern(pattern)
    folder = _existing(folder)
    rows: list[Row] = []
    unmatched: list[str] = []
    others = 0
    opener = _opener(folder)
    for inner in _names(folder):
        if os.path.splitext(inner)[1].lower() not in PICTURES:
            others += 1
        elif (match := fits(inner)) is None or not match["pid"].strip():
            unmatched.append(inner)
        else:
            row = _row(match.groupdict(), os.path.join(folder, inner), inner, pattern)
            rows.append(attrs.evolve(row, opener=opener(inner)))
    if not rows and not unmatched:
        raise _no_pictures(folder, others)
    if not rows:
        hint = "Give the names' layout with --pattern, such as '{pid}_c{camera}_*.jpg'."
        if pattern != ONE_FOLDER_EACH:
            hint = "Fields and * do not reach over '/'; upper and lower case differ."
            hint += " {time} takes numbers only." * ("{time}" in pattern)
        raise UsageError(
            f"none of the {len(unmatched)} pictures under {folder} fits the pattern {pattern!r}; "
            f"the first are {some(unmatched)}. {hint}"
        )
    return Index(rows, unmatched, others)


def list_pictures(folder: Path) -> list[Row]:
    """Return every picture under `folder`, in sub-folders too, or in a zip, without labels.

    They are in natural order of their paths; hidden files are skipped. Raises `DataError` if there
    is none.
    """
    folder = _existing(folder)
    files = _names(folder)
    found = [name for name in files if os.path.splitext(name)[1].lower() in PICTURES]
    if not found:
        raise _no_pictures(folder, len(files))
    opener = _opener(folder)
    return [
        Row(os.path.join(folder, name), "", split="gallery", listed=name, opener=opener(name))
        for name in found
    ]


def _existing(folder: Path) -> Path:
    folder = Path(folder).absolute()
    if not folder.is_dir() and not is_archive(folder):
        found = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}; expected a folder of pictures")
    return folder


def _names(folder: Path) -> list[str]:
    """Return the paths of a folder's or a zip's files, relative to it, in natural order."""
    names = archive_names(folder) if is_archive(folder) else _files(str(folder))
    return sorted(names, key=natural_key)


def _opener(folder: Path) -> Callable[[str], ZipMember | None]:
    """Return what makes the opener of a picture in this zip; in a folder, pictures have none."""
    return partial(ZipMember, str(folder)) if is_archive(folder) else lambda name: None


def _no_pictures(folder: Path, others: int) -> DataError:
    return DataError(
        f"no pictures under {folder}: {others} files, none of them ends in "
        f"{', '.join(sorted(PICTURES))}"
    )


def compile_pattern(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return the function that matches paths with a pattern, see `index_folder`.

    Raises `UsageError` for a wrong pattern.
    """
    expression = ""
    seen: set[str] = set()
    for token in re.findall(r"\{[^{}]*\}|\*\*/|[*?{}]|[^*?{}]+", pattern.removeprefix("./")):
        if token in ("{", "}"):
            raise UsageError(f"pattern {pattern!r} has a {token!r} without its other half")
        name = token[1:-1]
        if token[0] != "{":
            wild = {"**/": "(?:[^/]+/)*?", "*": "[^/]*?", "?": "[^/]"}
            expression += wild.get(token) or re.escape(token)
        elif name not in FIELDS:
            close = nearest(name, FIELDS)
            listing = ", ".join(f"{{{field}}}" for field in FIELDS)
            raise UsageError(
                f"pattern {pattern!r}: unknown field {token}{close}. Fields: {listing}"
            )
        elif name in seen:
            expression += f"(?P={name})"
        else:
            value = r"[0-9]{1,15}?(?:\.[0-9]+)?" if name == "time" else "[^/]+?"
            expression += f"(?P<{name}>{value})"
        seen.add(name)
    if "pid" not in seen:
        raise UsageError(
            f"pattern {pattern!r} has no {{pid}}, which stands for the identity, "
            "as in '{pid}_c{camera}_*.jpg'"
        )
    return re.compile(expression, re.DOTALL).fullmatch


def some(names: Sequence[str], most: int = 3) -> str:
    """Return the first names, for messages: "a, b, c and 4 more"."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _row(fields: dict[str, str], path: str, inner: str, pattern: str) -> Row:
    fields = {name: value.strip() for name, value in fields.items()}
    split = fields.get("split", "train")
    if split not in SPLITS:
        close = nearest(split.lower(), SPLITS)
        raise UsageError(
            f"pattern {pattern!r}: {inner} has the split {split!r}{close}. "
            f"Splits: {', '.join(SPLITS)}"
        )
    time = float(fields["time"]) if "time" in fields else None
    camera, modality = fields.get("camera", ""), fields.get("modality", "")
    return Row(path, fields["pid"], camera, split, time, modality, inner)


def _files(folder: str, inner: str = "", above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the paths of a folder's files at any depth, relative to it, with forward slashes."""
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that holds it
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{entry.path!a} has a name that is not UTF-8; rename it") from None
        if _is_folder(entry):
            yield from _files(entry.path, f"{inner}{entry.name}/", above | {real})
        else:
            yield inner + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself is listed, and refused where it is opened
        return False
