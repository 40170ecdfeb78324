"""Listing one's own pictures as manifest rows, from their file names, and drawing splits.

This module imports neither torch nor numpy.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.rows import SPLITS, natural_key
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
    """What a folder holds.

    rows: the pictures that fit the pattern, in natural order of their paths. unmatched: the paths,
    relative to the folder, of those that do not. others: number of files that are no pictures, by
    their ending.
    """

    rows: list[Row]
    unmatched: list[str]
    others: int


@attrs.frozen
class Draw:
    """Rows with their drawn splits; without_query: test identities that could get no query."""

    rows: list[Row]
    without_query: list[str]


def index_folder(folder: Path, pattern: str = ONE_FOLDER_EACH) -> Index:
    """List the pictures under `folder`, in sub-folders too, by a pattern of their paths.

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
    for inner in sorted(_files(str(folder)), key=natural_key):
        if os.path.splitext(inner)[1].lower() not in PICTURES:
            others += 1
        elif (match := fits(inner)) is None or not match["pid"].strip():
            unmatched.append(inner)
        else:
            rows.append(_row(match.groupdict(), os.path.join(folder, inner), inner, pattern))
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
    """Every picture under `folder`, in sub-folders too, in natural order of their paths, without
    labels. Hidden files are skipped. Raises `DataError` if there is none."""
    folder = _existing(folder)
    files = sorted(_files(str(folder)), key=natural_key)
    found = [name for name in files if os.path.splitext(name)[1].lower() in PICTURES]
    if not found:
        raise _no_pictures(folder, len(files))
    return [Row(os.path.join(folder, name), "", split="gallery", listed=name) for name in found]


def _existing(folder: Path) -> Path:
    folder = Path(folder).absolute()
    if not folder.is_dir():
        found = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}; expected a folder of pictures")
    return folder


def _no_pictures(folder: Path, others: int) -> DataError:
    return DataError(
        f"no pictures under {folder}: {others} files, none of them ends in "
        f"{', '.join(sorted(PICTURES))}"
    )


def compile_pattern(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """The matcher of a pattern, see `index_folder`; raises `UsageError`."""
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


def draw_splits(rows: Sequence[Row], fraction: float, seed: int = 0) -> Draw:
    """Give `fraction` (0 to 1) of the identities to train, the others to query and gallery.

    At least one identity stays on either side unless `fraction` is 0 or 1 (a single identity
    trains). A test identity gets one query from each camera, as far as every query keeps a match
    from another camera in the gallery; without cameras, one query if it has two pictures. The draw
    follows from the seed and the pids, cameras and file names alone: the order of the rows and
    where they lie change nothing, and a further identity moves hardly any other.
    """
    if not 0 <= fraction <= 1:
        raise UsageError(f"the split must be a fraction from 0 to 1, got {fraction:g}")

    def lot(*fields: str) -> bytes:
        return sha256("\0".join((str(seed), *fields)).encode("utf-8", "surrogateescape")).digest()

    pids = sorted({row.pid for row in rows}, key=lot)
    count = int(fraction * len(pids) + 0.5)
    if 0 < fraction < 1:
        count = max(1, min(count, len(pids) - 1))
    train = set(pids[:count])

    cameras: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.pid not in train:
            cameras[row.pid][row.camera].append(row)

    def picture_lot(row: Row) -> tuple[bytes, str]:
        # Equal file names in several folders: the whole path decides, the same wherever they lie.
        return lot(row.pid, row.camera, os.path.basename(row.path)), row.path

    queries: set[str] = set()
    without = []
    for pid, seen in cameras.items():
        drawn = [
            min(seen[camera], key=picture_lot)
            for camera in _query_cameras(
                {camera: len(pictures) for camera, pictures in seen.items()},
                lambda camera, pid=pid: lot(pid, camera),  # type: ignore[misc]
            )
        ]
        queries.update(row.path for row in drawn)
        if not drawn:
            without.append(pid)

    def split(row: Row) -> str:
        if row.pid in train:
            return "train"
        return "query" if row.path in queries else "gallery"

    result = [attrs.evolve(row, split=split(row)) for row in rows]
    return Draw(result, sorted(without, key=natural_key))


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, for messages: "a, b, c and 4 more"."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _query_cameras(pictures: dict[str, int], lot: Callable[[str], bytes]) -> list[str]:
    """The cameras that give a query, of one identity's numbers of pictures by camera.

    A query is matched by what the other cameras leave in the gallery, so two cameras must leave
    something; a camera with a single picture leaves something only if it gives no query.
    """
    if set(pictures) == {""}:
        return [""] if pictures[""] > 1 else []
    giving = {camera: count for camera, count in pictures.items() if camera}
    if len(giving) < 2:
        return []
    single = sorted((camera for camera, count in giving.items() if count == 1), key=lot)
    if len(giving) - len(single) < 2:
        del giving[single[0]]
    return list(giving)


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
    """Paths, relative to the first folder, of its files at any depth, with forward slashes."""
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
        if entry.is_dir():
            yield from _files(entry.path, f"{inner}{entry.name}/", above | {real})
        else:
            yield inner + entry.name
