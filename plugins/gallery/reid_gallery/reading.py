"""Reads the rows of a gallery that meet a filter, in the tiles that `reid_gallery.scan` gives.

Which rows these are is told by facts in memory, and their vectors come straight from the files,
wherever both can be; elsewhere Lance filters and reads. The tiles are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import lance
import numpy as np
import pyarrow as pa
from lance.fragment import LanceFragment

from reid_gallery.facts import Facts, Rows, asked
from reid_gallery.filters import Filter
from reid_gallery.flat import Flat, is_local
from reid_gallery.scan import tile_rows, tiles
from reid_gallery.schema import Column
from reid_gallery.scoring import taken

KEPT = 1 << 26
"""Rows whose facts are kept in memory; those of others are read for every search."""
PROBES = 16
"""Rows that Lance reads, too, before what is read straight from a file is believed."""


@attrs.define(eq=False)
class Part:
    """What is kept of a fragment. flat: where its columns lie, None for those left to Lance."""

    facts: Facts | None = None
    flat: dict[str, Flat | None] = attrs.field(factory=dict)


class Reader:
    """Reads the tables of a gallery, and keeps what it has learnt of fragments that stay as they
    are. Threads may share one."""

    def __init__(self) -> None:
        self._version = -1
        self._parts: dict[str, Part] = {}

    def tiles(
        self,
        dataset: lance.LanceDataset,
        number: int,
        columns: Sequence[Column],
        chosen: Filter,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a fragment that meet a filter, as `reid_gallery.scan.tiles` does."""
        found = self._direct(dataset, number, columns, chosen) if chosen.sql else None
        if found is None:
            yield from tiles(dataset, number, columns, chosen.sql or None)
            return
        rows, flat = found
        step = tile_rows(columns)
        for start in range(0, len(rows), step):
            yield _tile(rows.at(slice(start, start + step)), flat)

    def count(self, dataset: lance.LanceDataset, chosen: Filter) -> int:
        """Return how many rows meet a filter."""
        fragments = dataset.get_fragments()
        return sum(len(self._rows(dataset, one, chosen)) for one in fragments)

    def _direct(
        self, dataset: lance.LanceDataset, number: int, columns: Sequence[Column], chosen: Filter
    ) -> tuple[Rows, dict[str, Flat]] | None:
        """The rows of a fragment that meet a filter, and where their columns lie; None where that
        is not known for sure."""
        if not is_local(dataset.uri):
            return None
        fragment = dataset.get_fragment(number)
        assert fragment is not None
        rows = self._rows(dataset, fragment, chosen)
        part = self._part(dataset, fragment)
        for column in columns:
            if column.name not in part.flat:
                if not len(rows):  # of which none could be read both ways
                    return rows, {}
                flat = Flat.of(dataset, fragment, column)
                same = flat is not None and _agrees(dataset, column, flat, rows)
                part.flat[column.name] = flat if same else None
        found = {one.name: part.flat[one.name] for one in columns}
        known = {name: flat for name, flat in found.items() if flat is not None}
        return (rows, known) if len(known) == len(found) else None

    def _rows(self, dataset: lance.LanceDataset, fragment: LanceFragment, chosen: Filter) -> Rows:
        if chosen.where or chosen.identity is not None:
            return asked(dataset, fragment, chosen)
        part = self._part(dataset, fragment)
        facts = part.facts or Facts.read(dataset, fragment)
        kept = sum(len(one.facts.ids) for one in [*self._parts.values()] if one.facts is not None)
        if part.facts is None and kept < KEPT:
            part.facts = facts
        return facts.meeting(chosen)

    def _part(self, dataset: lance.LanceDataset, fragment: LanceFragment) -> Part:
        if dataset.version != self._version:
            # A description names files, which never change; whatever changes rows makes new ones.
            current = {repr(one.metadata) for one in dataset.get_fragments()}
            self._parts = {key: part for key, part in [*self._parts.items()] if key in current}
            self._version = dataset.version
        return self._parts.setdefault(repr(fragment.metadata), Part())


def _agrees(dataset: lance.LanceDataset, column: Column, flat: Flat, rows: Rows) -> bool:
    """Whether some rows are the same to the last bit by the file and by Lance."""
    some = rows.at(np.unique(np.linspace(0, len(rows) - 1, PROBES, dtype=np.int64)))
    theirs = taken(dataset, some.addresses, [column.name]).column(0).combine_chunks()
    return _bytes(flat.read(some.places)) == _bytes(theirs)


def _bytes(vectors: pa.FixedSizeListArray) -> bytes:
    return vectors.flatten().to_numpy(zero_copy_only=True).tobytes()


def _tile(rows: Rows, flat: dict[str, Flat]) -> pa.RecordBatch:
    cells = {
        "id": pa.array(rows.ids),
        **{name: one.read(rows.places) for name, one in flat.items()},
        "_rowid": pa.array(rows.addresses.astype(np.uint64)),
    }
    return pa.record_batch(cells)
