"""MSMT17 (Wei et al., CVPR 2018) as its archives hold it, in either version."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import attrs

from reidcore.builtin.readers.common import (
    Counts,
    Listed,
    check_layout,
    check_once,
    check_present,
    lacking,
    read_list,
    refuse_part,
)
from reidcore.contracts.component import Row
from reidcore.contracts.rows import Facts
from reidcore.contracts.settings import setting
from reidcore.errors import DataError

VERSIONS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
"""Folders of the pictures to train on and to test with; those of V2 have masked faces."""

LISTS = {split: f"list_{split}.txt" for split in ("train", "val", "query", "gallery")}

LISTED = {"train": 30248, "val": 2373, "query": 11659, "gallery": 82161}
"""Published numbers of pictures in each list."""

TRAINING = ("train", "val")
TEST = ("query", "gallery")

IDENTITIES = {("train",): 1041, TRAINING: 1041, ("query",): 3060, ("gallery",): 3060, TEST: 3060}
"""Published numbers of identities in lists; val and gallery show no further people."""

CAMERAS = 15

EXAMPLE = "0000/0000_000_01_0303morning_0008_0.jpg 0"
LINE = re.compile(
    r"(?P<file>(?:[\w.-]+/)*\d+_\d+_(?P<camera>0[1-9]|1[0-5])_[\w.-]+\.jpg)\s+0*(?P<pid>\d+)"
)


@attrs.frozen
class MSMT17:
    """Settings of `core.msmt17`."""

    counts: Counts = setting(
        "whether lists of other lengths or identities than the published ones are refused",
        default="published",
    )

    def facts(self) -> Facts:
        return Facts(
            identities=IDENTITIES[TRAINING],
            cameras=[str(number) for number in range(1, 1 + CAMERAS)],
            columns=frozenset({"camera"}),
            counts=LISTED if self.counts == "published" else {},
            groups={group: IDENTITIES[group] for group in (TRAINING, TEST)},
        )

    def rows(self, root: Path) -> list[Row]:
        """Return the rows of train, val, query and gallery, in the order of the lists.

        Lists number the people to test with from 0 again, so these are "test0" and so on.

        Raises:
            DataError: The folder is another one, or not the whole data set.
        """
        root = Path(root)
        folders = VERSIONS[_version(root)]
        lists = {split: read_list(root / file, LINE, EXAMPLE) for split, file in LISTS.items()}
        if self.counts == "published":
            _check_counts(root, lists)
        rows = []
        for folder, splits in zip(folders, (TRAINING, TEST), strict=True):
            check_once(root, chain.from_iterable(lists[split] for split in splits))
            rows += [_row(root / folder, split, one) for split in splits for one in lists[split]]
        check_present(
            zip((row.path for row in rows), chain.from_iterable(lists.values()), strict=True),
            "Extract the archive again; its lists and pictures must be of one version",
        )
        return rows


def _version(root: Path) -> str:
    """Return the version of the data set in `root`.

    Raises:
        DataError: It is none, or both.
    """
    there = [version for version in VERSIONS if not lacking(root, VERSIONS[version])]
    if len(there) > 1:
        first, second = (root / VERSIONS[version][0] for version in there)
        raise DataError(
            f"{root} holds both versions of MSMT17, {first} and {second}, but the lists of one; "
            "keep each version in a folder of its own, with its lists"
        )
    either = " or ".join(f"{', '.join(VERSIONS[version])} ({version})" for version in VERSIONS)
    need = f"{', '.join(LISTS.values())}, and the folders {either}"
    check_layout(root, "MSMT17", lambda near: lacking(near, _nearest(near), LISTS.values()), need)
    return there[0]


def _nearest(root: Path) -> tuple[str, ...]:
    """Return the folders of the version of which `root` has more, of V1 where it has none."""
    return max(VERSIONS.values(), key=lambda names: sum((root / name).is_dir() for name in names))


def _row(folder: Path, split: str, listed: Listed) -> Row:
    said = listed.said
    return Row(
        path=f"{folder}/{said['file']}",
        pid=f"test{said['pid']}" if split in TEST else said["pid"],
        camera=str(int(said["camera"])),
        split=split,
        listed=str(listed),
    )


def _check_counts(root: Path, lists: dict[str, list[Listed]]) -> None:
    """Raise DataError if lists or identities are not as many as published.

    Files that no list names, which V2 has, do not count.
    """
    pids = {split: {one.said["pid"] for one in listed} for split, listed in lists.items()}
    counted = [(LISTS[s], len(listed), LISTED[s], "pictures") for s, listed in lists.items()]
    for splits, expected in IDENTITIES.items():
        files = " with ".join(LISTS[split] for split in splits)
        found = len(set().union(*(pids[split] for split in splits)))
        counted.append((files, found, expected, "identities"))
    refuse_part(root, "MSMT17", counted)
