"""Scores as an aligned table of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reidcore.protocols.score_names import OTHERS, in_order
from reidcore.support.text_table import aligned


def score_table(results: Mapping[str, Any]) -> str:
    """Return scores as aligned text, in percent. results: as scores.json holds them."""
    rows = [
        (test, ranking, stage, found)
        for test, rankings in results.items()
        for ranking, stages in rankings.items()
        for stage, found in stages.items()
    ]
    if not rows:
        return "no test set"
    numbers = in_order(key for *_, found in rows for key in found if key not in OTHERS)
    header = ["test set", "ranking", "stage", *numbers, "queries"]
    table = [header]
    for test, ranking, stage, found in rows:
        percents = [_percent(found, key) for key in numbers]
        table.append([test, ranking, stage, *percents, _queries(found.get("queries", ""))])
    return aligned(table, 3)


def _percent(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    if isinstance(value, Mapping):
        return f"{100 * value['mean']:.1f} ± {100 * value['deviation']:.1f}"
    return "" if value is None else f"{100 * value:.1f}"


def _queries(found: Any) -> str:
    return f"{found['mean']:g}" if isinstance(found, Mapping) else str(found)
