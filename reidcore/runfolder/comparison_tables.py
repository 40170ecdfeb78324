"""A comparison of runs as aligned text, JSON or CSV. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from reidcore.protocols.score_names import in_order, smaller_is_better
from reidcore.runfolder.comparison import ComparisonRow, Difference
from reidcore.runfolder.results import Score
from reidcore.support.progress import duration
from reidcore.support.text_table import aligned, csv_text

PARTS = ("difference", "low", "high", "p")
"""Columns of CSV for a difference."""
WIDEST = 32
"""Characters of a setting in the text; JSON and CSV hold all of it."""


def _metrics(rows: Iterable[ComparisonRow]) -> list[str]:
    return in_order(name for row in rows for name in row.scores)


def _best(rows: Sequence[ComparisonRow], median: bool) -> dict[tuple[str, str], float]:
    """Return {(test set, metric): the best value as shown}, where there are several rows."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for name, score in row.scores.items():
            values.setdefault((row.place[0], name), []).append(_shown(score, median))
    return {
        key: (min if smaller_is_better(key[1]) else max)(found)
        for key, found in values.items()
        if len(found) > 1
    }


def _shown(score: Score, median: bool) -> float:
    return round(100 * (score.median if median else score.mean), 1)


def as_text(rows: Sequence[ComparisonRow], median: bool = False) -> str:
    """Return an aligned table, scores in percent; `*` marks the best of each test set.

    median: of repeats, show the median in place of mean and deviation.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    metrics = _metrics(rows)
    best = _best(rows, median)
    header = [
        "run",
        *keys,
        "test set",
        "ranking",
        "stage",
        *metrics,
        *_paired(rows),
        "epochs",
        "time",
    ]
    # The marks have a column's width of their own, so that the numbers stay in line.
    table = [[f"{cell} " if cell in metrics else cell for cell in header]]
    for row in rows:
        cells = [row.run, *(_setting(row.settings.get(key)) for key in keys), *row.place]
        for name in metrics:
            score = row.scores.get(name)
            cells.append(
                "" if score is None else _cell(row, score, best.get((row.place[0], name)), median)
            )
        for name in _differing(rows):
            cells.extend(_difference(row.differences.get(name)))
        epochs, seconds = row.results.epochs, row.results.seconds
        cells.append("" if epochs is None else f"{epochs:g}")
        cells.append("" if seconds is None else duration(seconds))
        table.append(cells)
    return aligned(table, len(keys) + 4)


def _cell(row: ComparisonRow, score: Score, best: float | None, median: bool) -> str:
    value = _shown(score, median)
    text = f"{value:.1f}"
    if (row.results.repeats or len(score.values) > 1) and not median:
        text += f" ± {100 * score.deviation:.1f}"
    return f"{text}*" if value == best else f"{text} "


def _differing(rows: Iterable[ComparisonRow]) -> list[str]:
    """Names of the scores whose differences some row has."""
    return list(dict.fromkeys(name for row in rows for name in row.differences))


def _paired(rows: Iterable[ComparisonRow]) -> list[str]:
    return [cell for name in _differing(rows) for cell in (f"{name} difference", "p")]


def _difference(found: Difference | None) -> tuple[str, str]:
    """Text of a difference in points of percent with its 95 % interval, and of p."""
    if found is None:
        return "", ""
    mean, low, high = (f"{100 * value:+.1f}" for value in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]", f"{found.p:.4f}"


def _setting(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def as_json(rows: Sequence[ComparisonRow]) -> str:
    """Return a JSON list of objects, scores as fractions; of repeats every score has mean,
    deviation, median and the values."""
    return json.dumps([_object(row) for row in rows], indent=1, ensure_ascii=False)


def _object(row: ComparisonRow) -> dict[str, Any]:
    test, ranking, stage = row.place
    repeats = row.results.repeats
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
        **({"differences": _plain(row.differences)} if row.differences else {}),
        "epochs": row.results.epochs,
        "seconds": row.results.seconds,
        "repeats": repeats,
    }


def _plain(differences: Mapping[str, Difference]) -> dict[str, Any]:
    return {name: attrs.asdict(found) for name, found in differences.items()}


def _statistics(score: Score) -> dict[str, Any]:
    return {
        "mean": score.mean,
        "deviation": score.deviation,
        "median": score.median,
        "values": list(score.values),
    }


def as_csv(rows: Sequence[ComparisonRow]) -> str:
    """Return a line of CSV for each row, scores as fractions; with repeats also their deviation and
    median."""
    lines = [dict(_flat(row)) for row in rows]
    settings = dict.fromkeys(key for row in rows for key in row.settings)
    spread = any(len(score.values) > 1 for row in rows for score in row.scores.values())
    metrics = [
        column
        for name in _metrics(rows)
        for column in (name, *((f"{name} deviation", f"{name} median") if spread else ()))
    ]
    paired = [f"{name} {part}" for name in _differing(rows) for part in PARTS]
    places = ["test set", "ranking", "stage"]
    columns = ["run", *settings, *places, *metrics, *paired, "epochs", "seconds"]
    return csv_text([columns, *([line.get(column, "") for column in columns] for line in lines)])


def _flat(row: ComparisonRow) -> Iterator[tuple[str, Any]]:
    for key, value in row.settings.items():
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    yield "run", row.run
    yield from zip(("test set", "ranking", "stage"), row.place, strict=True)
    for name, score in row.scores.items():
        yield name, score.mean
        yield f"{name} deviation", score.deviation
        yield f"{name} median", score.median
    for name, found in row.differences.items():
        values = attrs.astuple(found)
        yield from ((f"{name} {part}", value) for part, value in zip(PARTS, values, strict=True))
    yield "epochs", row.results.epochs
    yield "seconds", row.results.seconds
