"""VehicleID (Liu et al., CVPR 2016) as its archive holds it: vehicles without cameras."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

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

NAME = "VehicleID"
FOLDER = "image"
LISTS = "train_test_split"

IDENTITIES = 13164
"""Published number of vehicles to train on."""

LINE = re.compile(r"(?P<file>[\w-]+)\s+0*(?P<pid>\d+)")


@attrs.frozen
class VehicleID:
    """Settings of `core.vehicleid`."""

    test_list: Literal[800, 1600, 2400, 3200, 6000, 13164] = setting(
        "the list of test vehicles, by their number; papers give scores for 800 (small), 1600 "
        "(medium) and 2400 (large)",
        default=800,
    )
    counts: Counts = setting(
        "whether other numbers of vehicles in the lists than the published ones are refused",
        default="published",
    )

    def facts(self) -> Facts:
        # Papers give different numbers of pictures.
        return Facts(
            identities=IDENTITIES,
            columns=frozenset(),
            protocol="vehicleid",
            groups={("train",): IDENTITIES, ("test",): self.test_list},
        )

    def rows(self, root: Path) -> list[Row]:
        """Return the rows of train and of the chosen test list, in the order of the lists.

        The protocol draws queries and gallery from test.

        Raises:
            DataError: The folder is another one, or not the whole data set.
        """
        root = Path(root)
        files = {
            "train": f"{LISTS}/train_list.txt",
            "test": f"{LISTS}/test_list_{self.test_list}.txt",
        }
        check_layout(
            root,
            NAME,
            lambda near: lacking(near, [FOLDER], files.values()),
            f"{FOLDER}, {', '.join(files.values())}",
        )
        lists = {split: read_list(root / file, LINE, "0000001 1") for split, file in files.items()}
        _check_lists(root, lists)
        if self.counts == "published":
            self._check_counts(root, lists)
        named = [
            (f"{root}/{FOLDER}/{one.said['file']}.jpg", split, one)
            for split, listed in lists.items()
            for one in listed
        ]
        check_present(((path, one) for path, _, one in named), "Extract the archive again")
        return [
            Row(path=path, pid=one.said["pid"], split=split, listed=str(one))
            for path, split, one in named
        ]

    def _check_counts(self, root: Path, lists: dict[str, list[Listed]]) -> None:
        """Raise DataError if vehicles are not as many as published."""
        expected = {"train": IDENTITIES, "test": self.test_list}
        refuse_part(
            root,
            NAME,
            (
                (
                    listed[0].list,
                    len({one.said["pid"] for one in listed}),
                    expected[split],
                    "vehicles",
                )
                for split, listed in lists.items()
            ),
        )


def _check_lists(root: Path, lists: dict[str, list[Listed]]) -> None:
    """Raise DataError if a picture is listed twice, or a vehicle for training and for test."""
    check_once(root / LISTS, [one for listed in lists.values() for one in listed])
    trained = {one.said["pid"]: one for one in reversed(lists["train"])}
    for one in lists["test"]:
        pid = one.said["pid"]
        if pid in trained:
            raise DataError(
                f"{one} of {root / LISTS}: vehicle {pid} is in {trained[pid]} too; no vehicle may "
                "be in train and test"
            )
