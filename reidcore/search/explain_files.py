"""Writes explanations into a folder: a CSV file of the numbers of each, and a PNG of what can be
drawn.

The folder holds index.csv, which says what every file is, and appears when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from PIL import Image

from reidcore.contracts.explanations import Cell, Explanation, Heat, Lines, Table
from reidcore.search.drawing import heat_picture, line_picture, open_side
from reidcore.search.explain import Explained
from reidcore.support.files import new_folder
from reidcore.support.text_table import csv_text

INDEX = (
    "query",
    "rank",
    "distance",
    "query_path",
    "gallery_path",
    "explanation",
    "kind",
    "csv",
    "png",
)


def write_explanations(folder: Path, explained: Iterable[Explained]) -> tuple[int, int]:
    """Write explanations into a new folder; return the numbers of pairs and of files.

    Raises UsageError if the folder exists, OutputError if it cannot be written.
    """
    pairs, lines = 0, []
    with new_folder(folder) as partial:
        for pair in explained:
            pairs += 1
            for name, one in pair.found.items():
                lines.append(_write_one(partial, pair, name, one))
        (partial / "index.csv").write_text(_csv(INDEX, lines), encoding="utf-8")
    files = sum(bool(cell) for line in lines for cell in line[-2:])
    return pairs, files + 1


def _write_one(folder: Path, pair: Explained, name: str, one: Explanation) -> tuple[Cell, ...]:
    """Write one explanation's files; return its line of index.csv."""
    stem = f"query{pair.number:04}-rank{pair.rank:02}-{name}"
    columns, rows = listing(one)
    (folder / f"{stem}.csv").write_text(_csv(columns, rows), encoding="utf-8")
    png = ""
    if not isinstance(one, Table):
        png = f"{stem}.png"
        draw_explanation(pair, name, one).save(folder / png)
    return (
        pair.number,
        pair.rank,
        float(f"{pair.distance:.6g}"),
        pair.query.name,
        pair.gallery.name,
        name,
        type(one).__name__.lower(),
        f"{stem}.csv",
        png,
    )


def draw_explanation(pair: Explained, name: str, one: Heat | Lines) -> Image.Image:
    """Return a picture of one explanation: heat over the pair's two pictures, or lines between
    them. name: what stands above it. The pictures' files are read."""
    query = open_side(pair.query, "query")
    match = f"rank {pair.rank}, distance {pair.distance:.4g}"
    gallery = open_side(pair.gallery, match)
    if isinstance(one, Heat):
        return heat_picture(one, query, gallery, name)
    return line_picture(one, query, gallery, name)


def listing(one: Explanation) -> tuple[Sequence[str], Iterable[Sequence[Cell]]]:
    """Return (columns, rows) of an explanation's numbers."""
    if isinstance(one, Table):
        return one.columns, one.rows
    if isinstance(one, Heat):
        return ("picture", "row", "column", "x", "y", "value"), _cells_of(one)
    columns = ["query_x", "query_y", "gallery_x", "gallery_y", "weight", "drawn", *one.numbers]
    drawn = (one.weight > one.above).astype(int)
    values = [*one.query.T, *one.gallery.T, one.weight, drawn, *one.numbers.values()]
    return columns, zip(*(value.tolist() for value in values), strict=True)


def _cells_of(heat: Heat) -> Iterator[tuple[Cell, ...]]:
    _, height, width = heat.values.shape
    for picture, values in zip(("query", "gallery"), heat.values.tolist(), strict=True):
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                yield picture, row, column, (column + 0.5) / width, (row + 0.5) / height, value


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    cells = ([f"{cell:.8g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return csv_text(chain([columns], cells))
