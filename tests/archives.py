"""Trees in the layout of published archives, and reading them as a run does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reidcore.data.datasets import DataPlan
from reidcore.data.load_data import load_sources
from reidcore.runfiles.runfile import Source


def write(root: Path, folders: Mapping[str, Iterable[str]]) -> Path:
    """Empty pictures of these names in these folders below root; readers do not open them."""
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            os.close(os.open(f"{root}/{folder}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    return root


def plan(
    reader: Any, root: Path, *splits: str, role: str = "train", allow_missing: bool = False
) -> DataPlan:
    """The reader's data set as an entry of data.train or data.test."""
    source = Source(role, ("data", role), root=str(root), splits=splits, name="archive")
    return load_sources([(source, reader)], make=False, allow_missing=allow_missing)


def vehicleid_lists(root: Path, lines: Mapping[str, list[str]]) -> Path:
    """Write the lists of an archive of VehicleID."""
    (root / "train_test_split").mkdir(exist_ok=True)
    for name, listed in lines.items():
        text = "".join(f"{line}\n" for line in listed)
        (root / "train_test_split" / f"{name}.txt").write_text(text)
    return root


def regdb_lists(root: Path, trial: int, lines: Mapping[str, list[str]]) -> Path:
    """Write the lists of a trial of RegDB."""
    (root / "idx").mkdir(exist_ok=True)
    for name, listed in lines.items():
        (root / "idx" / f"{name}_{trial}.txt").write_text("".join(f"{one}\n" for one in listed))
    return root
