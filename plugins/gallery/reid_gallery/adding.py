"""Adding in four steps: what is missing, extract a shard, write its files, commit.

The first and the last are done by one process that sees the table, the others by any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import lance
import numpy as np
import pyarrow as pa

from reid_gallery.extraction import Damaged, Extracted
from reid_gallery.keeping import require_same
from reid_gallery.rows import Entry, new_columns
from reid_gallery.schema import Origin
from reid_gallery.tables import Tables
from reid_gallery.told import told


@attrs.frozen(eq=False)
class Written:
    """A shard whose files are written and not committed yet; it can be pickled.

    entries: its pictures. ids: of its rows. pictures, maps: Lance's metadata of fragments.
    """

    entries: tuple[Entry, ...]
    ids: tuple[int, ...]
    pictures: list[Any]
    maps: list[Any]
    damaged: tuple[Damaged, ...] = ()


def missing(dataset: lance.LanceDataset, entries: Sequence[Entry]) -> list[Entry]:
    """Return the pictures that the gallery does not have, in their order."""
    wanted = {entry.key: entry for entry in entries}
    keys = {key: entry.key for entry in entries for key in entry.keys}
    for batch in dataset.to_batches(columns=["key"]):
        if not wanted:
            break
        for key in batch.column(0).to_pylist():
            wanted.pop(keys.get(key, key), None)
    return list(wanted.values())


def make_columns(tables: Tables, origin: Origin, entries: Iterable[Entry]) -> pa.Schema:
    """Give the table the user's columns that it lacks, and return all of them."""
    with tables.lock(), told(tables.place):
        dataset = tables.open()
        lacking = new_columns(entries, dataset.schema)
        if len(lacking):
            dataset.add_columns(lacking)
        schema = tables.open().schema
    # identity and tracklet are every gallery's, and come from cells as the user's own do.
    return origin.extra(schema)


def write(tables: Tables, origin: Origin, found: Extracted) -> Written:
    """Write a shard's files. Stay in `tables.writing()` until they are committed."""
    maps = tables.write(origin.maps, found.maps) if found.maps is not None else []
    pictures = tables.write(tables.pictures, found.rows)
    ids = tuple(found.rows.column("id").to_pylist())
    return Written(found.entries, ids, pictures, maps, found.damaged)


def commit(tables: Tables, origin: Origin, shards: Sequence[Written]) -> list[Written]:
    """Commit shards, all at once, and return those that were not: another program has added one of
    their pictures in the meantime. What is still missing of them must be extracted anew.

    What is committed is there for good when it returns. Maps are committed first: a kill in between
    leaves maps that no row names, and no row without its maps.
    """
    with tables.lock():
        dataset = require_same(tables, origin)
        with told(tables.place):
            late = [shard for shard in shards if _clashes(dataset, tables, origin, shard)]
        fine = [shard for shard in shards if shard not in late]
        if origin.maps:
            tables.append(origin.maps, [one for shard in fine for one in shard.maps])
        tables.append(tables.pictures, [one for shard in fine for one in shard.pictures])
    return late


def _clashes(dataset: lance.LanceDataset, tables: Tables, origin: Origin, shard: Written) -> bool:
    """Whether one of a shard's pictures, or one of its ids, is there by now."""
    if not shard.ids:
        return False
    if len(missing(dataset, shard.entries)) < len(shard.entries):
        return True
    span = f"id >= {min(shard.ids)} AND id <= {max(shard.ids)}"
    maps = tables.open_maps(origin)
    return any(
        np.isin(np.array(shard.ids), _ids(table, span)).any()
        for table in (dataset, maps)
        if table is not None
    )


def _ids(dataset: lance.LanceDataset, where: str) -> np.ndarray:
    found = dataset.to_table(columns=["id"], filter=where).column("id")
    return np.asarray(found.to_numpy(), dtype=np.int64)
