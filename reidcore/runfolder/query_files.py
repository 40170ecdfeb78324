"""Reads queries.csv, the scores of single queries that a run folder has. Torch-free."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from reidcore.errors import DataError
from reidcore.runfolder.results import Place
from reidcore.support.files import read_text
from reidcore.support.wording import one_line_of

COLUMNS = (
    "test",
    "ranking",
    "stage",
    "trial",
    "number",
    "query",
    "identity",
    "matches",
    "ap",
    "found",
    "first",
    "inp",
)
"""Columns of queries.csv. number: of the query among the pictures of its test set, from 0. matches:
of the query in its gallery. ap: average precision. found: 1 where the first picture matches, else
0. first: rank of the first match, from 1, 0 without one. Of lists that a protocol draws for a query
both are means. inp: inverse negative penalty."""


@attrs.frozen(eq=False)
class QueryTable:
    """Scores of the Q queries of a test set that have a match, under one ranking and stage.

    queries: (trial, number) of each. identity: of each, as the data set names it. ap: float64 [Q],
    average precision. found: float64 [Q], as in the file.
    """

    queries: Sequence[tuple[int, int]]
    identity: Sequence[str]
    ap: NDArray[np.float64]
    found: NDArray[np.float64]


def read_queries(path: Path) -> Mapping[Place, QueryTable]:
    """Return the scores of the queries that have a match, by place.

    Raises DataError naming the file, the line and the column of what does not fit.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    places: dict[Place, list[tuple[tuple[int, int], str, float, float]]] = {}
    try:
        if tuple(next(lines, ())) != COLUMNS:
            raise DataError(f"{path} is damaged: its columns are not {', '.join(COLUMNS)}")
        for number, cells in enumerate(lines, 2):
            where = f"{path} is damaged: line {number}"
            if len(cells) != len(COLUMNS):
                raise DataError(f"{where} has {len(cells)} cells, expected {len(COLUMNS)}")
            row = dict(zip(COLUMNS, cells, strict=True))
            if not _number(row, "matches", where):
                continue
            query = int(_number(row, "trial", where)), int(_number(row, "number", where))
            ap, share = _number(row, "ap", where), _number(row, "found", where)
            place = row["test"], row["ranking"], row["stage"]
            places.setdefault(place, []).append((query, row["identity"], ap, share))
    except csv.Error as error:
        raise DataError(f"{path} is damaged: it is not CSV: {error}") from None
    return {
        place: QueryTable(queries, identity, np.asarray(ap), np.asarray(found))
        for place, rows in places.items()
        for queries, identity, ap, found in [tuple(zip(*rows, strict=True))]
    }


def _number(row: Mapping[str, str], column: str, where: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        quoted = one_line_of(repr(row[column]), 60)
        raise DataError(f"{where} has {quoted} in the column {column}, expected a number from 0")
    return value
