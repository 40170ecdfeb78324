"""Compares runs: the settings that differ between them, beside their scores. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from reidcore.errors import UsageError, nearest
from reidcore.runfolder.record import RESUME_FREE
from reidcore.runfolder.results import Place, Results, Score
from reidcore.support.wording import few, shortened


@attrs.frozen
class Difference:
    """A mean difference over queries, as fractions.

    low, high: its 95 % interval. p: the two-sided probability of one as far from 0 by chance.
    """

    mean: float
    low: float
    high: float
    p: float


@attrs.frozen
class ComparisonRow:
    """The scores of one run at one place, and those of its settings that differ between runs.

    differences: {score: how it differs from the first row's of the test set}, where rows are
    paired.
    """

    run: str
    settings: Mapping[str, Any]
    place: Place
    scores: Mapping[str, Score]
    results: Results
    differences: Mapping[str, Difference] = {}


def differing_settings(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys at which the runs' settings differ.

    The run's name and settings that cannot change a result are left out. Where a part is another
    component, or missing, its `use` differs; of its other keys only those count that differ among
    the runs that have them.
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


def chosen_settings(runs: Sequence[Mapping[str, Any]], patterns: Sequence[str]) -> list[str]:
    """Return the keys of the runs' settings that fit one of the patterns, such as `optim.*`.

    They are the settings that differ, or, where a pattern fits none of those, whatever it fits.
    Raises UsageError with the nearest ones for a pattern that fits no setting.
    """
    every = list(dict.fromkeys(key for settings in runs for key in settings))
    differing = differing_settings(runs)
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = [key for key in every if fnmatchcase(key, pattern)]
        if not fitting:
            tables = [f"{key.rpartition('.')[0]}.*" for key in every if "." in key]
            keys = [f"*.{key.rpartition('.')[2]}" for key in every if "." in key]
            near = nearest(pattern, [*every, *tables, *keys]) or "."
            raise UsageError(
                f"--settings {shortened(pattern, 60)!r} fits no setting of these runs{near} Those "
                f"that differ are {few(differing, 12) or 'none'}"
            )
        chosen |= set(fitting) & set(differing) or set(fitting)
    return [key for key in every if key in chosen]


def make_comparison(
    runs: Sequence[Results], patterns: Sequence[str] | None = None
) -> list[ComparisonRow]:
    """Return a row for every run, test set, ranking and stage; those of one place stand together.

    patterns: of the settings that differ, only those that fit one; None for all. Raises UsageError
    for a pattern that fits nothing.
    """
    settings = [run.settings for run in runs]
    keys = differing_settings(settings) if patterns is None else chosen_settings(settings, patterns)
    short = len({run.folder.resolve().name for run in runs}) == len(runs)
    rows = [
        ComparisonRow(
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
