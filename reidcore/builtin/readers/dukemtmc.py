"""DukeMTMC-reID as its archive held it, with times on one clock; withdrawn by its owners."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from reidcore.builtin.readers.common import Counts, NamedPictures
from reidcore.contracts.component import Row
from reidcore.contracts.rows import Facts
from reidcore.contracts.settings import setting

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
FILES = {"train": 16522, "query": 2228, "gallery": 17661}
IDENTITIES = {"train": 702, "query": 702, "gallery": 1110}
FRAMES_PER_SECOND = 59.94

OFFSETS = {1: 5542, 2: 3606, 3: 27243, 4: 31181, 5: 0, 6: 22401, 7: 18967, 8: 46765}
"""The frame on the common clock at which each camera's film begins."""

ARCHIVE = NamedPictures(
    "DukeMTMC-reID",
    FOLDERS,
    re.compile(r"(?P<pid>\d{4})_c(?P<camera>[1-8])_f(?P<frame>\d+)\.jpg"),
    "0005_c2_f0046985.jpg",
)


@attrs.frozen
class DukeMTMC:
    """Settings of `core.dukemtmc`."""

    counts: Counts = setting(
        "whether other numbers of pictures or identities than the published ones are refused",
        default="published",
    )

    def facts(self) -> Facts:
        return Facts(
            identities=IDENTITIES["train"],
            cameras=[str(camera) for camera in OFFSETS],
            columns=frozenset({"camera", "time"}),
            counts=FILES if self.counts == "published" else {},
            groups={
                ("train",): IDENTITIES["train"],
                ("query", "gallery"): IDENTITIES["gallery"],
            },
        )

    def rows(self, root: Path) -> list[Row]:
        """Return the rows of train, query and gallery, by file name.

        Raises:
            DataError: The folder is another one, or not the whole data set.
        """
        root = Path(root)
        found = ARCHIVE.read(root)
        if self.counts == "published":
            ARCHIVE.check_counts(root, found, FILES, IDENTITIES)
        return [
            Row(
                path=str(root / FOLDERS[one.split] / one.file),
                pid=one.said["pid"],
                camera=one.said["camera"],
                split=one.split,
                time=seconds(int(one.said["camera"]), int(one.said["frame"])),
                listed=f"{FOLDERS[one.split]}/{one.file}",
            )
            for one in found
        ]


def seconds(camera: int, frame: int) -> float:
    """Return the time of a camera's frame, in seconds on the clock that all eight cameras share.

    It is computed as in Liao and Shao, Interpretable and Generalizable Person Re-identification
    with Query-adaptive Convolution and Temporal Lifting (ECCV 2020).
    """
    return (frame + OFFSETS[camera]) / FRAMES_PER_SECOND
