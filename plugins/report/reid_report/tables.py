"""Tables of the page: scores, differences, facts of a run. Torch-free."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from reid_report.folder import Folder
from reidcore.tools import (
    ComparisonRow,
    Results,
    Score,
    differing_settings,
    duration,
    in_order,
    make_comparison,
)


@attrs.frozen(eq=False)
class Grid:
    """A table of text. left: how many of its first columns are words."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1


def scores(folder: Folder) -> Grid:
    """A line for every test set, ranking and stage, in percent."""
    names = in_order(name for found in folder.scores.values() for name in found)
    rows = [
        [*place, *(shown(found.get(name)) for name in names), f"{folder.queries[place][0]:g}"]
        for place, found in folder.scores.items()
    ]
    return Grid(["test set", "ranking", "stage", *names, "queries"], rows, 3)


def shown(score: Score | None) -> str:
    """In percent, with the deviation over trials or repeats."""
    if score is None:
        return ""
    text = f"{100 * score.mean:.1f}"
    return f"{text} ± {100 * score.deviation:.1f}" if len(score.values) > 1 else text


def counting(folder: Folder) -> list[str]:
    """Return sentences on how scores are counted."""
    said = []
    settings = folder.settings
    averages = {
        "step": "the mean of the precision at every match (steps)",
        "trapezoid": "the area by trapezoids, as in Market-1501's own program",
    }
    ap = settings.get("eval.ap", "step")
    said.append(f"mAP: average precision is {averages.get(ap, ap)}.")
    ties = settings.get("eval.ties", "gallery")
    orders = {
        "gallery": "keep the gallery's order",
        "grouped": "share one threshold",
        "optimistic": "have matches first",
        "pessimistic": "have matches last",
    }
    said.append(f"Equal distances {orders.get(ties, ties)}.")
    all_queries = settings.get("eval.queries", "valid") == "all"
    said.append(f"{'All queries' if all_queries else 'Queries with a match'} count.")
    for test, protocol in dict(folder.lock.get("protocols") or {}).items():
        own = ", ".join(
            f"{key} = {plain(value)}" for key, value in protocol.items() if key != "use"
        )
        said.append(f"{test}: protocol {protocol.get('use')}{f' ({own})' if own else ''}.")
    without = {place[0]: count for place, (_, count) in folder.queries.items() if count}
    said += [f"{test}: {count:g} queries have no match." for test, count in without.items()]
    trials = {
        len(score.values)
        for found in folder.scores.values()
        for score in found.values()
        if len(score.values) > 1
    }
    if trials:
        of = "repeats" if len(folder.runs) > 1 else "trials"
        counts = " or ".join(map(str, sorted(trials)))
        said.append(f"± is the sample's deviation over {counts} {of}.")
    return said


def plain(value: Any) -> str:
    """A setting as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def facts(folder: Folder) -> list[tuple[str, str]]:
    """Return (name, value) of the facts about a run: its place, device, data, time and memory."""
    lock = folder.lock
    found = [("folder", folder.path.name), ("device", str(lock.get("device", "unknown")))]
    if lock.get("device") == "cpu":
        found[-1] = ("device", f"cpu, {_many(lock.get('threads'), 'thread')}")
    if len(folder.runs) > 1:
        found.append(("repeats", str(len(folder.runs))))
    training = dict(lock.get("training") or {})
    if training.get("identities"):
        found.append(("training identities", str(training["identities"])))
    found += _spent(folder)
    return found


def _many(count: Any, what: str) -> str:
    shown = f"{count:g}" if isinstance(count, int | float) else "?"
    return f"{shown} {what}" if count == 1 else f"{shown} {what}s"


def _spent(folder: Folder) -> Iterator[tuple[str, str]]:
    """Time and memory, as far as the run folder tells."""
    rows = [row for history in folder.histories for row in history]
    if rows:
        each = [sum(row.get("seconds", 0.0) for row in history) for history in folder.histories]
        epochs = len(rows) / len(folder.histories)
        yield "training", f"{_many(epochs, 'epoch')} in {duration(statistics.fmean(each))}"
        rates = [row["pictures_per_second"] for row in rows if "pictures_per_second" in row]
        if rates:
            yield "training rate", f"{statistics.median(rates):.0f} pictures/s (median of epochs)"
    used = dict(folder.lock.get("used") or {})
    if used.get("evaluation_seconds") is not None:
        yield "last evaluation", f"{used['evaluation_seconds']:.1f} s"
    for key, name in (("peak_memory", "peak memory"), ("peak_gpu_memory", "peak GPU memory")):
        if used.get(key):
            yield name, f"{used[key] / 2**20:.0f} MiB"


def versions(folder: Folder) -> Grid:
    """Distributions with their versions, and hashes of the manifests."""
    lock = folder.lock
    rows = [[name, str(version)] for name, version in dict(lock.get("versions") or {}).items()]
    rows += [
        [f"manifest of {name}", str(value)] for name, value in dict(lock.get("data") or {}).items()
    ]
    return Grid(["what", "version or SHA-256"], rows, 2)


def settings(folder: Folder) -> Grid:
    """Every setting with every default filled in, by dotted key."""
    rows = [[key, plain(value)] for key, value in folder.settings.items()]
    return Grid(["key", "value"], rows, 2)


def side_by_side(folders: Sequence[Folder]) -> Grid:
    """All runs' scores, and differences from the first run.

    A difference is from the same ranking and stage of the first run, or where it has none from
    the last stage of its first ranking on that test set.
    """
    rows = make_comparison([_compared(one) for one in folders])
    names = in_order(name for row in rows for name in row.scores)
    first = folders[0].path
    own = {row.place: row for row in rows if row.results.folder == first}
    columns = ["run", "test set", "ranking", "stage"]
    columns += [column for name in names for column in (name, "Δ")]
    lines = []
    for row in rows:
        line = [row.run, *row.place]
        base = None if row.results.folder == first else _base(own, row)
        for name in names:
            line += [shown(row.scores.get(name)), _difference(row, base, name)]
        lines.append(line)
    return Grid(columns, lines, 4)


def telling_settings(folders: Sequence[Folder]) -> Grid:
    """The settings that tell the runs apart, a column for each run."""
    every = [folder.settings for folder in folders]
    rows = [
        [key, *(plain(one.get(key, "-")) for one in every)] for key in differing_settings(every)
    ]
    return Grid(["setting", *(folder.label for folder in folders)], rows, 1 + len(folders))


def _base(
    own: Mapping[tuple[str, str, str], ComparisonRow], row: ComparisonRow
) -> ComparisonRow | None:
    if row.place in own:
        return own[row.place]
    same = [place for place in own if place[0] == row.place[0]]
    if not same:
        return None
    return own[[place for place in same if place[1] == same[0][1]][-1]]


def _difference(row: ComparisonRow, base: ComparisonRow | None, name: str) -> str:
    if base is None or name not in row.scores or name not in base.scores:
        return ""
    return f"{100 * (row.scores[name].mean - base.scores[name].mean):+.1f}"


def _compared(folder: Folder) -> Results:
    repeats = len(folder.runs) if len(folder.runs) > 1 else 0
    return Results(folder.path, folder.settings, folder.scores, None, None, repeats)
