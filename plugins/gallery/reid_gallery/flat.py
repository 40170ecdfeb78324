"""Where a column of vectors lies in a file of Lance, so that scattered rows are read from there.

Lance looks for each row by itself, which takes most of the time of a search in few rows. A file
that is laid out in any way but the one that is known here has no `Flat`, and is left to Lance.
"""

from __future__ import annotations

import mmap
import re
from functools import lru_cache
from pathlib import Path

import attrs
import lance
import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader
from lance.fragment import LanceFragment

from reid_gallery.schema import Column

LOCAL = frozenset(["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs"])
"""File systems in which a file that another machine removes does not end who has mapped it."""

_SOME = "ArrayEncoding{array_encoding:Some(%s,),}"
_FULL = "Nullable(Nullable{nullability:Some(NoNulls(NoNull{values:Some(%s,),},),),},)"
_LIST = "FixedSizeList(FixedSizeList{dimension:%d,has_validity:false,items:Some(%s,),},)"
_FLAT = (
    "Flat(Flat{bits_per_value:%d,buffer:Some(Buffer{buffer_index:0,buffer_type:Page,},),"
    "compression:None,},)"
)


def described(size: int, bits: int) -> str:
    """Return Lance's description, without spaces, of a page of vectors of `size` numbers that lie
    one behind the other, not packed and without nulls."""
    numbers = _SOME % (_FULL % (_SOME % (_FLAT % bits)))
    return _SOME % (_FULL % (_SOME % (_LIST % (size, numbers))))


@attrs.frozen(eq=False)
class Flat:
    """Where the vectors of a fragment lie in its file.

    kind: Arrow's type of the column. width: bytes of a vector. first, position: of each page, its
    first row and its place in the file, int64 [P], both ascending.
    """

    path: Path
    kind: pa.FixedSizeListType
    width: int
    first: np.ndarray
    position: np.ndarray

    @classmethod
    def of(
        cls, dataset: lance.LanceDataset, fragment: LanceFragment, column: Column
    ) -> Flat | None:
        """Return where a column of a local table lies, None if it is not just as is known here.
        Raises OSError where the file has gone."""
        whole = fragment.metadata
        fields = {one.name(): one.id() for one in dataset.lance_schema.fields()}
        files = [one for one in whole.files if fields.get(column.name) in one.fields]
        if len(files) != 1 or getattr(whole, "overlays", None):
            return None
        (file,) = files
        version = file.file_major_version, file.file_minor_version
        if version != (2, 0) or getattr(file, "base_id", None) is not None:
            return None
        path = Path(dataset.uri) / "data" / file.path
        place = file.column_indices[file.fields.index(fields[column.name])]
        pages = LanceFileReader(str(path)).metadata().columns[place].pages
        kind = column.field.type
        known = described(kind.list_size, kind.value_type.bit_width)
        if any(len(one.buffers) != 1 or _bare(one.encoding) != known for one in pages):
            return None
        buffers = [page.buffers[0] for page in pages]
        rows = [divmod(one.size, column.bytes) for one in buffers]
        if any(rest for _, rest in rows) or sum(own for own, _ in rows) != whole.physical_rows:
            return None
        first = np.cumsum([0, *(own for own, _ in rows)])[:-1]
        position = np.array([one.position for one in buffers], np.int64)
        return cls(path, kind, column.bytes, first, position)

    def read(self, rows: np.ndarray) -> pa.FixedSizeListArray:
        """Return the vectors of some rows, ascending int64 [N] counted from the file's first.
        Raises OSError where the file has gone."""
        found = np.empty((len(rows), self.width), np.uint8)
        with open(self.path, "rb") as file:
            # Not kept: a mapped file that is removed would stay on disk.
            whole = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        ends = [*np.searchsorted(rows, self.first), len(rows)]
        for page, (first, position) in enumerate(zip(self.first, self.position, strict=True)):
            some = slice(ends[page], ends[page + 1])
            if some.start < some.stop:
                own = rows[some] - first
                vectors = whole[position : position + (own[-1] + 1) * self.width]
                vectors = vectors.reshape(-1, self.width)
                np.take(vectors, own, 0, out=found[some], mode="clip")
        numbers = pa.Array.from_buffers(
            self.kind.value_type, len(rows) * self.kind.list_size, [None, pa.py_buffer(found)]
        )
        return pa.FixedSizeListArray.from_arrays(numbers, type=self.kind)


def _bare(description: str) -> str:
    return re.sub(r"\s", "", description)


@lru_cache
def is_local(place: str, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Return whether a folder lies in one of the file systems in `LOCAL`. mounts: Linux's list."""
    if "://" in place or not mounts.exists():  # an object store; another system than Linux
        return False
    folder = Path(place).resolve()
    kind, longest = "", -1
    for line in mounts.read_text().splitlines():
        fields = line.split()
        point = Path(re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        if folder.is_relative_to(point) and len(point.parts) >= longest:
            kind, longest = fields[fields.index("-") + 1], len(point.parts)
    return kind in LOCAL
