"""`reid compare RUN_DIR...`: the scores of several runs side by side. Torch-free."""

from __future__ import annotations

import csv
import io
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reidcore.contracts.commands import RunCommand
from reidcore.errors import DataError, ReidError, UsageError
from reidcore.protocols.score_names import in_order
from reidcore.runfolder.comparison import Row, make_rows
from reidcore.runfolder.results import Compared, Score, read_run
from reidcore.support.files import write_atomically
from reidcore.support.progress import duration
from reidcore.support.text_table import aligned

WIDEST = 32
"""Characters of a setting in the text; the files hold all of it."""


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Put the scores of several runs side by side, with the settings that tell the runs apart. "
        "A folder of repeats is one run, with mean and deviation. * marks the best value of a "
        "test set."
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
    return compare_command


def compare_command(options: Namespace) -> int:
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


def _chosen(rows: Sequence[Row], options: Namespace) -> list[Row]:
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
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


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
        "mean": score.mean,
        "deviation": score.deviation,
        "median": score.median,
        "values": list(score.values),
    }


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
