"""Pictures of a run on which an export is compared and calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from reid_runtime.pictures import pixels
from reidcore.api import Row
from reidcore.errors import DataError, ReidError, UsageError
from reidcore.tools import Search, load, open_evaluation, open_picture, rows_of

COMPARED = 32
CALIBRATED = 128
"""Pictures that say which ranges 8 bits stand for."""


@attrs.frozen(eq=False)
class Pictures:
    """Pictures with what a network may know of them. source: which they are, in words."""

    rows: tuple[Any, ...]
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    def opened(self) -> list[Any]:
        """Return them as reid-runtime takes them."""
        return [open_picture(one) if isinstance(one, Row) else one for one in self.rows]

    def labels(self, kind: str, numbers: Mapping[str, int]) -> list[str]:
        """Return the modality or camera of each by name, one without any as the first that is
        known."""
        first = next(iter(numbers), "")
        names = (getattr(one, kind, "") for one in self.rows)
        return [name if name in numbers or kind == "camera" else first for name in names]

    def evenly(self, count: int) -> Pictures:
        """Return so many of them, evenly spaced."""
        if len(self) <= count:
            return self
        places = np.linspace(0, len(self) - 1, count).round().astype(int)
        return attrs.evolve(self, rows=tuple(self.rows[place] for place in places))


def numbers_of(record: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return {"modality" or "camera": {name: number in the graph}} of a run record."""
    training = record["training"]
    return {
        "modality": {name: number for number, name in enumerate(training.get("modalities", ()))},
        "camera": dict(training.get("camera_numbers", {})),
    }


def network_inputs(
    pictures: Pictures, search: Search, numbers: Mapping[str, Mapping[str, int]]
) -> dict[str, np.ndarray]:
    """Return all inputs of the graph of templates for some pictures."""
    data = search.plan.runfile.data
    found = [pixels(one, data.image, data.interpolation) for one in pictures.opened()]
    labels = {
        kind: np.array(
            [known.get(name, -1) for name in pictures.labels(kind, known)], dtype=np.int64
        )
        for kind, known in numbers.items()
    }
    labels["modality"] = labels["modality"].clip(min=0)
    return {"pictures": np.stack(found), **labels}


def compared_pictures(search: Search, given: Path | None) -> Pictures:
    """Return the pictures to compare numbers on: those that are given, else of the run's test set,
    else noise where that is not at hand. Raises UsageError where a single one is given, which has
    nothing to be compared with."""
    if given is not None:
        found = _listed(given).evenly(COMPARED)
        if len(found) < 2:
            raise UsageError(
                f"--pictures {given}: there is 1 picture; distances take at least 2, and numbers "
                f"are compared on {COMPARED}"
            )
        return found
    if len(rows := tested_rows(search.folder)) > 1:
        return Pictures(tuple(rows), "pictures of the test set").evenly(COMPARED)
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (COMPARED, *search.plan.runfile.data.image, 3), np.uint8)
    return Pictures(tuple(noise), "pictures of noise, as no test set is at hand")


def tested_rows(folder: Path) -> Sequence[Row]:
    """Return the pictures of the run's first test set, none where it is not at hand."""
    try:
        sets = open_evaluation(folder).test_sets
    except ReidError:
        return ()
    return next(iter(sets.values()), ())


def calibration_pictures(search: Search, given: Path | None) -> Pictures:
    """Return the pictures to calibrate 8 bits on: those that are given, else of the run's training
    set. Raises DataError where that is not at hand."""
    if given is not None:
        return _listed(given).evenly(CALIBRATED)
    plan = load(search.folder, device="cpu", losses=True).plan
    rows = [row for one in plan.data.train for row in one.rows or ()]
    if not rows:
        raise DataError(
            f"--int8 is calibrated on training pictures, and those of {search.folder} are not at "
            "hand; name others with --pictures"
        )
    return Pictures(tuple(rows), "training pictures").evenly(CALIBRATED)


def _listed(given: Path) -> Pictures:
    return Pictures(rows_of(given), f"pictures of {given}")
