"""CUHK03 (Li et al., CVPR 2014) as split by the new protocol (Zhong et al., CVPR 2017)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import attrs

from reidcore.builtin.readers.common import (
    Counts,
    Found,
    NamedPictures,
    check_layout,
    lacking,
    refuse_part,
)
from reidcore.contracts.component import Row
from reidcore.contracts.rows import Facts
from reidcore.contracts.settings import setting
from reidcore.errors import DataError

NAME = "CUHK03-NP"
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
FILES = {
    "detected": {"train": 7365, "query": 1400, "gallery": 5332},
    "labeled": {"train": 7368, "query": 1400, "gallery": 5328},
}
IDENTITIES = {"train": 767, "query": 700, "gallery": 700}
TEST = ("query", "gallery")
CAMERAS = ("1", "2")

ARCHIVE = NamedPictures(
    NAME,
    FOLDERS,
    re.compile(r"(?P<pid>\d{4})_c(?P<camera>[12])_\w+\.png"),
    "0003_c1_22.png",
    ".png",
)


@attrs.frozen
class CUHK03NP:
    """Settings of `core.cuhk03_np`."""

    boxes: Literal["detected", "labeled"] = setting(
        "which pictures: boxes that a detector found, or that people drew; scores of the two do "
        "not compare"
    )
    counts: Counts = setting(
        "whether other numbers of pictures or identities than the published ones are refused",
        default="published",
    )

    def facts(self) -> Facts:
        return Facts(
            identities=IDENTITIES["train"],
            cameras=CAMERAS,
            columns=frozenset({"camera"}),
            counts=FILES[self.boxes] if self.counts == "published" else {},
            groups={("train",): IDENTITIES["train"], TEST: IDENTITIES["gallery"]},
        )

    def rows(self, root: Path) -> list[Row]:
        """Return the rows of train, query and gallery, by file name.

        Args:
            root: The official archive, with the folders detected and labeled, or one of these two.

        Raises:
            DataError: The folder is another one, or not the whole data set.
        """
        root = Path(root)
        need = f"{', '.join(FOLDERS.values())}, by themselves or in a folder {self.boxes}"
        check_layout(root, f"{NAME}, {self.boxes}", self._lacks, need)
        inner = f"{self.boxes}/" if self._official(root) else ""
        found = ARCHIVE.read(root / inner)
        if self.counts == "published":
            self._check_counts(root / inner, found)
        return [
            Row(
                path=str(root / inner / FOLDERS[one.split] / one.file),
                pid=one.said["pid"],
                camera=one.said["camera"],
                split=one.split,
                listed=f"{inner}{FOLDERS[one.split]}/{one.file}",
            )
            for one in found
        ]

    @property
    def _others(self) -> str:
        return "labeled" if self.boxes == "detected" else "detected"

    def _official(self, root: Path) -> bool:
        return (root / self.boxes).is_dir()

    def _lacks(self, root: Path) -> str:
        if self._official(root):
            return lacking(root, [f"{self.boxes}/{folder}" for folder in FOLDERS.values()])
        if root.name.endswith(self._others):
            return f"folder {self.boxes}, but is {self._others} by its name"
        return lacking(root, FOLDERS.values())

    def _check_counts(self, root: Path, found: list[Found]) -> None:
        have = {split: sum(one.split == split for one in found) for split in FOLDERS}
        if have == FILES[self._others]:
            raise DataError(
                f"{root} holds as many pictures as the {self._others} boxes have; set boxes = "
                f'"{self._others}", or root to the {self.boxes} ones'
            )
        ARCHIVE.check_counts(root, found, FILES[self.boxes], IDENTITIES)
        seen = {(one.said["pid"], one.said["camera"]) for one in found if one.split == "query"}
        places = len(CAMERAS) * IDENTITIES["query"]
        refuse_part(root, NAME, [("query", len(seen), places, "pairs of identity and camera")])
