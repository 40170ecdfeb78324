"""Changes rows that are there: labels them, removes them, forgets them."""

from __future__ import annotations

from collections.abc import Sequence

import lance
import pyarrow as pa

from reid_gallery.filters import Filter, quoted
from reid_gallery.keeping import alone, listed, purge, require_same, sweep
from reid_gallery.rows import Entry
from reid_gallery.schema import Origin
from reid_gallery.tables import Tables
from reid_gallery.told import told
from reidcore.errors import UsageError

AT_ONCE = 10_000
"""Rows that are rewritten in one commit."""
LABELS = ("identity", "tracklet")


def chosen(
    dataset: lance.LanceDataset, rows: Filter, pictures: Sequence[Entry] | None
) -> str | None:
    """Return the condition for rows that meet a filter and, if pictures are given, are of these."""
    condition = rows.check(dataset)
    if pictures is None:
        return condition
    ids = listed(list(ids_of(dataset, pictures)))
    return ids if condition is None else f"{ids} AND {condition}"


def ids_of(dataset: lance.LanceDataset, pictures: Sequence[Entry]) -> dict[int, bytes]:
    """The ids of all rows of some pictures, each with its picture's key."""
    keys = {key: entry.key for entry in pictures for key in entry.keys}
    found: dict[int, bytes] = {}
    for batch in dataset.to_batches(columns=["key", "id"]):
        pairs = zip(batch.column("key").to_pylist(), batch.column("id").to_pylist(), strict=True)
        found.update((number, keys[key]) for key, number in pairs if key in keys)
    return found


def label(
    tables: Tables,
    origin: Origin,
    labels: dict[str, str | None],
    rows: Filter,
    pictures: Sequence[Entry] | None,
) -> int:
    """Give rows an identity or a tracklet, in one commit, and return how many there are."""
    with tables.lock(), told(tables.place, rows.where):
        dataset = require_same(tables, origin)
        condition = chosen(dataset, rows, pictures)
        values = {key: "NULL" if value is None else quoted(value) for key, value in labels.items()}
        count = dataset.count_rows(filter=condition)
        if count:
            dataset.update(values, where=condition)
        return int(count)


def label_each(tables: Tables, origin: Origin, pictures: Sequence[Entry]) -> int:
    """Give each picture the identity and tracklet of its own cells, where these are not empty, and
    return how many rows changed. Raises UsageError if no picture has such cells."""
    labels = {
        entry.key: {name: entry.cells[name] for name in LABELS if entry.cells.get(name)}
        for entry in pictures
    }
    if not any(labels.values()):
        raise UsageError(
            "the pictures have no identity: name a CSV file with the column identity, or give one "
            "for all of them with --identity"
        )
    with tables.lock(), told(tables.place):
        dataset = require_same(tables, origin)
        by_id = {number: labels[key] for number, key in ids_of(dataset, pictures).items()}
        wanted = [number for number, cells in by_id.items() if cells]
        for start in range(0, len(wanted), AT_ONCE):
            some = dataset.to_table(filter=listed(wanted[start : start + AT_ONCE]))
            dataset.merge_insert("id").when_matched_update_all().execute(_labelled(some, by_id))
            dataset.checkout_latest()
        return len(wanted)


def _labelled(rows: pa.Table, labels: dict[int, dict[str, str]]) -> pa.Table:
    for name in LABELS:
        old = zip(rows.column("id").to_pylist(), rows.column(name).to_pylist(), strict=True)
        values = [labels[number].get(name, value) for number, value in old]
        place = rows.schema.get_field_index(name)
        rows = rows.set_column(place, rows.schema.field(place), pa.array(values, pa.string()))
    return rows


def remove(tables: Tables, origin: Origin, rows: Filter, pictures: Sequence[Entry] | None) -> int:
    """Remove rows in one commit, and return how many. Their bytes stay until `purge`."""
    with tables.lock(), told(tables.place, rows.where):
        return _remove(tables, origin, rows, pictures)


def _remove(tables: Tables, origin: Origin, rows: Filter, pictures: Sequence[Entry] | None) -> int:
    dataset = require_same(tables, origin)
    condition = chosen(dataset, rows, pictures)
    if condition is None:
        raise UsageError("name the rows: by pictures, or by --where and the like")
    count = int(dataset.count_rows(filter=condition))
    if count:
        dataset.delete(condition)
        sweep(tables, origin)
    return count


def forget(tables: Tables, origin: Origin, rows: Filter, pictures: Sequence[Entry] | None) -> int:
    """Remove rows, and their bytes from disk with all that an earlier removal has left, and return
    how many rows there were. Waits for those who are adding at the moment."""
    with alone(tables) as locked, told(tables.place, rows.where):
        count = _remove(tables, origin, rows, pictures)
        purge(tables, origin, locked)
        return count
