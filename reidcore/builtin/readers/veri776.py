"""VeRi-776 (Liu et al., ECCV 2016) as its archive holds it: vehicles in twenty cameras."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from reidcore.builtin.readers.common import Counts, Found, NamedPictures
from reidcore.contracts.component import Row
from reidcore.contracts.rows import Facts
from reidcore.contracts.settings import setting
from reidcore.errors import DataError

FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
FILES = {"train": 37778, "query": 1678, "gallery": 11579}
IDENTITIES = {"train": 576, "query": 200, "gallery": 200}
CAMERAS = 20

ARCHIVE = NamedPictures(
    "VeRi-776",
    FOLDERS,
    re.compile(r"(?P<pid>\d{4})_c0(?P<camera>0[1-9]|1\d|20)_\d+_\d+\.jpg"),
    "0001_c001_00016450_0.jpg",
)


@attrs.frozen
class VeRi776:
    """Settings of `core.veri776`."""

    counts: Counts = setting(
        "whether other numbers of pictures or identities than the published ones, and queries that "
        "are not in the gallery, are refused",
        default="published",
    )

    def facts(self) -> Facts:
        return Facts(
            identities=IDENTITIES["train"],
            cameras=[str(number) for number in range(1, 1 + CAMERAS)],
            columns=frozenset({"camera"}),
            counts=FILES if self.counts == "published" else {},
            groups={
                ("train",): IDENTITIES["train"],
                ("query", "gallery"): IDENTITIES["gallery"],
            },
        )

    def rows(self, root: Path) -> list[Row]:
        """Return the rows of train, query and gallery, by file name.

        The gallery holds a copy of every query picture, as published: a protocol must drop the
        pictures of a query's identity in its camera.

        Raises:
            DataError: The folder is another one, or not the whole data set.
        """
        root = Path(root)
        found = ARCHIVE.read(root)
        if self.counts == "published":
            ARCHIVE.check_counts(root, found, FILES, IDENTITIES)
            _check_queries(root, found)
        return [
            Row(
                path=str(root / FOLDERS[one.split] / one.file),
                pid=one.said["pid"],
                camera=str(int(one.said["camera"])),
                split=one.split,
                listed=f"{FOLDERS[one.split]}/{one.file}",
            )
            for one in found
        ]


def _check_queries(root: Path, found: list[Found]) -> None:
    """Raise DataError unless every query picture is in the gallery too."""
    gallery = {one.file for one in found if one.split == "gallery"}
    alone = [one.file for one in found if one.split == "query" and one.file not in gallery]
    if alone:
        count = "1 picture" if len(alone) == 1 else f"{len(alone):,} pictures"
        raise DataError(
            f"{count} of {root / FOLDERS['query']} not in {FOLDERS['gallery']}, which holds all of "
            f"them as published; first {alone[0]}. Extract the archive again, or set counts = "
            '"any"'
        )
