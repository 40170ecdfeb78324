"""Explanations of chosen pairs, by the core and by a run's parts, for the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from reid_report.album import data_uri, jpeg
from reid_report.tiles import Strip
from reidcore.api import Heat, Table
from reidcore.tools import Explained, Search, draw_explanation

ROWS = 12
"""Lines of a table that are shown; `reid explain` writes all of them."""


@attrs.frozen(eq=False)
class Shown:
    """One explanation on the page: a picture, or a table. left: lines that are not shown."""

    name: str
    alt: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    left: int = 0


def explanations(
    search: Search, ranking: str, pairs: Sequence[Strip], side: int
) -> Iterator[list[Shown]]:
    """Yield the explanations of every query and the one picture of its strip.

    side: pixels of a picture's longer side at most. Raises PluginError for a part that fails.
    """
    asked = [
        Explained(number, pair.query.row, tile.rank, tile.row, tile.distance, {})
        for number, pair in enumerate(pairs, 1)
        for tile in pair.gallery
    ]
    for pair in search.explain_pairs(asked, ranking):
        yield [_shown(pair, name, one, side) for name, one in pair.found.items()]


def _shown(pair: Explained, name: str, one: Any, side: int) -> Shown:
    if isinstance(one, Table):
        rows = [[_cell(cell) for cell in row] for row in one.rows[:ROWS]]
        left = max(0, len(one.rows) - ROWS)
        return Shown(name, columns=one.columns, rows=rows, left=left)
    picture, content = jpeg(draw_explanation(pair, name, one), side)
    kind = "heat over" if isinstance(one, Heat) else "lines between"
    alt = f"{name}: {kind} the query and its match at rank {pair.rank}"
    if one.meaning:
        alt += f"; {one.meaning}"
    return Shown(name, alt, data_uri("image/jpeg", content), picture.width, picture.height)


def _cell(cell: str | int | float | None) -> str:
    if cell is None:
        return ""
    return f"{cell:.5g}" if isinstance(cell, float) else str(cell)
