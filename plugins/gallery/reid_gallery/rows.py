"""Pictures that are to be added: rows with what a CSV file says of them."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa

from reid_gallery.answers import Match
from reid_gallery.schema import BASE, OWN
from reidcore.api import Row
from reidcore.errors import DataError
from reidcore.tools import has_path, rows_of

_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)?(\.[0-9]+)?([eE][+-][0-9]+)?")
"""Plain decimals, and as what programs write very large and very small numbers."""
_KNOWN = ("path", "camera", "time", "modality", "box", "added")
_IDENTITY = {"pid": "identity"}
"""Columns of manifests by the gallery's names."""
_TAKEN = OWN | ({one.name for one in attrs.fields(Match)} - set(BASE.names))
"""Columns that the gallery has itself, and what answers say of a match beside its columns."""


@attrs.frozen
class Entry:
    """A picture, with the cells that a CSV file has of it beyond those of a row: its identity, its
    tracklet, and the user's own."""

    row: Row
    cells: dict[str, str] = attrs.field(factory=dict)

    @property
    def key(self) -> bytes:
        """16 bytes that follow from the picture's place, and from its box if it has one."""
        return key_of(self.row)

    @property
    def keys(self) -> frozenset[bytes]:
        """The keys that the picture's row may have: its own, and of a zip's member that of its path
        as it is, by which galleries knew it before links were followed there. Such a row is found
        by the path that it was added by; by another, the picture is added once more."""
        zipped = self.row.opener is not None
        return frozenset([self.key, *([key_at(self.row.path, self.row.box)] if zipped else [])])

    @property
    def box(self) -> str | None:
        """The box as a manifest writes it."""
        return None if self.row.box is None else " ".join(map(str, self.row.box))


def row_of(cells: dict[str, Any]) -> Row:
    """Return a row of the table of pictures as the run takes it."""
    box: Any = tuple(int(side) for side in cells["box"].split()) if cells["box"] else None
    camera, modality = cells["camera"] or "", cells["modality"] or ""
    return Row(cells["source"], "", camera, "gallery", cells["time"], modality, box=box)


def key_of(row: Row) -> bytes:
    """Return the key of a row; equal where a file or a zip's member, links followed, and the box
    are the same. What only an opener can read, as a picture in memory, is known by its name."""
    return key_at(os.path.realpath(row.path) if has_path(row) else row.path, row.box)


def key_at(path: str, box: Sequence[int] | None) -> bytes:
    """Return the key of a picture at a path."""
    text = f"{path}\0{' '.join(map(str, box or ()))}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def entries_of(pictures: Any) -> list[Entry]:
    """Return the pictures of a folder, a zip, a CSV file, or a list (also of entries), once.

    Raises DataError where there are none, and for a CSV file with mistakes.
    """
    if pictures and isinstance(pictures, list) and all(isinstance(one, Entry) for one in pictures):
        found = list(pictures)
    else:
        found = [Entry(row) for row in rows_of(pictures)]
    if isinstance(pictures, str | os.PathLike):
        path = Path(pictures)
        if path.suffix.lower() == ".csv" and not path.is_dir():
            found = _with_cells(found, path)
    seen: dict[bytes, Entry] = {}
    for entry in found:
        seen.setdefault(entry.key, entry)
    return list(seen.values())


def _with_cells(entries: Sequence[Entry], path: Path) -> list[Entry]:
    """The rows of a CSV file, which has been checked, with its other cells."""
    reader = csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline=""), strict=True)
    header = [_IDENTITY.get(name.strip(), name.strip()) for name in next(reader)]
    names = {place: name for place, name in enumerate(header) if name and name not in _KNOWN}
    _check_names(path, list(names.values()))
    cells: dict[str, dict[str, str]] = {}
    line = reader.line_num + 1
    for record in reader:
        cells[f"{path.name} row {line}"] = {
            name: record[place].strip() for place, name in names.items() if place < len(record)
        }
        line = reader.line_num + 1
    return [attrs.evolve(entry, cells=cells[entry.row.listed]) for entry in entries]


def _check_names(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if name in _TAKEN or "__" in name or name.startswith("_"):
            raise DataError(
                f"{path}: the column {name!r} has the name of one of the gallery's own, or of what "
                "a search answers, or begins with _; rename it"
            )
        if not name.isidentifier():
            raise DataError(
                f"{path}: the column {name!r} cannot be asked for in SQL; name it with letters, "
                "digits and _, beginning with a letter"
            )
        if names.count(name) > 1:
            raise DataError(f"{path} has the column {name!r} more than once")


def new_columns(entries: Iterable[Entry], known: pa.Schema) -> pa.Schema:
    """Return the user's columns that a gallery does not have yet: integers if all cells are such,
    floating-point numbers, or else texts, so that cells are kept as they are. known: the columns
    that it has."""
    values: dict[str, list[str]] = {}
    for entry in entries:
        for name, cell in entry.cells.items():
            if name not in known.names and name not in BASE.names:
                values.setdefault(name, []).append(cell)
    return pa.schema([pa.field(name, _type(cells)) for name, cells in values.items()])


def _type(cells: Iterable[str]) -> pa.DataType:
    filled = [cell for cell in cells if cell]
    for kind in (pa.int64(), pa.float64()):
        try:
            if filled and all(_read(cell, kind) is not None for cell in filled):
                return kind
        except ValueError:
            continue
    return pa.string()


def _read(cell: str, kind: pa.DataType) -> Any:
    """A cell's value, None if it is empty. Raises ValueError if it is not of the type, also where
    the type would change it, as 0042, 1e5 and numbers of too many digits."""
    if not cell:
        return None
    if pa.types.is_integer(kind):
        value = int(cell)
        if str(value) != cell or not -(2**63) <= value < 2**63:
            raise ValueError("it would not be kept as it is")
        return value
    if pa.types.is_floating(kind):
        number = float(cell)
        whole = cell.removeprefix("-").isdigit()
        if (
            not _DECIMAL.fullmatch(cell)
            or not math.isfinite(number)
            or (whole and int(number) != int(cell))
        ):
            raise ValueError("it would not be kept as it is")
        return number
    return cell


def column(entries: Sequence[Entry], field: pa.Field) -> pa.Array:
    """Return one of the columns that come from cells. Raises DataError, which names the row, for a
    cell that is not of the column's type."""
    values = []
    whole = pa.types.is_integer(field.type)
    for entry in entries:
        cell = entry.cells.get(field.name, "")
        try:
            values.append(_read(cell, field.type))
        except ValueError:
            raise DataError(
                f"{entry.row.listed or entry.row.name}: {field.name} is {cell!r}, expected "
                f"a {'whole number such as 42' if whole else 'number such as 4.2'}, as in the "
                "gallery"
            ) from None
    return pa.array(values, field.type)
