"""`reid compare RUN_DIR...`: the scores of several runs side by side. Torch-free."""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reidcore.errors import DataError, ReidError, UsageError
from reidcore.progress import duration
from reidcore.runfolder import RESUME_FREE, check_folder, read_json, write_atomically
from reidcore.score_names import OTHERS, in_order
from reidcore.text_table import aligned

_WIDEST = 32  # characters of a setting in the text; the files hold all of it


@attrs.frozen
class Score:
    """One score of a run, or of its repeats, as a fraction."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """The sample's (n - 1), 0 for a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@attrs.frozen
class Compared:
    """What a folder says of its run: settings by dotted key, and its scores.

    scores: {(test set, ranking, stage): {metric: score}}. repeats: their number, 0 for a plain run.
    epochs, seconds: of training, in repeats the mean; None where no epoch was trained.
    """

    folder: Path
    settings: Mapping[str, Any]
    scores: Mapping[tuple[str, str, str], Mapping[str, Score]]
    epochs: float | None
    seconds: float | None
    repeats: int = 0


@attrs.frozen
class Row:
    """One line of the comparison. settings: only those that tell the runs apart."""

    run: str
    settings: Mapping[str, Any]
    place: tuple[str, str, str]
    scores: Mapping[str, Score]
    source: Compared


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `compare`; it sets `func(options) -> exit code`, which may raise
    `ReidError`."""
    parser = subparsers.add_parser(
        "compare",
        help="put the scores of several runs side by side",
        description="Put the scores of several runs side by side, with the settings that tell the "
        "runs apart. A folder of repeats is one run, with mean and deviation. * marks the best "
        "value of a test set.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--test", metavar="NAME", help="only this test set")
    parser.add_argument("--ranking", metavar="NAME", help="only this ranking")
    parser.add_argument(
        "--median", action="store_true", help="of repeats, show the median in place of the mean"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a CSV file")
    parser.add_argument(
        "--json", action="store_true", help="print JSON in place of the table, scores as fractions"
    )
    parser.set_defaults(func=run_compare)


def run_compare(options: argparse.Namespace) -> int:
    """`reid compare`; returns 0. Folders that cannot be compared are named in one error at the
    end, after the others have been shown."""
    runs: list[Compared] = []
    problems: list[ReidError] = []
    for folder in options.folders:
        try:
            runs.append(read_run(folder))
        except ReidError as error:
            problems.append(error)
    if runs:
        rows = _chosen(make_rows(runs), options)
        if options.csv is not None:
            _write(options.csv, as_csv(rows))
        print(as_json(rows) if options.json else as_text(rows, options.median), flush=True)
    if problems:
        worst = DataError if any(isinstance(one, DataError) for one in problems) else UsageError
        raise worst("\n".join(map(str, problems)))
    return 0


def read_run(folder: Path) -> Compared:
    """A run folder, or a folder of repeats.

    Raises UsageError if it is neither, unfinished or without scores, DataError if it is damaged.
    """
    if numbered := numbered_repeats(folder):
        return _read_repeats(folder, numbered)
    lock = check_folder(folder)
    if not lock.get("finished"):
        raise UsageError(f"the run in {folder} is unfinished; go on with it by --resume first")
    epochs, seconds = _training(folder / "means.csv")
    settings = flattened(lock.get("resolved"))
    return Compared(folder, settings, scores_of(folder), epochs, seconds)


def numbered_repeats(folder: Path) -> list[Path]:
    """The run folders in a folder of repeats, by number; none in a run folder."""
    if (folder / "lock.json").exists():
        return []
    numbered = (one.parent for one in folder.glob("*/lock.json") if one.parent.name.isdecimal())
    return sorted(numbered, key=lambda path: int(path.name))


def _read_repeats(folder: Path, numbered: Sequence[Path]) -> Compared:
    if not (folder / "scores.json").exists():
        raise UsageError(f"the repeats in {folder} are unfinished; go on with them by --resume")
    repeats = [read_run(one) for one in numbered]
    settings = {
        key: _merged([one.settings.get(key) for one in repeats])
        for key in dict.fromkeys(key for one in repeats for key in one.settings)
    }
    epochs = [one.epochs for one in repeats if one.epochs is not None]
    seconds = [one.seconds for one in repeats if one.seconds is not None]
    return Compared(
        folder, settings, scores_of(folder), statistics.fmean(epochs) if epochs else None,
        statistics.fmean(seconds) if seconds else None, len(repeats),
    )  # fmt: skip


def _merged(values: list[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else values


def scores_of(folder: Path) -> dict[tuple[str, str, str], dict[str, Score]]:
    """{(test set, ranking, stage): {metric: score}} of scores.json. Raises UsageError if there is
    none, DataError if it is damaged."""
    path = folder / "scores.json"
    if not path.exists():
        raise UsageError(f"the run in {folder} has no scores: its run file has no data.test")
    found = read_json(path)
    try:
        return {
            (test, ranking, stage): {
                name: _score(value) for name, value in numbers.items() if name not in OTHERS
            }
            for test, rankings in found.items()
            for ranking, stages in rankings.items()
            for stage, numbers in stages.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{path} is damaged: it holds other things than scores") from None


def _score(value: Any) -> Score:
    values = value["values"] if isinstance(value, Mapping) else [value]
    if not values:
        raise ValueError("no value")
    return Score(tuple(float(one) for one in values))


def _training(path: Path) -> tuple[int | None, float | None]:
    """(epochs, seconds) of means.csv."""
    if not path.exists():
        return None, None
    try:
        with open(path, encoding="utf-8", newline="") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error):
        raise DataError(f"{path} is damaged: it holds no seconds of each epoch") from None
    return (len(seconds), sum(seconds)) if seconds else (None, None)


def flattened(table: Any, path: str = "") -> dict[str, Any]:
    """Nested settings by dotted key, as `--set` takes them; unset ones are left out."""
    if isinstance(table, list) and table and all(isinstance(one, Mapping) for one in table):
        table = {str(one.get("name", index)): one for index, one in enumerate(table)}
    if isinstance(table, Mapping) and (table or not path):
        found: dict[str, Any] = {}
        for key, value in table.items():
            inner = key if path in ("", "parts") else f"{path}.{key}"
            found |= flattened(value, inner)
        return found
    return {} if table is None else {path: table}


def telling(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that tell runs apart.

    What cannot change a result is left out, and the run's name. Where a part is another component,
    or missing, its `use` tells so; of its other keys only those count that differ among the runs
    that have them.
    """
    keys = dict.fromkeys(key for settings in runs for key in settings)
    uses = [key for key in keys if key.endswith(".use") and not _equal(runs, key)]
    parts = tuple(key.removesuffix("use") for key in uses)

    def differs(key: str) -> bool:
        if key in uses or not key.startswith(parts):
            return not _equal(runs, key)
        return not _equal([settings for settings in runs if key in settings], key)

    return [key for key in keys if key not in ("name", *RESUME_FREE) and differs(key)]


def _equal(runs: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all(settings.get(key) == runs[0].get(key) for settings in runs)


def make_rows(runs: Sequence[Compared]) -> list[Row]:
    """A row for every run, test set, ranking and stage; what can be compared stands together."""
    keys = telling([run.settings for run in runs])
    short = len({run.folder.resolve().name for run in runs}) == len(runs)
    rows = [
        Row(
            run.folder.resolve().name if short else str(run.folder),
            {key: run.settings[key] for key in keys if key in run.settings},
            place,
            scores,
            run,
        )
        for run in runs
        for place, scores in run.scores.items()
    ]
    order = [list(dict.fromkeys(row.place[level] for row in rows)) for level in range(3)]
    rows.sort(key=lambda row: [order[level].index(row.place[level]) for level in range(3)])
    return rows


def _chosen(rows: Sequence[Row], options: argparse.Namespace) -> list[Row]:
    chosen = list(rows)
    for level, option in enumerate(("test", "ranking")):
        name = getattr(options, option)
        if name is None:
            continue
        known = list(dict.fromkeys(row.place[level] for row in rows))
        if name not in known:
            raise UsageError(f"--{option} {name}: the runs have {', '.join(known) or 'none'}")
        chosen = [row for row in chosen if row.place[level] == name]
    return chosen


def _metrics(rows: Iterable[Row]) -> list[str]:
    return in_order(name for row in rows for name in row.scores)


def _best(rows: Sequence[Row], median: bool) -> dict[tuple[str, str], float]:
    """{(test set, metric): its largest value as shown}, where there are several rows."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for name, score in row.scores.items():
            values.setdefault((row.place[0], name), []).append(_shown(score, median))
    return {key: max(found) for key, found in values.items() if len(found) > 1}


def _shown(score: Score, median: bool) -> float:
    return round(100 * (score.median if median else score.mean), 1)


def as_text(rows: Sequence[Row], median: bool = False) -> str:
    """The aligned table, scores in percent; `*` marks the best of each test set."""
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    metrics = _metrics(rows)
    best = _best(rows, median)
    header = ["run", *keys, "test set", "ranking", "stage", *metrics, "epochs", "time"]
    # The marks have a column's width of their own, so that the numbers stay in line.
    table = [[f"{cell} " if cell in metrics else cell for cell in header]]
    for row in rows:
        cells = [row.run, *(_setting(row.settings.get(key)) for key in keys), *row.place]
        for name in metrics:
            score = row.scores.get(name)
            cells.append(
                "" if score is None else _cell(row, score, best.get((row.place[0], name)), median)
            )
        epochs, seconds = row.source.epochs, row.source.seconds
        cells.append("" if epochs is None else f"{epochs:g}")
        cells.append("" if seconds is None else duration(seconds))
        table.append(cells)
    return aligned(table, len(keys) + 4)


def _cell(row: Row, score: Score, best: float | None, median: bool) -> str:
    value = _shown(score, median)
    text = f"{value:.1f}"
    if (row.source.repeats or len(score.values) > 1) and not median:
        text += f" ± {100 * score.deviation:.1f}"
    return f"{text}*" if value == best else f"{text} "


def _setting(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def as_json(rows: Sequence[Row]) -> str:
    """A list of objects; of repeats every score has mean, deviation, median and the values."""
    return json.dumps([_object(row) for row in rows], indent=1, ensure_ascii=False)


def _object(row: Row) -> dict[str, Any]:
    test, ranking, stage = row.place
    repeats = row.source.repeats
    return {
        "run": row.run,
        "settings": dict(row.settings),
        "test": test,
        "ranking": ranking,
        "stage": stage,
        "scores": {
            name: _statistics(score) if repeats or len(score.values) > 1 else score.mean
            for name, score in row.scores.items()
        },
        "epochs": row.source.epochs,
        "seconds": row.source.seconds,
        "repeats": repeats,
    }


def _statistics(score: Score) -> dict[str, Any]:
    return {
        "mean": score.mean, "deviation": score.deviation, "median": score.median,
        "values": list(score.values),
    }  # fmt: skip


def as_csv(rows: Sequence[Row]) -> str:
    """One line per row, scores as fractions; with repeats also their deviation and median."""
    text = io.StringIO()
    lines = [dict(_flat(row)) for row in rows]
    settings = dict.fromkeys(key for row in rows for key in row.settings)
    spread = any(len(score.values) > 1 for row in rows for score in row.scores.values())
    metrics = [
        column
        for name in _metrics(rows)
        for column in (name, *((f"{name} deviation", f"{name} median") if spread else ()))
    ]
    columns = ["run", *settings, "test set", "ranking", "stage", *metrics, "epochs", "seconds"]
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(row: Row) -> Iterator[tuple[str, Any]]:
    for key, value in row.settings.items():
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    yield "run", row.run
    yield from zip(("test set", "ranking", "stage"), row.place, strict=True)
    for name, score in row.scores.items():
        yield name, score.mean
        yield f"{name} deviation", score.deviation
        yield f"{name} median", score.median
    yield "epochs", row.source.epochs
    yield "seconds", row.source.seconds


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UsageError(f"--csv {path} cannot be written: {error.strerror}") from None
