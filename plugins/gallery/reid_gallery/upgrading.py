"""Extracts all pictures of a gallery anew, for another run."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import lance
import numpy as np
import pyarrow as pa

from reid_gallery.extraction import Damaged, Extractor
from reid_gallery.keeping import UPGRADE, alone, ids_in, listed, require_same
from reid_gallery.rows import Entry, row_of
from reid_gallery.schema import Origin
from reid_gallery.tables import Tables
from reid_gallery.told import told
from reidcore.errors import DataError
from reidcore.tools import Search

SHARD = 1024
ROWS = 8192
"""Rows that are copied at once."""


def digest_of(made_by: str, half: bool) -> str:
    """Return a short text for names of tables of one run's templates."""
    return hashlib.blake2b(f"{made_by}\0{half}".encode(), digest_size=6).hexdigest()


@attrs.frozen(eq=False)
class Upgrade:
    """Replaces the templates of a gallery by those of another run.

    They are extracted into a table of their own, which a killed upgrade goes on with; then one
    commit replaces the rows. Until then searches see the old ones.

    old, new: the gallery's origin before and after. search: the new run.
    """

    tables: Tables
    old: Origin
    new: Origin
    search: Search

    @property
    def _own(self) -> Tables:
        """Tables whose pictures are the new rows."""
        name = f"{UPGRADE}{digest_of(self.new.made_by, self.new.half)}.lance"
        return attrs.evolve(self.tables, pictures=name)

    def run(self, drop_missing: bool, progress: Any) -> int:
        """Do all of it, and return how many pictures there are.

        drop_missing: remove the pictures whose sources cannot be read any more, in place of
        raising DataError. progress: has `start(total)` and `at(done)`.
        """
        own = self._own
        damaged: dict[int, Damaged] = {}
        while True:
            with self.tables.writing():  # who forgets changes these tables, too
                if not own.exists():
                    own.create(self.new)
                left = [number for number in self._left() if number not in damaged]
            if not left:
                break
            progress.start(len(left))
            for start in range(0, len(left), SHARD):
                with self.tables.writing():
                    damaged |= self._extract(left[start : start + SHARD], progress.at(start))
        if damaged and not drop_missing:
            some = "\n  ".join(f"{name}: {why}" for name, why in list(damaged.values())[:5])
            raise DataError(
                f"{len(damaged)} pictures of the gallery cannot be extracted anew, and it stays as "
                f"it was:\n  {some[:600]}\nPut them back and do it again, or give these up with "
                "--drop-missing"
            )
        return self._switch(set(damaged))

    def _left(self) -> list[int]:
        """The ids of rows that are not extracted yet."""
        ids = ids_in(require_same(self.tables, self.old))
        return [int(number) for number in np.setdiff1d(ids, ids_in(self._own.open()))]

    def _extract(self, ids: Sequence[int], progress: Any) -> dict[int, Damaged]:
        """Extract some rows; return the damaged ones by id."""
        names = ["id", "source", "box", "camera", "time", "modality", "added"]
        cells = self.tables.open().to_table(columns=names, filter=listed(list(ids)))
        entries = [Entry(row_of(one)) for one in cells.to_pylist()]
        found = Extractor(self.search, self.new, pa.schema([])).extract(entries, progress)
        # Not by key: links may have changed, so that two rows lead to one file.
        numbers = dict(zip(map(id, entries), cells.column("id").to_pylist(), strict=True))
        new_ids = pa.array([numbers[id(entry)] for entry in found.entries], pa.int64())
        rows = found.rows.set_column(0, found.rows.schema.field(0), new_ids)
        maps = found.maps
        if maps is not None:
            maps = maps.set_column(0, maps.schema.field(0), new_ids)
            self._own.append(self.new.maps, self._own.write(self.new.maps, maps))
        self._own.append(self._own.pictures, self._own.write(self._own.pictures, rows))
        good = {*map(id, found.entries)}
        lost = [entry for entry in entries if id(entry) not in good]
        why = dict(found.damaged)
        return {
            numbers[id(entry)]: (entry.row.name, why.get(entry.row.name, "is damaged"))
            for entry in lost
        }

    def _switch(self, dropped: set[int]) -> int:
        """Replace the rows in one commit, with what is known of them now; remove the old files."""
        tables, own = self.tables, self._own
        with alone(tables), told(tables.place):
            dataset = require_same(tables, self.old)
            ready = ids_in(own.open())
            late = np.setdiff1d(ids_in(dataset), [*ready.tolist(), *dropped])
            for start in range(0, len(late), SHARD):  # added since
                some = late[start : start + SHARD].tolist()
                dropped |= set(self._extract(some, lambda done: None))
            schema = self.new.schema(self.old.extra(dataset.schema))
            fragments = tables.write(tables.pictures, self._merged(dataset, schema))
            lance.LanceDataset.commit(
                tables.uri(tables.pictures),
                lance.LanceOperation.Overwrite(schema, fragments),
                read_version=dataset.version,
                storage_options=tables.options,
            )
            if tables.folder is not None:
                for name in (own.pictures, self.old.maps if self.old.maps != self.new.maps else ""):
                    if name:
                        shutil.rmtree(tables.folder / name, ignore_errors=True)
            return int(tables.open().count_rows())

    def _merged(self, dataset: lance.LanceDataset, schema: pa.Schema) -> pa.RecordBatchReader:
        """The new templates beside the old cells, in the old order, without rows that have gone."""
        vectors = [column.name for column in self.new.columns if not column.wide]
        cells = [name for name in schema.names if name not in vectors]

        def batches() -> Iterator[pa.RecordBatch]:
            new = self._own.open()
            found = new.to_table(columns=["id"], with_row_id=True)
            ids = found.column("id").to_numpy()
            order = np.argsort(ids, kind="stable")
            ids, rows = ids[order], found.column("_rowid").to_numpy()[order]
            for old in dataset.to_batches(columns=cells, batch_size=ROWS):
                own = old.column("id").to_numpy()
                place = np.searchsorted(ids, own)
                there = place < len(ids)
                there[there] = ids[place[there]] == own[there]
                kept = pa.Table.from_batches([old]).filter(pa.array(there))
                if not len(kept):
                    continue
                wanted = pa.array(rows[place[there]])
                taken = new._take_rows(wanted, columns=["id", *vectors])
                assert taken.column("id").to_pylist() == kept.column("id").to_pylist()
                columns = [
                    (taken if name in vectors else kept).column(name) for name in schema.names
                ]
                yield from pa.table(columns, schema=schema).combine_chunks().to_batches()

        return pa.RecordBatchReader.from_batches(schema, batches())
