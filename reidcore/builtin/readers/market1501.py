"""Market-1501 (Zheng et al., ICCV 2015) as its archive holds it, with a time for each picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import attrs

from reidcore.builtin.readers.common import Counts, Found, NamedPictures
from reidcore.contracts.component import Row
from reidcore.contracts.rows import Facts
from reidcore.contracts.settings import setting

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

FILES = {"train": 12936, "query": 3368, "gallery": 19732}
"""Published numbers of pictures in each folder, junk included."""

KEPT = {"train": 12936, "query": 3368, "gallery": 15913}
"""The same without junk."""

DISTRACTORS = 2798
IDENTITIES = {"train": 751, "query": 750}

JUNK = "-1"
"""Identity of pictures that show no person, or only a part."""

DISTRACTOR = "0000"
"""Identity of gallery pictures that show nobody from the queries."""

FRAMES_PER_SECOND = 25

ARCHIVE = NamedPictures(
    "Market-1501",
    FOLDERS,
    # A few files of some copies end in ".jpg.jpg".
    re.compile(r"(?P<pid>-1|\d{4})_c([1-9])s([1-9])_(\d+)_\d+(?:\.jpg)+"),
    "0002_c1s1_000451_03.jpg",
)

Session = tuple[int, int]
"""Camera and session, both from 1."""

Clock = Literal["authors", "cumulative"]
"""Way in which the sessions of a camera are laid end to end, see `offsets`."""


@attrs.frozen
class Picture:
    """A picture with all that its name says.

    Attributes:
        split: The split it belongs to.
        file: Its name without the folder.
        pid: Identity.
        session: Camera and session.
        frame: Number of the frame within the session.
    """

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
    counts: Counts = setting(
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
            groups={
                ("train",): IDENTITIES["train"],
                # All distractors are of one identity.
                ("query", "gallery"): IDENTITIES["query"] + self.distractors,
            },
        )

    def rows(self, root: Path) -> list[Row]:
        """Return the rows of train, query and gallery without junk, by file name.

        Times are the same whichever splits are used.

        Raises:
            DataError: The folder is another one, or not the whole data set.
        """
        root = Path(root)
        found = ARCHIVE.read(root)
        if self.counts == "published":
            ARCHIVE.check_counts(root, found, FILES, IDENTITIES)
        pictures = [_picture(one) for one in found if one.said["pid"] != JUNK]
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


def _picture(found: Found) -> Picture:
    pid, camera, session, frame = found.said.groups()
    return Picture(found.split, found.file, pid, (int(camera), int(session)), int(frame))


def latest_frames(pictures: Iterable[Picture]) -> dict[Session, int]:
    """Return the largest frame number of every session that has a picture."""
    latest: dict[Session, int] = {}
    for picture in pictures:
        latest[picture.session] = max(picture.frame, latest.get(picture.session, 0))
    return latest


def offsets(latest: Mapping[Session, int], clock: Clock) -> dict[Session, int]:
    """Return the frame at which each session starts on its camera's clock.

    Args:
        latest: Largest frame number by session; sessions without a picture are absent.
        clock: "cumulative" adds up the largest frame numbers of a camera's earlier sessions.
            "authors" follows the code of Liao and Shao, Interpretable and Generalizable Person
            Re-identification with Query-adaptive Convolution and Temporal Lifting (ECCV 2020): it
            adds the offset of the session before twice, if that has pictures, so that sessions from
            the third on are farther apart.
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
