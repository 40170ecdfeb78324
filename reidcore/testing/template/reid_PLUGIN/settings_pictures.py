"""The reader `PLUGIN.pictures`: its config is the reader."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from reidcore.api import Facts, Row
from reidcore.errors import DataError

SPLITS = ("train", "query", "gallery")
FILE = re.compile(r"(?P<pid>\d{4})_c(?P<camera>\d+)_\d+\.jpg")


@attrs.frozen
class Pictures:
    """ROOT/SPLIT/PID_cCAMERA_NUMBER.jpg, as `reid data demo ROOT` draws them."""

    def facts(self) -> Facts:
        """What is known without the folder, here of a drawing with the usual settings."""
        return Facts(
            identities=60,
            cameras=("1", "2", "3", "4"),
            columns=frozenset({"camera"}),
            counts={"train": 840, "query": 160, "gallery": 540},
        )

    def rows(self, root: Path) -> list[Row]:
        """All pictures, in the order of their names. Raises `DataError`."""
        rows = []
        for split in SPLITS:
            for path in sorted((root / split).glob("*.jpg")):
                said = FILE.fullmatch(path.name)
                if said is None:
                    raise DataError(f"{path}: expected a name such as 0001_c1_01.jpg")
                listed = f"{split}/{path.name}"
                rows.append(Row(str(path), said["pid"], said["camera"], split, listed=listed))
        if not rows:
            raise DataError(
                f"{root}: no pictures in {', '.join(SPLITS)}; draw them with "
                f"`reid data demo {root}`"
            )
        return rows
