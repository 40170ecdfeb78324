"""Manifests: the CSV files that list a data set's pictures, one a line.

The header is `path,pid,camera,split[,time,modality,box]`, in any order; other columns are ignored.
Paths are relative to the manifest's folder and may lead into a zip, such as `frames.zip/0001.jpg`.
`camera`, `time`, `modality` and `box` may be absent or have empty cells. Torch-free.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.openers import whole_box
from reidcore.contracts.row_labels import SPLITS
from reidcore.contracts.rows import COLUMNS, OPTIONAL, REQUIRED
from reidcore.errors import DataError, nearest
from reidcore.support.files import write_atomically
from reidcore.support.text_table import csv_text
from reidcore.support.wording import shortened

BOX = "box"
"""Column of boxes, `left top right bottom` in pixels."""
KNOWN = (*COLUMNS, BOX)
"""All columns that are read."""
LATEST = 1e30
"""Seconds beyond which, on either side of 0, differences of times are no longer computed with."""
MOST_PROBLEMS = 10
"""Problems of one file that are listed before the rest is only counted."""
LONGEST_PROBLEM = 300
"""Characters of a problem that are shown."""


def find_data(text: str, variable: str = "REID_DATA") -> Path:
    """Return the absolute path of a file or folder that a run file names, there or not.

    A relative `text` is looked up under the folder in the environment variable `variable`
    (REID_DATA or REID_WEIGHTS), and under the current folder if that is unset or empty.
    """
    base = os.environ.get(variable) or "."
    return Path(os.path.expanduser(base), os.path.expanduser(text)).absolute()


def lookup_rule(variable: str = "REID_DATA") -> str:
    """Return, as a sentence for messages, where relative paths are looked up (see `find_data`)."""
    base = os.environ.get(variable)
    where = f"which is {base}" if base else "or, while it is not set, in the current folder"
    return f"Relative paths are looked up under {variable}, {where}."


def read_manifest(
    path: Path,
    labelled: bool = True,
    content: bytes | None = None,
    split: str = "",
) -> list[Row]:
    """Return the rows of the CSV file `path`, in its order. Pictures are not looked at.

    content: of the file, where it is in an archive. split: of every row, if it is given; the
    column split is not read then. Unless `labelled`, only the column path is required and pid and
    split are not read: every row has the pid "" and the split "gallery".
    `Row.path` is absolute and `Row.listed` is such as "ward.csv row 12", the line an editor shows.
    Cells other than paths lose surrounding blanks. Raises `DataError`, which lists the first ten
    problems at once.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from reidcore.api import read_manifest
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "mine.csv")
        ...     _ = file.write_text("path,pid,camera,split\\na.jpg,7,2,train\\n")
        ...     (row,) = read_manifest(file)
        >>> row.pid, row.camera, row.split
        ('7', '2', 'train')
    """
    path = Path(path).absolute()
    data = _content(path) if content is None else content
    given = {"split": split} if split else {}
    if not labelled:
        given = {"pid": "", "split": "gallery"}
    header, records = _table(path, data, [name for name in REQUIRED if name not in given])
    rows: list[Row] = []
    problems: list[str] = []
    seen: dict[str, list[tuple[int, Row]]] = {}
    for line, cells in records:
        listed = f"{path.name} row {line}"
        if len(cells) > len(header) and not any(cells[len(header) :]):
            cells = cells[: len(header)]
        if len(cells) != len(header):
            hint = "; quote a cell that has a comma" if len(cells) > len(header) else ""
            problems.append(f"{listed}: {len(cells)} cells, expected {len(header)}{hint}")
            continue
        named = dict(zip(header, cells, strict=True)) | given
        row, complaints = _parse(named, str(path.parent), listed, labelled)
        place = os.path.normpath(row.name)
        if not complaints:
            complaints = _clashes(row, named["path"], seen.get(place, ()))
        if complaints:
            problems += [f"{listed}: {complaint}" for complaint in complaints]
            continue
        seen.setdefault(place, []).append((line, row))
        rows.append(row)
    if problems:
        raise of_problems(f"manifest {path}", problems)
    if not rows:
        raise DataError(f"manifest {path} lists no pictures: there is nothing after its header")
    return rows


def of_problems(file: str, problems: Sequence[str]) -> DataError:
    """Return the error that lists the first problems of a file, and says how many there are."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
    shown = [shortened(text, LONGEST_PROBLEM) for text in problems[:MOST_PROBLEMS]]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown):,} more")
    return DataError("\n  ".join([f"{file} has {count}:", *shown]))


def unused_columns(path: Path) -> list[str]:
    """Return the columns that `read_manifest` ignores, each with the absent one it may be meant
    for, such as "camara, did you mean 'camera'?"."""
    path = Path(path).absolute()
    header, _ = _table(path, _content(path))
    free = [column for column in KNOWN if column not in header]
    return [name + nearest(name.lower(), free) for name in header if name and name not in KNOWN]


def write_manifest(path: Path, rows: Sequence[Row], for_index: bool = False) -> None:
    """Write `rows` as a manifest that appears whole or not at all, replacing an existing one.

    Paths are written relative to the manifest's folder with forward slashes, an optional column
    only if some row fills it. `for_index` writes no pid and split, and absolute paths: an index of
    templates may lie anywhere. Openers are not written. Raises `OutputError` if the file cannot be
    written, `DataError` for a path that is not Unicode.
    """
    path = Path(path).absolute()
    filled = {
        name
        for name in (*OPTIONAL, BOX)
        if any(getattr(row, name) not in ("", None) for row in rows)
    }
    required = REQUIRED[:1] if for_index else REQUIRED
    header = [name for name in KNOWN if name in required or name in filled]
    lines = [header]
    for row in rows:
        cells = {
            "path": row.path if for_index else _relative(row.path, path.parent),
            "pid": row.pid,
            "camera": row.camera,
            "split": row.split,
            "time": "" if row.time is None else repr(float(row.time)).removesuffix(".0"),
            "modality": row.modality,
            BOX: " ".join(map(str, row.box or ())),
        }
        try:
            "".join(cells.values()).encode()
        except UnicodeEncodeError:
            raise DataError(
                f"cannot write manifest {path}: {cells['path']!a} is not Unicode"
            ) from None
        lines.append([cells[name] for name in header])
    write_atomically(path, csv_text(lines))


def manifest_hash(rows: Sequence[Row]) -> str:
    """Return the SHA-256 (hex) of every field of every row but `listed`.

    Paths count relative to the rows' common folder, so moving a data set changes nothing. The
    order of the rows does matter: samplers draw by index, so another order is another run.
    """
    paths = [os.path.normpath(row.path) for row in rows]
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # no rows, or several drives: no common folder
        common = ""
    digest = hashlib.sha256()
    for row, path in zip(rows, paths, strict=True):
        inner = (os.path.relpath(path, common) if common else path).replace(os.sep, "/")
        fields: list[object] = [inner, row.pid, row.camera, row.split, row.time, row.modality]
        if row.box is not None:
            fields.append(row.box)
        digest.update(json.dumps(fields).encode() + b"\n")
    return digest.hexdigest()


def _table(
    path: Path, data: bytes, required: Sequence[str] = REQUIRED
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the checked header, and an iterator over (line, cells) of the records below it."""
    records = _records(path, _text(path, data))
    _, header = next(records, (0, []))
    header = [name.strip() for name in header]
    if not any(header):
        raise DataError(
            f"manifest {path} is empty; expected the header {','.join(COLUMNS)} "
            "(camera, time and modality are optional, and so is box) and a line for each picture"
        )
    missing = [name for name in required if name not in header]
    if missing:
        text = f"manifest {path} lacks {', '.join(missing)}; its header has: {', '.join(header)}."
        for name in header:
            if close := nearest(name.lower(), missing):
                text += f" Column {name!r}{close}"
        if len(header) == 1 and (mark := re.search("[;\t]", header[0])):
            text += f" Cells are separated by {mark[0]!r}, expected commas."
        raise DataError(text)
    twice = sorted({name for name in header if name in KNOWN and header.count(name) > 1})
    if twice:
        raise DataError(f"manifest {path} has the column {', '.join(twice)} more than once")
    return header, records


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"manifest not found at {path}") from None
    except IsADirectoryError:
        raise DataError(f"manifest {path} is a folder; expected a CSV file") from None
    except OSError as error:
        raise DataError(f"manifest {path} cannot be read: {error.strerror or error}") from error


def _text(path: Path, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"manifest {path} is UTF-16, expected UTF-8; save it as 'CSV UTF-8'")
    zero = data.find(b"\0")
    if zero >= 0:
        raise DataError(
            f"manifest {path} is damaged: {path.name} row {_line(data, zero)} has a NUL byte"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the byte order mark.
        start = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise DataError(
            f"manifest {path} is not UTF-8: {path.name} row {_line(data, start)} has the byte "
            f"0x{data[start]:02x}; save it as 'CSV UTF-8'"
        ) from None


def _line(data: bytes, offset: int) -> int:
    """Return the line, from 1, of the byte at `offset`, with every kind of line end."""
    return data[:offset].replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"manifest {path} is not CSV: {path.name} row {line}: {error}"
            ) from None
        if any(cell.strip() for cell in cells):
            yield line, cells


def _parse(
    cells: dict[str, str], folder: str, listed: str, labelled: bool
) -> tuple[Row, list[str]]:
    """Return a row, and complaints about its cells."""
    path = cells["path"]
    value = {name: cells.get(name, "").strip() for name in KNOWN if name != "path"}
    complaints = []
    if not path.strip():
        complaints.append("path is empty, expected a picture's file")
    if not value["pid"] and labelled:
        complaints.append("pid is empty, expected the identity's name or number")
    split = value["split"]
    if split not in SPLITS:
        close = nearest(split.lower(), SPLITS) or f", expected one of {', '.join(SPLITS)}"
        complaints.append(f"split {split!r}{close}")
        split = SPLITS[0]  # So that the row can be looked at further.
    time = None
    if value["time"]:
        try:
            time = float(value["time"])
        except ValueError:
            time = math.nan
        if not abs(time) <= LATEST:
            complaints.append(f"time {value['time']!r}, expected seconds, such as 12.5, or nothing")
    full = os.path.join(folder, path)
    # "link/../a.jpg" is not "a.jpg" where link is a symbolic link, so ".." is left to the system.
    if os.pardir not in path:
        full = os.path.normpath(full)
    row = Row(full, value["pid"], value["camera"], split, time, value["modality"], listed)
    if value[BOX]:
        try:
            row = attrs.evolve(row, box=whole_box(_box(value[BOX]), listed))
        except (ValueError, DataError) as error:
            complaints.append(str(error).removeprefix(f"{listed}: "))
    return row, complaints


def _box(cell: str) -> Sequence[float | str]:
    """Return the numbers in a cell such as "10 20 60 100" or "(10, 20, 60, 100)"; other cells are
    refused by the row."""
    try:
        return [float(part) for part in re.split(r"[\s,;]+", cell.strip("[]() \t"))]
    except ValueError:
        return cell


def _clashes(row: Row, path: str, earlier: Iterable[tuple[int, Row]]) -> list[str]:
    """Return complaints if earlier rows list the same picture in one split or of another identity.

    Query and gallery may share a picture.
    """
    box = "" if row.box is None else f" with the box {' '.join(map(str, row.box))}"
    for line, other in earlier:
        if other.pid != row.pid:
            return [f"path {path!r}{box} has pid {row.pid!r}, but pid {other.pid!r} in row {line}"]
        if other.split == row.split:
            return [
                f"path {path!r}{box} is listed twice in split {row.split!r}, first in row {line}"
            ]
    return []


def _relative(path: str, folder: Path) -> str:
    try:
        inner = os.path.relpath(path, folder)
        if inner.split(os.sep)[0] == os.pardir:
            # ".." leads to the parent of where a symbolic link points.
            real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            inner = os.path.relpath(real, os.path.realpath(folder))
    except ValueError:  # another drive
        inner = os.path.abspath(path)
    return inner.replace(os.sep, "/")
