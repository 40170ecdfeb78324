"""The pictures that a search is given: folders, CSV files, paths, rows, and pictures in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.data.archives import is_archive
from reidcore.data.index import list_pictures
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError, UsageError
from reidcore.search.memory_pictures import InMemory, memory_picture, next_name

Given = str | os.PathLike[str] | Row | Image.Image | np.ndarray | Tensor
"""One picture: a path, a row, a picture of Pillow's, a uint8 array [H, W, 3] or a uint8 tensor
[3, H, W], in the order red, green, blue."""
Pictures = Given | Iterable[Given]
"""One picture, a list of them, a folder, a zip, or a CSV file with the column path."""


def rows_of(pictures: Pictures) -> tuple[Row, ...]:
    """Return the pictures as rows.

    Raises DataError where there are none, or where what lists them is damaged, UsageError for what
    is no picture.
    """
    if isinstance(pictures, str | os.PathLike):
        path = Path(pictures)
        if path.suffix.lower() == ".csv" and not path.is_dir():
            return tuple(read_manifest(path, labelled=False))
        if is_archive(path):
            return tuple(list_pictures(path))
        if not path.is_dir() and os.path.lexists(path):  # what is no file is told when it is opened
            return (Row(str(path.absolute()), "", split="gallery"),)
        return tuple(list_pictures(path))
    if isinstance(pictures, Row | Image.Image | np.ndarray | Tensor):
        return (_row(pictures, next_name(), "the picture"),)
    if not isinstance(pictures, Iterable) or isinstance(pictures, bytes | bytearray):
        raise UsageError(_no_picture(pictures, "what was given"))
    name = next_name()
    rows = tuple(
        _row(one, f"{name}[{place}]", f"picture {place} of the list (the first is 0)")
        for place, one in enumerate(pictures)
    )
    if not rows:
        raise DataError("there are no pictures to make templates of")
    return rows


def _row(given: Given, name: str, place: str) -> Row:
    """Return one picture as a row. name: of a picture in memory. place: the picture, in words."""
    if isinstance(given, Row):
        return given
    if isinstance(given, str | os.PathLike):
        return Row(os.path.abspath(given), "", split="gallery")
    opener = memory_picture(given, place)
    if opener is None:
        raise UsageError(_no_picture(given, place))
    return Row(name, "", split="gallery", opener=opener)


def _no_picture(given: object, place: str) -> str:
    return (
        f"{place} is of the type {type(given).__name__}, expected a path, a picture of Pillow's, a "
        "uint8 array [H, W, 3] or a uint8 tensor [3, H, W]"
    )


def same_files(query: Sequence[Row], gallery: Sequence[Row]) -> Tensor:
    """Return the places of all pairs of a query and a gallery picture that are one file, and one
    box of it, int64 [2, N]."""
    places: dict[object, list[int]] = {}
    for place, row in enumerate(gallery):
        places.setdefault(_file(row), []).append(place)
    pairs = [
        (place, other) for place, row in enumerate(query) for other in places.get(_file(row), ())
    ]
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T


def _file(row: Row) -> object:
    path = row.path if isinstance(row.opener, InMemory) else os.path.realpath(row.path)
    return path, row.box
