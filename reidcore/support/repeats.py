"""Mean and deviation over the repeats of a run, and over the trials of a test set. Torch-free."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from reidcore.errors import UsageError

_SUMMARY = {"mean", "deviation", "values"}


def number_of(score: Any) -> float:
    """Return a score as one number: itself, or the mean of {mean, deviation, values}."""
    return float(score["mean"] if _is_summary(score) else score)


def _is_summary(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == _SUMMARY


def mean_scores(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return scores of one shape with every number as {mean, deviation, values}.

    The deviation is the sample's (n - 1), 0 for one repeat. Of a number that is such a table
    itself, over trials, its mean is taken. Lists, such as the CMC curve, give element-wise means.
    Raises UsageError for scores of different names.
    """
    first = results[0]
    summary: dict[str, Any] = {}
    for result in results:
        if differing := set(first) ^ set(result):
            names = ", ".join(sorted(differing))
            raise UsageError(f"there is no mean of scores that only some repeats have: {names}")
    for key, value in first.items():
        values = [result[key] for result in results]
        if isinstance(value, Mapping) and not _is_summary(value):
            summary[key] = mean_scores(values)
        elif isinstance(value, list):
            summary[key] = [statistics.fmean(column) for column in zip(*values, strict=True)]
        else:
            values = [number_of(one) if _is_summary(one) else one for one in values]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            summary[key] = {
                "mean": statistics.fmean(values),
                "deviation": deviation,
                "values": values,
            }
    return summary


def without_curves(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores without their lists, such as the CMC curve."""
    return {
        key: without_curves(value)
        if isinstance(value, Mapping) and not _is_summary(value)
        else value
        for key, value in scores.items()
        if not isinstance(value, list)
    }
