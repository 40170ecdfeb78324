"""The pictures that a search is given: folders, CSV files, lists of paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.data.index import list_pictures
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError

Pictures = str | os.PathLike[str] | Iterable[str | os.PathLike[str] | Row]
"""A folder, a CSV file with the column path, a picture's path, or a list of paths."""


def rows_of(pictures: Pictures) -> tuple[Row, ...]:
    """Return the pictures as rows. Raises DataError where there are none, or where what lists them
    is damaged."""
    if isinstance(pictures, str | os.PathLike):
        path = Path(pictures)
        if path.suffix.lower() == ".csv" and not path.is_dir():
            return tuple(read_manifest(path, labelled=False))
        if not path.is_dir() and os.path.lexists(path):  # what is no file is told when it is opened
            return (Row(str(path.absolute()), "", split="gallery"),)
        return tuple(list_pictures(path))
    rows = tuple(
        one if isinstance(one, Row) else Row(os.path.abspath(one), "", split="gallery")
        for one in pictures
    )
    if not rows:
        raise DataError("there are no pictures to make templates of")
    return rows


def same_files(query: Sequence[Row], gallery: Sequence[Row]) -> Tensor:
    """Return the places of all pairs of a query and a gallery picture that are one file, int64
    [2, N]."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(gallery):
        places.setdefault(os.path.realpath(row.path), []).append(place)
    pairs = [
        (place, other)
        for place, row in enumerate(query)
        for other in places.get(os.path.realpath(row.path), ())
    ]
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
