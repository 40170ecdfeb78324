"""Keeps a gallery's files few and its disk free of what has been removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from math import prod
from typing import Any

import attrs
import lance
import numpy as np
import pyarrow as pa

from reid_gallery.schema import Origin
from reid_gallery.tables import Tables
from reid_gallery.told import told
from reidcore.errors import DataError, UsageError

FRAGMENT = 256 << 20
"""Bytes of a fragment that compaction makes, of one column that is read at once. It bounds what
compacting wide rows holds in memory."""
FEW = 24
"""Small fragments that wait for compaction by itself."""
VERSIONS = 100
"""Commits from one look at old versions to the next, where fragments stay few."""
UPGRADE = "upgrade-"
"""What names of tables begin with whose rows an upgrade extracts."""
PAST = timedelta(minutes=10)
"""Age from which versions that nobody can be reading are removed."""


@contextmanager
def alone(tables: Tables) -> Iterator[bool]:
    """Hold the gallery against commits and against files that are not committed yet, once those
    who write some are done. Yields whether it is held so."""
    with ExitStack() as held:
        # Who waits at the gate keeps others from writing on and on.
        held.enter_context(tables.gate())
        locked = held.enter_context(tables.lock_files())
        held.enter_context(tables.lock())
        yield locked


def target_rows(schema: pa.Schema) -> int:
    """Return the rows of a fragment that compaction makes."""
    size = sum(
        prod((kind.list_size, kind.value_type.bit_width // 8))
        for kind in schema.types
        if pa.types.is_fixed_size_list(kind)
    )
    return int(max(256, min(1 << 20, FRAGMENT // max(1, size))))


def is_scattered(dataset: lance.LanceDataset) -> bool:
    """Return whether a table has so many small fragments that compaction pays."""
    most = target_rows(dataset.schema) // 2
    small = sum(fragment.metadata.physical_rows < most for fragment in dataset.get_fragments())
    return small > FEW


def compact_table(dataset: lance.LanceDataset, whole: bool = False) -> None:
    """Merge a table's small fragments. whole: also rewrite all that have a removed row."""
    more: dict[str, Any] = {"materialize_deletions_threshold": 0.0} if whole else {}
    dataset.optimize.compact_files(
        target_rows_per_fragment=target_rows(dataset.schema), num_threads=1, batch_size=256, **more
    )


def compact(tables: Tables, origin: Origin, always: bool = True) -> None:
    """Merge small fragments and remove versions older than ten minutes. always: also where there
    are few of them."""
    with tables.lock(), told(tables.place):
        for dataset in every(tables, origin):
            if always or is_scattered(dataset) or not dataset.version % VERSIONS:
                compact_table(dataset)
                dataset.cleanup_old_versions(PAST)


def every(tables: Tables, origin: Origin) -> list[lance.LanceDataset]:
    """Return both tables, or the one."""
    maps = tables.open_maps(origin)
    return [tables.open(), *([maps] if maps is not None else [])]


def sweep(tables: Tables, origin: Origin) -> None:
    """Remove maps that no picture names: of removed pictures, and of killed programs. Hold the
    gallery's lock."""
    maps = tables.open_maps(origin)
    if maps is not None:
        _keep(maps, ids_in(tables.open()))


def ids_in(dataset: lance.LanceDataset) -> np.ndarray:
    """Return the ids of a table's rows."""
    return np.asarray(dataset.to_table(columns=["id"]).column("id").to_numpy())


def _keep(dataset: lance.LanceDataset, ids: np.ndarray) -> None:
    """Remove a table's rows that have none of these ids."""
    lost = np.setdiff1d(ids_in(dataset), ids)
    for start in range(0, len(lost), 50_000):
        dataset.delete(listed(lost[start : start + 50_000]))


def listed(ids: np.ndarray | list[int]) -> str:
    """Return the condition that a row has one of these ids."""
    return f"id IN ({', '.join(map(str, ids))})" if len(ids) else "false"


def purge(tables: Tables, origin: Origin, locked: bool) -> None:
    """Remove from disk everything but the rows that are there: rows that were removed, old
    versions, files that were never committed, and tables that nobody needs. An upgrade that is
    under way, or was killed, keeps what it has made of rows that are there. Hold the gallery by
    `alone`. locked: whether it is held; if not, files that were never committed stay a week, since
    somebody may be writing them."""
    sweep(tables, origin)
    _erase(tables, origin, locked)
    if tables.folder is None:
        return
    needed = {tables.pictures, origin.maps}
    for folder in tables.folder.glob(f"{UPGRADE}*.lance"):
        own = attrs.evolve(tables, pictures=folder.name)
        needed |= _trimmed(own, ids_in(tables.open()), locked)
    for folder in tables.folder.glob("*.lance"):
        if folder.name not in needed:
            shutil.rmtree(folder)


def _trimmed(own: Tables, ids: np.ndarray, locked: bool) -> set[str]:
    """Remove all but rows with these ids from an upgrade's tables, and return the tables' names:
    none where they cannot be read, as where a program was killed that made them."""
    try:
        with told(own.place):
            origin = Origin.read(own.open().schema, own.place)
            for dataset in every(own, origin):
                _keep(dataset, ids)
            _erase(own, origin, locked)
    except (DataError, UsageError):
        return set()
    return {own.pictures, origin.maps}


def _erase(tables: Tables, origin: Origin, locked: bool) -> None:
    """Remove from both tables' folders everything but their rows."""
    for dataset in every(tables, origin):
        indexes = [index.name for index in dataset.describe_indices()]
        for name in indexes:  # they hold copies of what was removed
            dataset.drop_index(name)
        compact_table(dataset, whole=True)
        # The last change says what was removed, so another takes its place.
        dataset.checkout_latest()
        dataset.update_config({"reid.purged": datetime.now(UTC).isoformat()})
        dataset.cleanup_old_versions(
            timedelta(0), delete_unverified=locked, error_if_tagged_old_versions=False
        )


def require_same(tables: Tables, origin: Origin) -> lance.LanceDataset:
    """Return the table of pictures. Raises DataError where another program has upgraded the gallery
    since it was opened."""
    dataset = tables.open()
    if Origin.read(dataset.schema, tables.place) != origin:
        raise DataError(
            f"the gallery {tables.place} has been upgraded to another run meanwhile; open it again"
        )
    return dataset
