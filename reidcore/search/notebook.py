"""HTML by which runs, scores and ranked lists show themselves in notebooks."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from reidcore.contracts.component import Row
from reidcore.data.opening import open_picture
from reidcore.protocols.score_names import in_order
from reidcore.runfolder.results import Place, Score

if TYPE_CHECKING:
    from reidcore.search.results import Ranked

QUERIES, NEAREST = 8, 10
"""How many lists are shown, and pictures of each."""
HEIGHT = 96
"""Pixels of a picture."""
QUERY, MATCH, WRONG, UNKNOWN = "#3c6ec8", "#1e9646", "#d03038", "#a0a0a8"


def scores_html(scores: Mapping[Place, Mapping[str, Score]]) -> str:
    """Return scores as a table, in percent, with the deviation of several values."""
    metrics = in_order(name for found in scores.values() for name in found)
    head = _row(["test set", "ranking", "stage", *metrics], "th")
    lines = [
        _row([*place, *(_percent(found[name]) if name in found else "" for name in metrics)])
        for place, found in scores.items()
    ]
    return f"<table>{head}{''.join(lines)}</table>"


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _percent(score: Score) -> str:
    more = f" ± {100 * score.deviation:.1f}" if len(score.values) > 1 else ""
    return f"{100 * score.mean:.1f}{more}"


def ranked_html(ranked: Ranked) -> str:
    """Return the first ranked lists as rows of pictures: the query with a blue border, then the
    nearest gallery pictures with their distances; where identities are known, matches have a green
    border and others a red one."""
    lists = zip(ranked.query, ranked.index.tolist(), ranked.distance.tolist(), strict=True)
    rows = []
    for query, places, distances in list(lists)[:QUERIES]:
        tiles = [_tile(query, QUERY, "query")]
        for place, distance in list(zip(places, distances, strict=True))[:NEAREST]:
            if place >= 0:
                row = ranked.gallery[place]
                tiles.append(_tile(row, _color(query, row), f"{distance:.3g}"))
        rows.append(f'<div style="display:flex">{"".join(tiles)}</div>')
    shown = f"{min(QUERIES, len(ranked.query))} of {len(ranked.query)} queries"
    about = f"{shown}, the nearest of {len(ranked.gallery)} gallery pictures"
    return f"<div>{''.join(rows)}<small>{about}</small></div>"


def _color(query: Row, row: Row) -> str:
    if not query.pid or not row.pid:
        return UNKNOWN
    return MATCH if query.pid == row.pid else WRONG


def _tile(row: Row, color: str, words: str) -> str:
    style, title = f"border:3px solid {color};height:{HEIGHT}px", escape(row.name, quote=True)
    return (
        '<div style="margin:2px;text-align:center;font-size:11px">'
        f'<img src="{_source(row)}" title="{title}" style="{style}"><br>{escape(words)}</div>'
    )


def _source(row: Row) -> str:
    """Return a small picture as an address that holds it."""
    picture = open_picture(row)
    picture.thumbnail((4 * HEIGHT, HEIGHT), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def run_html(
    name: str, rankings: Sequence[str], scores: Mapping[Place, Mapping[str, Score]]
) -> str:
    """Return a trained run: its name, its rankings and its scores, if it has some."""
    table = scores_html(scores) if scores else "no scores"
    return f"<div><b>{escape(name)}</b>, rankings {escape(', '.join(rankings))}{table}</div>"
