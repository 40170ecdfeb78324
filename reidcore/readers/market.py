"""Market-1501 (Zheng et al., ICCV 2015) as its archive holds it, with a time for each picture."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import attrs

from reidcore.api import Facts, Row, setting
from reidcore.errors import DataError

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
FILES = {"train": 12936, "query": 3368, "gallery": 19732}
"""Published numbers of pictures in each folder, junk included."""
KEPT = {"train": 12936, "query": 3368, "gallery": 15913}
DISTRACTORS = 2798
IDENTITIES = {"train": 751, "query": 750}
JUNK, DISTRACTOR = "-1", "0000"
FRAMES_PER_SECOND = 25

# A few files of some copies end in ".jpg.jpg".
NAME = re.compile(r"(-1|\d{4})_c([1-9])s([1-9])_(\d+)_\d+(?:\.jpg)+")

Session = tuple[int, int]
"""Camera and session, both from 1."""
Clock = Literal["authors", "cumulative"]


@attrs.frozen
class Picture:
    """What the name of a picture says; frame: raw frame number within the session."""

    split: str
    file: str
    pid: str
    session: Session
    frame: int


@attrs.frozen
class Market1501:
    """Settings of `core.market1501`."""

    clock: Clock = setting(
        "how the sessions of a camera are laid end to end: as the authors of TLift do in their "
        "code, or by plain cumulation, as their paper says",
        default="authors",
    )
    distractors: bool = setting(
        "keep the gallery's distractors, identity 0000; leave them out to train on the gallery",
        default=True,
    )
    counts: Literal["published", "any"] = setting(
        "whether other numbers of pictures or identities than the published ones are refused",
        default="published",
    )

    def facts(self) -> Facts:
        counts = dict(KEPT) if self.counts == "published" else {}
        if counts and not self.distractors:
            counts["gallery"] -= DISTRACTORS
        return Facts(
            identities=IDENTITIES["train"],
            cameras=[str(number) for number in range(1, 7)],
            columns=frozenset({"camera", "time"}),
            counts=counts,
        )

    def rows(self, root: Path) -> list[Row]:
        """Rows of train, query and gallery, by file name; junk, identity -1, is left out.

        Times are the same whichever splits are used. Raises `DataError`.
        """
        root = Path(root)
        _check_folders(root)
        files = {split: _pictures(root / folder) for split, folder in FOLDERS.items()}
        pictures = _parsed(root, files)
        if self.counts == "published":
            _check_counts(root, files, pictures)
        pictures = [picture for picture in pictures if picture.pid != JUNK]
        start = offsets(latest_frames(pictures), self.clock)
        return [
            Row(
                path=str(root / FOLDERS[picture.split] / picture.file),
                pid=picture.pid,
                camera=str(picture.session[0]),
                split=picture.split,
                time=(picture.frame + start[picture.session]) / FRAMES_PER_SECOND,
                listed=f"{FOLDERS[picture.split]}/{picture.file}",
            )
            for picture in pictures
            if self.distractors or picture.pid != DISTRACTOR
        ]


def latest_frames(pictures: Iterable[Picture]) -> dict[Session, int]:
    """The largest frame number of every session that has a picture."""
    latest: dict[Session, int] = {}
    for picture in pictures:
        latest[picture.session] = max(picture.frame, latest.get(picture.session, 0))
    return latest


def offsets(latest: Mapping[Session, int], clock: Clock) -> dict[Session, int]:
    """The frame at which each session starts on its camera's clock.

    latest: largest frame number by session; sessions without a picture are absent. "cumulative"
    adds up the largest frame numbers of a camera's earlier sessions. "authors" is what the code of
    Liao and Shao, Interpretable and Generalizable Person Re-identification with Query-adaptive
    Convolution and Temporal Lifting (ECCV 2020), does: it adds the offset of the session before
    twice, if that has pictures, so that sessions from the third on are farther apart.
    """
    found: dict[Session, int] = {}
    for camera in {camera for camera, _ in latest}:
        offset = 0
        for number in range(1, 1 + max(n for c, n in latest if c == camera)):
            session = camera, number
            found[session] = offset
            if session in latest:
                offset += latest[session] + (offset if clock == "authors" else 0)
    return found


def _check_folders(root: Path) -> None:
    """DataError unless `root` has the three folders; names a folder nearby that has them."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder; extract the archive and name the folder it makes")
    missing = _missing(root)
    if not missing:
        return
    text = f"{root} is not Market-1501: it has no folder {', '.join(missing)}"
    fitting = [near for near in (root.parent, *sorted(root.iterdir())) if not _missing(near)]
    if fitting:
        raise DataError(f"{text}. {fitting[0]} has all of them; set root to it")
    raise DataError(f"{text}; root must hold {', '.join(FOLDERS.values())}")


def _missing(root: Path) -> list[str]:
    return [folder for folder in FOLDERS.values() if not os.path.isdir(root / folder)]


def _pictures(folder: Path) -> list[str]:
    """The names of a folder's pictures in order; other files, such as Thumbs.db, do not count."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".jpg") and name[0] != ".")
    if not names:
        raise DataError(f"{folder} has no .jpg pictures; extract the archive again")
    return names


def _parsed(root: Path, files: Mapping[str, list[str]]) -> list[Picture]:
    pictures, strange = [], []
    for split, names in files.items():
        for name in names:
            found = NAME.fullmatch(name)
            if found is None:
                strange.append(root / FOLDERS[split] / name)
                continue
            pid, camera, session, frame = found.groups()
            pictures.append(Picture(split, name, pid, (int(camera), int(session)), int(frame)))
    if strange:
        count = (
            "1 picture has a name" if len(strange) == 1 else f"{len(strange)} pictures have names"
        )
        raise DataError(
            f"{count} other than Market-1501's, such as 0002_c1s1_000451_03.jpg; first {strange[0]}"
        )
    return pictures


def _check_counts(root: Path, files: Mapping[str, list[str]], pictures: list[Picture]) -> None:
    """DataError if pictures or identities are not as many as published."""
    wrong = [
        f"{FOLDERS[split]} has {len(files[split]):,} pictures, expected {expected:,}"
        for split, expected in FILES.items()
        if len(files[split]) != expected
    ]
    for split, expected in IDENTITIES.items():
        found = len({picture.pid for picture in pictures if picture.split == split})
        if found != expected:
            wrong.append(f"{FOLDERS[split]} has {found} identities, expected {expected}")
    if wrong:
        raise DataError(
            f"{root} is not the whole of Market-1501: {'; '.join(wrong)}. Extract the archive "
            'again; for a part or a copy that was changed on purpose set counts = "any"'
        )
