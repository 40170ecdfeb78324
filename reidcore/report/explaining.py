"""What the core and a run's parts say about chosen pairs, for the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from reidcore.contracts.explanations import Cell, Heat, Table
from reidcore.data.pictures import PictureLoader, make_rows
from reidcore.model.model import Model
from reidcore.report.album import data_uri, jpeg
from reidcore.report.tiles import Strip
from reidcore.search.drawing import heat_picture, line_picture, open_side
from reidcore.search.explain import Explained, Explainer, explained_pairs
from reidcore.search.explained_features import choose_maps
from reidcore.wiring.plan import Plan

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
    plan: Plan, model: Model, matchers: Sequence[str], pairs: Sequence[Strip], side: int
) -> Iterator[list[Shown]]:
    """What there is to say about every query and the one picture of its strip; pictures have at
    most `side` pixels in height or width. Raises PluginError for a part that fails."""
    asked = [
        Explained(number, pair.query.row, tile.rank, tile.row, tile.distance, {})
        for number, pair in enumerate(pairs, 1)
        for tile in pair.gallery
    ]
    rows = make_rows(
        [row for pair in asked for row in (pair.query, pair.gallery)],
        plan.data.camera_numbers,
        plan.given.modalities,
    )
    loader = PictureLoader(plan.runfile.data, plan.runfile.train.seed)
    explainer = Explainer(model, matchers, choose_maps(plan, None))
    for pair in explained_pairs(explainer, asked, loader, rows):
        yield [_shown(pair, name, one, side) for name, one in pair.found.items()]


def _shown(pair: Explained, name: str, one: Any, side: int) -> Shown:
    if isinstance(one, Table):
        rows = [[_cell(cell) for cell in row] for row in one.rows[:ROWS]]
        left = max(0, len(one.rows) - ROWS)
        return Shown(name, columns=one.columns, rows=rows, left=left)
    query = open_side(pair.query.path, "query", Path(pair.query.path).name)
    title = f"rank {pair.rank}, distance {pair.distance:.4g}"
    gallery = open_side(pair.gallery.path, title, Path(pair.gallery.path).name)
    draw = heat_picture if isinstance(one, Heat) else line_picture
    drawn = draw(one, query, gallery, name)
    picture, content = jpeg(drawn, side)
    kind = "heat over" if isinstance(one, Heat) else "lines between"
    alt = f"{name}: {kind} the query and its match at rank {pair.rank}"
    if one.meaning:
        alt += f"; {one.meaning}"
    return Shown(name, alt, data_uri("image/jpeg", content), picture.width, picture.height)


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.5g}" if isinstance(cell, float) else str(cell)
