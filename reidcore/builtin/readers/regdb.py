"""RegDB (Nguyen et al., Sensors 2017): people in one visible and one thermal camera, ten trials."""

from __future__ import annotations

import re
from collections import Counter
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

NAME = "RegDB"
FOLDERS = {"visible": "Visible", "thermal": "Thermal"}
MODALITIES = {"visible": "visible", "thermal": "infrared"}
SPLITS = ("train", "test")

IDENTITIES = 206
"""Published number of identities in every list."""

EACH = 10
"""Published number of pictures of each identity in every list."""

Lists = dict[tuple[str, str], list[Listed]]
"""Lines by split and kind."""


@attrs.frozen
class RegDB:
    """Settings of `core.regdb`."""

    trial: int = setting(
        "which of the ten published divisions into people to train on and people to test with",
        default=1,
        at_least=1,
        at_most=10,
    )
    counts: Counts = setting(
        "whether lists of other lengths or identities than the published ones are refused",
        default="published",
    )

    def facts(self) -> Facts:
        pictures = len(FOLDERS) * IDENTITIES * EACH
        return Facts(
            identities=IDENTITIES,
            modalities=list(MODALITIES.values()),
            columns=frozenset({"modality"}),
            counts=dict.fromkeys(SPLITS, pictures) if self.counts == "published" else {},
            protocol="regdb",
            groups={(split,): IDENTITIES for split in SPLITS},
        )

    def rows(self, root: Path) -> list[Row]:
        """Return the rows of train and test of the trial, by list and line, visible ones first.

        Lists number the people to test with from 0 again, so these are "test0" and so on. The
        protocol takes one modality of test as queries and the other as gallery.

        Raises:
            DataError: The folder is another one, or not the whole data set.
        """
        root = Path(root)
        files = {(split, kind): self._list(split, kind) for split in SPLITS for kind in FOLDERS}
        check_layout(
            root,
            NAME,
            lambda near: lacking(near, FOLDERS.values(), files.values()),
            f"{', '.join(FOLDERS.values())} and {', '.join(files.values())}",
        )
        lists = {
            (split, kind): read_list(root / file, _line(FOLDERS[kind]), _example(kind))
            for (split, kind), file in files.items()
        }
        _check_lists(root, lists)
        if self.counts == "published":
            _check_counts(root, lists)
        named = [
            (f"{root}/{one.said['file']}", split, kind, one)
            for (split, kind), listed in lists.items()
            for one in listed
        ]
        check_present(((path, one) for path, _, _, one in named), "Extract the archive again")
        return [
            Row(
                path=path,
                pid=f"test{one.said['pid']}" if split == "test" else one.said["pid"],
                split=split,
                modality=MODALITIES[kind],
                listed=str(one),
            )
            for path, split, kind, one in named
        ]

    def _list(self, split: str, kind: str) -> str:
        return f"idx/{split}_{kind}_{self.trial}.txt"


def _line(folder: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<file>{folder}/(?P<person>\d+)/[\w.-]+\.bmp)\s+0*(?P<pid>\d+)")


def _example(kind: str) -> str:
    return f"{FOLDERS[kind]}/285/male_back_{kind[0]}_05528_285.bmp 0"


def _check_lists(root: Path, lists: Lists) -> None:
    """Raise DataError if a picture is listed twice, or a person for training and for test."""
    trained: dict[str, Listed] = {}
    for (split, _), listed in lists.items():
        check_once(root, listed)
        for one in listed:
            person = one.said["person"]
            if split == "train":
                trained.setdefault(person, one)
            elif person in trained:
                raise DataError(
                    f"{one} of {root / 'idx'}: the person of folder {person} is in "
                    f"{trained[person]} too; nobody may be in train and test of a trial"
                )


def _check_counts(root: Path, lists: Lists) -> None:
    """Raise DataError if lists or identities are not as many as published."""
    counted = []
    for split in SPLITS:
        people: set[str] = set()
        for kind in FOLDERS:
            listed = lists[split, kind]
            file, have = listed[0].list, Counter(one.said["pid"] for one in listed)
            people |= have.keys()
            full = sum(number == EACH for number in have.values())
            counted += [
                (file, len(listed), IDENTITIES * EACH, "pictures"),
                (file, full, IDENTITIES, f"identities with {EACH} pictures"),
            ]
        both = " with ".join(lists[split, kind][0].list for kind in FOLDERS)
        counted.append((both, len(people), IDENTITIES, "identities"))
    refuse_part(root, NAME, counted)
