"""Reads run folders, without their data, their plugins and torch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reidcore.errors import DataError, UsageError
from reidcore.tools import (
    Score,
    number_of,
    read_means,
    read_record,
    read_scored_epochs,
    read_scores,
    repeats_of,
    scores_of,
    settings_of,
)

Line = tuple[Sequence[float], Sequence[float]]
"""Epochs and values."""
Panels = dict[str, dict[str, list[Line]]]
"""Curves over epochs: {panel: {label: a line for each repeat}}."""
Place = tuple[str, str, str]
"""(name that scores stand under, ranking, stage)."""

SCORED_EPOCHS = "scores-by-epoch.json"
"""File of a run folder: the scores of every epoch that was scored."""
EPOCHS = ("epoch", "seconds", "pictures_per_second", "lr")
"""Columns of means.csv that are no means over batches."""


@attrs.frozen(eq=False)
class Folder:
    """Everything that is read of a run folder, or of a folder of repeats.

    label: short, and no other run's of the report. lock: of the first repeat. settings: by dotted
    key. queries: (with a match, without one). cmc: shares by rank. open_set:
    the other lists of scores.json. histories: lines of means.csv by
    repeat. tracked: curves of other files. scored: by repeat, ascending (epoch, {place: {metric:
    fraction}}). absent: what it does not hold, in words. runs: the folders of repeats, or the one
    folder.
    """

    path: Path
    label: str
    lock: Mapping[str, Any]
    text: str
    settings: Mapping[str, Any]
    scores: Mapping[Place, Mapping[str, Score]]
    queries: Mapping[Place, tuple[float, float]]
    cmc: Mapping[Place, Sequence[float]]
    open_set: Mapping[Place, Mapping[str, Sequence[float]]]
    histories: Sequence[Sequence[Mapping[str, float]]]
    tracked: Panels
    scored: Sequence[Sequence[tuple[int, Mapping[Place, Mapping[str, float]]]]]
    absent: Sequence[str]
    runs: Sequence[Path]

    @property
    def name(self) -> str:
        return str(self.lock.get("name", self.label))

    @property
    def terms(self) -> list[str]:
        """Columns of means.csv that are means over batches."""
        rows = (row for history in self.histories for row in history)
        return [
            key for key in dict.fromkeys(key for row in rows for key in row) if key not in EPOCHS
        ]


def read_folders(paths: Sequence[Path]) -> list[Folder]:
    """Read every folder. Raises UsageError for one that holds no run or is named twice, DataError
    if one is damaged."""
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise UsageError(f"{path} is named twice")
    names = [path.resolve().name for path in paths]
    short = len(set(names)) == len(names)
    return [
        _read(path, name if short else str(path)) for path, name in zip(paths, names, strict=True)
    ]


def _read(path: Path, label: str) -> Folder:
    repeats = repeats_of(path)
    runs = repeats or [path]
    locks = [read_record(one) for one in runs]
    absent = [
        f"{one} is unfinished; go on with it by --resume"
        for one, lock in zip(runs, locks, strict=True)
        if not lock.get("finished")
    ]
    scores: Mapping[Place, Mapping[str, Score]] = {}
    whole: dict[Place, Mapping[str, Any]] = {}
    if (path / "scores.json").exists():
        scores = scores_of(path)
        whole = _by_place(read_scores(path / "scores.json"))
    else:
        absent.append("There are no scores, and so no distances, lists and pictures.")
    means = [one / "means.csv" for one in runs]
    histories = [read_means(one) if one.exists() else [] for one in means]
    if not any(histories):
        absent.append("There are no training curves: no epoch was trained.")
    scored = [_scored(one / SCORED_EPOCHS) for one in runs]
    return Folder(
        path,
        label,
        locks[0],
        _text(runs[0] / "run.toml"),
        settings_of(locks[0].get("resolved")),
        scores,
        {place: _queries(found) for place, found in whole.items()},
        {place: found["cmc"] for place, found in whole.items() if found.get("cmc")},
        {place: lists for place, found in whole.items() if (lists := _lists(found))},
        histories,
        _tracked(runs),
        scored,
        absent,
        runs,
    )


def _by_place(scores: Mapping[str, Any]) -> dict[Place, Mapping[str, Any]]:
    return {
        (test, ranking, stage): found
        for test, rankings in scores.items()
        for ranking, stages in rankings.items()
        for stage, found in stages.items()
    }


def _lists(found: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    return {
        name: values for name, values in found.items() if isinstance(values, list) and name != "cmc"
    }


def _queries(found: Mapping[str, Any]) -> tuple[float, float]:
    return number_of(found.get("queries", 0)), number_of(found.get("queries_without_match", 0))


def _text(path: Path) -> str:
    """The run file; a run may have been copied without it."""
    try:
        return path.read_text(encoding="utf-8") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: it is not UTF-8: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _tracked(runs: Sequence[Path]) -> Panels:
    """Curves of the CSV files that procedures left, whose first column is `epoch`.

    Where an epoch has several lines, the second column tells them apart, such as a slot.
    """
    panels: Panels = {}
    for run in runs:
        for path in sorted(run.glob("*.csv")):
            if path.name == "means.csv":
                continue
            for (column, label), line in _curves(path).items():
                panel = panels.setdefault(f"{path.stem}: {column}", {})
                panel.setdefault(label, []).append(line)
    return panels


def _curves(path: Path) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """{(column, label): epochs and values} of one file; none of a file that is no such table."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        if header[:1] != ["epoch"] or any(len(row) != len(header) for row in rows):
            return {}
        epochs = [float(row[0]) for row in rows]
        several = len(set(epochs)) < len(epochs)
        curves: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        for epoch, row in zip(epochs, rows, strict=True):
            start = 2 if several else 1
            for column, cell in zip(header[start:], row[start:], strict=True):
                label = f"{header[1]} {row[1]}" if several else column
                line = curves.setdefault((column, label), ([], []))
                if cell:
                    line[0].append(epoch)
                    line[1].append(float(cell))
                    if not math.isfinite(line[1][-1]):
                        return {}
    except (OSError, ValueError, csv.Error):
        return {}
    return {key: line for key, line in curves.items() if line[0]}


def _scored(path: Path) -> list[tuple[int, dict[Place, dict[str, float]]]]:
    if not path.exists():
        return []
    return [
        (
            epoch,
            {
                place: {
                    name: number_of(score)
                    for name, score in found.items()
                    if not isinstance(score, list)
                }
                for place, found in _by_place(scores).items()
            },
        )
        for epoch, scores in read_scored_epochs(path)
    ]
