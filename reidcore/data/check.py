"""Checks a data set's rows and pictures before a run is spent on them. Torch-free.

Pillow is imported when pictures are decoded.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.row_labels import SPLITS
from reidcore.contracts.rows import natural_key
from reidcore.data.labels import same_number_warnings
from reidcore.data.opening import BadPicture, check_picture, cut_out, decoded, read_picture

TEST_SPLITS = frozenset(("query", "gallery", "test"))

_CHUNK = 256  # pictures handed to the threads at once, so that an interrupt is heard soon


@attrs.frozen
class Finding:
    """Something wrong with the picture of one row. own_camera: what it lacks is another camera."""

    row: Row
    reason: str
    own_camera: bool = False


@attrs.frozen
class Counts:
    """Numbers of pictures, identities and cameras of a split; 0 cameras if none is stated."""

    pictures: int
    identities: int
    cameras: int


@attrs.frozen
class Findings:
    """The findings of `check_rows`.

    counts: by split, in the order train, val, query, gallery, test. damaged: pictures that are
    missing, empty or cannot be decoded, each once. unmatched: queries that can never find a match.
    one_camera: identities seen by a single camera, if rows state cameras. duplicates: groups of
    rows with byte-identical files and at least two identities. overlap: identities both in train
    and in query, gallery or test. converted: pictures that are not plain 8-bit ones, by what is
    done to show them. copies: groups of rows with byte-identical files of one identity that are
    both searched for and found. labels: warnings of identities and
    cameras. Identities are in natural order.
    """

    counts: Mapping[str, Counts]
    damaged: Sequence[Finding]
    unmatched: Sequence[Finding]
    one_camera: Sequence[str]
    duplicates: Sequence[Sequence[Row]]
    overlap: Sequence[str]
    converted: Mapping[str, Sequence[Row]] = attrs.field(factory=dict)
    copies: Sequence[Sequence[Row]] = ()
    labels: Sequence[str] = ()

    @property
    def keep_camera(self) -> bool:
        """True if no query has a match, and pictures of the own camera would be some."""
        queries = self.counts["query"].pictures if "query" in self.counts else 0
        lack = any(found.own_camera for found in self.unmatched)
        return lack and len(self.unmatched) == queries

    @property
    def failed(self) -> bool:
        """True if the data must be mended: damaged pictures or queries without a match."""
        return bool(self.damaged or self.unmatched)


def check_rows(
    rows: Sequence[Row],
    decode: bool = True,
    threads: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> Findings:
    """Check rows and their pictures; nothing found is an error here, all of it is returned.

    With `decode` every distinct picture is read once, decoded in full and compared by content and
    box; without, only its existence and size are looked at and `duplicates` stays empty. `threads`
    defaults to the processors, at most eight. `advance(n)` is called, from this thread, after
    every `n` further pictures.
    """
    files: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        files[row.path].setdefault(row.name, row)
    each = [list(pictures.values()) for pictures in files.values()]
    look = _decode if decode else _stat
    damaged: list[Finding] = []
    same: dict[bytes, list[Row]] = defaultdict(list)
    converted: dict[str, list[Row]] = defaultdict(list)
    with warnings.catch_warnings(), ThreadPoolExecutor(threads or _threads()) as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on Exif data and palettes
        for start in range(0, len(each), _CHUNK):
            chunk = each[start : start + _CHUNK]
            for looked in pool.map(look, chunk):
                for row, reason, digest, done in looked:
                    if reason:
                        damaged.append(Finding(row, reason))
                    elif digest:
                        same[digest].append(row)
                    for what in done:
                        converted[what].append(row)
            if advance is not None:
                advance(sum(map(len, chunk)))

    return Findings(
        counts=count_rows(rows),
        damaged=damaged,
        unmatched=unmatched_queries(rows),
        one_camera=_one_camera(rows),
        duplicates=[group for group in same.values() if len({row.pid for row in group}) > 1],
        overlap=_natural(
            {row.pid for row in rows if row.split == "train"}
            & {row.pid for row in rows if row.split in TEST_SPLITS}
        ),
        converted=dict(converted),
        copies=_copies(rows, same.values()),
        labels=same_number_warnings(rows),
    )


def unmatched_queries(rows: Iterable[Row]) -> list[Finding]:
    """Return the queries that no gallery picture can match, with the reason.

    A match has the query's identity and, if the query states a camera, another camera; it is never
    the query's own file.
    """
    rows = list(rows)
    gallery: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.split == "gallery":
            gallery[row.pid].append(row)
    findings = []
    for row in rows:
        if row.split != "query":
            continue
        same = gallery.get(row.pid, [])
        others = [other for other in same if other.name != row.name]
        if not same:
            findings.append(Finding(row, f"identity {row.pid!r} is not in the gallery"))
        elif not others:
            findings.append(
                Finding(row, f"identity {row.pid!r} is in the gallery only with this same picture")
            )
        elif row.camera and all(other.camera == row.camera for other in others):
            findings.append(
                Finding(
                    row,
                    f"identity {row.pid!r} is in the gallery only in its own camera {row.camera!r}",
                    own_camera=True,
                )
            )
    return findings


def count_rows(rows: Sequence[Row]) -> dict[str, Counts]:
    """Return the counts of each split, in the order train, val, query, gallery, test."""
    pictures = Counter(row.split for row in rows)
    return {
        split: Counts(
            pictures[split],
            len({row.pid for row in rows if row.split == split}),
            len({row.camera for row in rows if row.split == split and row.camera}),
        )
        for split in SPLITS
        if split in pictures
    }


def _copies(rows: Iterable[Row], same: Iterable[Sequence[Row]]) -> list[list[Row]]:
    """Return the rows of one identity whose files are equal, but not one file, where one is a query
    and another in the gallery, or both in a pool that gives both.

    same: for each content, a row of every file that has it.
    """
    listed: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        listed[row.name].append(row)
    groups = []
    for files in same:
        by_pid: dict[str, list[Row]] = defaultdict(list)
        for file in files if len(files) > 1 else ():
            for row in listed[file.name]:
                by_pid[row.pid].append(row)
        for group in by_pid.values():
            queries = {row.name for row in group if row.split in ("query", "test")}
            found = {row.name for row in group if row.split in ("gallery", "test")}
            # A query's own file is never its match, so two files are needed.
            if queries and found and len(queries | found) > 1:
                groups.append([row for row in group if row.split in TEST_SPLITS])
    return groups


def _one_camera(rows: Iterable[Row]) -> list[str]:
    cameras: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.camera:
            cameras[row.pid].add(row.camera)
    return _natural(pid for pid, seen in cameras.items() if len(seen) == 1)


def _natural(pids: Iterable[str]) -> list[str]:
    return sorted(pids, key=natural_key)


def _threads() -> int:
    return min(8, os.cpu_count() or 1)


Looked = tuple[Row, str, bytes, Sequence[str]]
"""A row, a complaint about its picture or "", the digest of what it shows, and what was done to
show it."""


def _stat(rows: Sequence[Row]) -> list[Looked]:
    """Look whether the pictures of rows of one path exist."""
    looked: list[Looked] = []
    for row in rows:
        reason = ""
        try:
            check_picture(row)
        except BadPicture as error:
            reason = str(error)
        looked.append((row, reason, b"", ()))
    return looked


def _decode(rows: Sequence[Row]) -> list[Looked]:
    """Decode the picture of rows of one path, and look at their boxes of it."""
    try:
        content = read_picture(rows[0])
        whole = decoded(content)
    except BadPicture as error:
        return [(row, str(error), b"", ()) for row in rows]
    looked: list[Looked] = []
    for row in rows:
        try:
            found = cut_out(whole, row.box).found
        except BadPicture as error:
            looked.append((row, str(error), b"", ()))
            continue
        digest = blake2b(content, digest_size=16)
        if row.box is not None:
            digest.update(repr(row.box).encode())
        looked.append((row, "", digest.digest(), found))
    return looked
