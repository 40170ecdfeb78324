"""The scores and settings of run folders. Torch-free."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reidcore.errors import DataError, ReidError, UsageError
from reidcore.protocols.score_names import OTHERS
from reidcore.runfolder.folder import MEANS, SCORES
from reidcore.runfolder.record import RECORD, WATCHING, read_record, unfinished
from reidcore.runfolder.score_files import read_means, read_scores

Place = tuple[str, str, str]
"""Where scores stand in scores.json: (test set, ranking, stage)."""


@attrs.frozen
class Score:
    """One score, as a fraction: one value, or one for every repeat or trial."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """The sample's standard deviation (n - 1), 0 for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@attrs.frozen
class Results:
    """The settings and scores of a run, or of a folder of repeats.

    settings: by dotted key. scores: {place: {metric: score}}. repeats: their number, 0 for a plain
    run. epochs, seconds: of training, in repeats the mean; None where no epoch was trained.
    """

    folder: Path
    settings: Mapping[str, Any]
    scores: Mapping[Place, Mapping[str, Score]]
    epochs: float | None
    seconds: float | None
    repeats: int = 0


def read_results(folder: Path) -> Results:
    """Read a run folder, or a folder of repeats.

    Raises UsageError if it is neither, unfinished or without scores, DataError if it is damaged.
    """
    if numbered := repeats_of(folder):
        return _read_repeats(folder, numbered)
    record = read_record(folder)
    if not record.get("finished"):
        raise unfinished(folder)
    epochs, seconds = _training(folder / MEANS)
    settings = settings_of(record.get("resolved"))
    return Results(folder, settings, scores_of(folder), epochs, seconds)


def repeats_of(folder: Path) -> list[Path]:
    """Return the run folders in a folder of repeats, by number; none in a run folder."""
    if (folder / RECORD).exists():
        return []
    numbered = (one.parent for one in folder.glob(f"*/{RECORD}") if one.parent.name.isdecimal())
    return sorted(numbered, key=lambda path: int(path.name))


def _read_repeats(folder: Path, numbered: Sequence[Path]) -> Results:
    scores = scores_of(folder) if (folder / SCORES).exists() else {}
    if (
        any(len(one.values) != len(numbered) for place in scores.values() for one in place.values())
        or not scores
    ):
        raise UsageError(f"the repeats in {folder} are unfinished; go on with them by --resume")
    repeats = [read_results(one) for one in numbered]
    settings = {
        key: _merged([one.settings.get(key) for one in repeats])
        for key in dict.fromkeys(key for one in repeats for key in one.settings)
    }
    epochs = [one.epochs for one in repeats if one.epochs is not None]
    seconds = [one.seconds for one in repeats if one.seconds is not None]
    return Results(
        folder,
        settings,
        scores,
        statistics.fmean(epochs) if epochs else None,
        statistics.fmean(seconds) if seconds else None,
        len(repeats),
    )


def _merged(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else values


def scores_of(folder: Path) -> dict[Place, dict[str, Score]]:
    """Return {place: {metric: score}} of scores.json. Raises UsageError if there is none, DataError
    if it is damaged."""
    path = folder / SCORES
    if not path.exists():
        raise _without_scores(folder)
    return {
        (test, ranking, stage): {
            name: _score(value) for name, value in numbers.items() if name not in OTHERS
        }
        for test, rankings in read_scores(path).items()
        for ranking, stages in rankings.items()
        for stage, numbers in stages.items()
    }


def _without_scores(folder: Path) -> ReidError:
    """Return the error for a run folder without scores, which says whether it should have some."""
    record = read_record(folder) if (folder / RECORD).exists() else {}
    resolved = record.get("resolved", {})
    if record.get("finished") and resolved.get("data", {}).get("test") and resolved.get("ranking"):
        return DataError(f"{folder / SCORES} is missing: the run in that folder has test sets")
    return UsageError(f"the run in {folder} has no scores: its run file has no data.test")


def _score(value: Any) -> Score:
    values = value["values"] if isinstance(value, Mapping) else [value]
    return Score(tuple(map(float, values)))


def _training(path: Path) -> tuple[int | None, float | None]:
    """Return (epochs, seconds) of means.csv, None for both where no epoch was trained."""
    seconds = [row["seconds"] for row in read_means(path)] if path.exists() else []
    return (len(seconds), sum(seconds)) if seconds else (None, None)


def settings_of(table: Any, path: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key, as `--set` takes them, without unset ones and those of
    observers."""
    if isinstance(table, list) and table and all(isinstance(one, Mapping) for one in table):
        table = {str(one.get("name", index)): one for index, one in enumerate(table)}
    if isinstance(table, Mapping) and (table or not path):
        found: dict[str, Any] = {}
        for key, value in table.items():
            if not path and key == WATCHING:
                continue
            inner = key if path in ("", "parts") else f"{path}.{key}"
            found |= settings_of(value, inner)
        return found
    return {} if table is None else {path: table}
