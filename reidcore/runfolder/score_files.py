"""Reads the files of scores, and means.csv, that a run folder has. Torch-free."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reidcore.errors import DataError
from reidcore.protocols.score_names import CURVES
from reidcore.support.files import read_text
from reidcore.support.json_files import Found, read_found
from reidcore.support.wording import one_line_of

COUNTED = ("epoch", "seconds")
"""Columns of means.csv that every epoch has."""


def read_scores(path: Path) -> dict[str, Any]:
    """Return {test set: {ranking: {stage: {metric: score}}}} of a file such as scores.json.

    A score is a finite number, or a table of the mean, deviation and values of several; lists
    stand under "cmc", the CMC curve, and the names of `OPEN_SET_CURVES`. Raises DataError naming
    the file and the key that is no score.
    """
    found = read_found(path)
    check_scores(found)
    return dict(found.value)


def read_scored_epochs(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return (epoch, scores as `read_scores` gives them) of every evaluated epoch, as
    scores-by-epoch.json has them. Raises DataError as that does."""
    epochs = []
    for one in read_found(path).items():
        check_scores(one["scores"])
        epochs.append((one["epoch"].integer(1), dict(one["scores"].value)))
    return epochs


def check_scores(found: Found) -> None:
    """Raise DataError for the first value that does not stand in tables as `read_scores` says."""
    for rankings in found.table().values():
        for stages in rankings.table().values():
            for numbers in stages.table().values():
                for name, score in numbers.table().items():
                    if name not in CURVES:
                        _check_score(score)
                        continue
                    for share in score.items():
                        share.number()


def _check_score(found: Found) -> None:
    """Refuse what is neither a number nor those of several trials or repeats."""
    if not isinstance(found.value, dict):
        found.number()
        return
    found["mean"].number()
    found["deviation"].number(0)
    values = found["values"]
    if not values.items():
        raise values.refused("a list of numbers")
    for one in values.items():
        one.number()


def read_means(path: Path) -> list[dict[str, float]]:
    """Return the lines of means.csv, each {column: number}; what an epoch did not log is left out.

    Raises DataError naming the file, the line and the column of what is no finite number.
    """

    def damaged(why: str) -> DataError:
        return DataError(f"{path} is damaged: {why}")

    text = read_text(path)
    try:
        header, *lines = [*csv.reader(io.StringIO(text, newline=""), strict=True)] or [[]]
    except csv.Error as error:
        raise damaged(f"it is not CSV: {error}") from None
    if len(set(header)) < len(header):
        raise damaged("two columns have one name")
    for name in COUNTED if header else ():
        if name not in header:
            raise damaged(f"it has no column {name}")
    return [_line(header, cells, number, damaged) for number, cells in enumerate(lines, 2)]


def _line(
    header: list[str], cells: list[str], line: int, damaged: Callable[[str], DataError]
) -> dict[str, float]:
    if len(cells) != len(header):
        raise damaged(f"line {line} has {len(cells)} cells, expected {len(header)}")
    row = {}
    for name, cell in zip(header, cells, strict=True):
        if cell:
            try:
                row[name] = float(cell)
            except ValueError:
                row[name] = math.nan
            if not math.isfinite(row[name]):
                quoted = one_line_of(repr(cell), 60)
                raise damaged(
                    f"line {line} has {quoted} in the column {one_line_of(name)}, expected a number"
                )
    for name in COUNTED:
        if name not in row:
            raise damaged(f"line {line} names no {name}")
    if row["epoch"] < 1 or row["epoch"] % 1 or row["seconds"] < 0:
        raise damaged(f"line {line} has no epoch from 1, or seconds below 0")
    return row
