"""Mean and deviation over the repeats of a run. Torch-free."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def mean_scores(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores of one shape with every number as {mean, deviation, values}.

    The deviation is the sample's (n - 1), 0 for one repeat. Lists, such as the CMC curve, give
    element-wise means.
    """
    first = results[0]
    summary: dict[str, Any] = {}
    for key, value in first.items():
        values = [result[key] for result in results]
        if isinstance(value, Mapping):
            summary[key] = mean_scores(values)
        elif isinstance(value, list):
            summary[key] = [statistics.fmean(column) for column in zip(*values, strict=True)]
        else:
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            summary[key] = {
                "mean": statistics.fmean(values), "deviation": deviation, "values": values,
            }  # fmt: skip
    return summary
