"""SYSU-MM01 (Wu et al., ICCV 2017): people in four visible and two near-infrared cameras."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from reidcore.builtin.readers.common import Counts, check_layout, lacking, refuse_part
from reidcore.contracts.component import Row
from reidcore.contracts.rows import Facts
from reidcore.contracts.settings import setting
from reidcore.errors import DataError

NAME = "SYSU-MM01"
CAMERAS = {
    "1": "visible",
    "2": "visible",
    "3": "infrared",
    "4": "visible",
    "5": "visible",
    "6": "infrared",
}
LISTS = {split: f"exp/{split}_id.txt" for split in ("train", "val", "test")}
IDENTITIES = {"train": 296, "val": 99, "test": 96}
FILES = {
    "train": {"visible": 20284, "infrared": 9929},
    "val": {"visible": 1974, "infrared": 1980},
    "test": {"visible": 6775, "infrared": 3803},
}


@attrs.frozen
class SYSUMM01:
    """Settings of `core.sysu_mm01`."""

    counts: Counts = setting(
        "whether other numbers of pictures or identities than the published ones are refused",
        default="published",
    )

    def facts(self) -> Facts:
        counts = {split: sum(files.values()) for split, files in FILES.items()}
        return Facts(
            identities=IDENTITIES["train"],
            cameras=list(CAMERAS),
            modalities=["visible", "infrared"],
            columns=frozenset({"camera", "modality"}),
            counts=counts if self.counts == "published" else {},
            protocol="sysu",
            groups={(split,): number for split, number in IDENTITIES.items()},
        )

    def rows(self, root: Path) -> list[Row]:
        """Return the rows of train, val and test, by identity, camera and file name.

        The protocol draws queries and gallery from test.

        Raises:
            DataError: The folder is another one, or not the whole data set.
        """
        root = Path(root)
        folders = [f"cam{camera}" for camera in CAMERAS]
        check_layout(
            root,
            NAME,
            lambda near: lacking(near, folders, LISTS.values()),
            f"cam1 to cam6 and {', '.join(LISTS.values())} (their .mat twins are not read)",
        )
        people = {split: _identities(root / file) for split, file in LISTS.items()}
        _check_apart(root, people)
        rows = [row for split in LISTS for pid in people[split] for row in _rows(root, split, pid)]
        _check_seen(root, people, rows)
        if self.counts == "published":
            _check_counts(root, people, rows)
        return rows


def _identities(path: Path) -> list[str]:
    """Return the identities of a list, ascending, as their folders are named."""
    numbers = set()
    # What is not UTF-8 is no number, and the error says so.
    for line, text in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
        for piece in text.strip().removesuffix(",").split(",") if text.strip() else ():
            number = piece.strip()
            if not (number.isascii() and number.isdecimal()):
                raise DataError(
                    f"{path} line {line}: {number[:50]!r} is no identity; expected numbers with "
                    "commas between them, such as 1,2,4"
                )
            numbers.add(int(number))
    if not numbers:
        raise DataError(f"{path} lists nobody; extract the archive again")
    return [f"{number:04d}" for number in sorted(numbers)]


def _check_apart(root: Path, people: dict[str, list[str]]) -> None:
    """Raise DataError if two lists share an identity."""
    first: dict[str, str] = {}
    for split, pids in people.items():
        for pid in pids:
            if pid in first:
                raise DataError(
                    f"{root / LISTS[split]} lists identity {pid}, which is in "
                    f"{LISTS[first[pid]]} too; extract the archive again"
                )
            first[pid] = split


def _rows(root: Path, split: str, pid: str) -> list[Row]:
    """Return the rows of a person; not everybody was seen by every camera."""
    rows = []
    for camera, modality in CAMERAS.items():
        folder = f"cam{camera}/{pid}"
        try:
            files = os.listdir(root / folder)
        except FileNotFoundError:
            continue
        rows += [
            Row(
                path=f"{root}/{folder}/{file}",
                pid=pid,
                camera=camera,
                split=split,
                modality=modality,
                listed=f"{folder}/{file}",
            )
            for file in sorted(files)
            if file.endswith(".jpg") and file[0] != "."
        ]
    return rows


def _check_seen(root: Path, people: dict[str, list[str]], rows: Sequence[Row]) -> None:
    """Raise DataError if somebody who is listed has no picture."""
    seen = {row.pid for row in rows}
    for split, pids in people.items():
        unseen = [pid for pid in pids if pid not in seen]
        if unseen:
            raise DataError(
                f"{len(unseen)} of {len(pids)} identities in {root / LISTS[split]} have no picture "
                f"in cam1 to cam6; first {unseen[0]}, whose folders would be cam1/{unseen[0]} and "
                "so on. Extract the archive again"
            )


def _check_counts(root: Path, people: dict[str, list[str]], rows: Sequence[Row]) -> None:
    """Raise DataError if people or their pictures are not as many as published."""
    have = Counter((row.split, row.modality) for row in rows)
    counted = [
        (LISTS[split], len(pids), IDENTITIES[split], "identities") for split, pids in people.items()
    ]
    counted += [
        (f"split {split}", have[split, modality], expected, f"{modality} pictures")
        for split, files in FILES.items()
        for modality, expected in files.items()
    ]
    refuse_part(root, NAME, counted)
