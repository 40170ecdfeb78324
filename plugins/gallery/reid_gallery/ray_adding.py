"""Adding with a pool of Ray actors: each extracts shards of the list and writes their files; this
program commits them."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import pyarrow as pa
import torch

from reid_gallery import ray_cluster
from reid_gallery.adding import Written, commit, make_columns, missing, write
from reid_gallery.extraction import BITS, Damaged, Extracted, Extractor
from reid_gallery.gallery import Added, Gallery
from reid_gallery.keeping import compact
from reid_gallery.ray_cluster import connected, ended, gpus, loaded, slots, unwrapped
from reid_gallery.rows import Entry, entries_of
from reid_gallery.schema import Origin
from reid_gallery.tables import Tables
from reid_gallery.told import told
from reidcore.errors import ReidError, UsageError
from reidcore.tools import Reporter, Silent, duration

SHARD = 256
"""Pictures that an actor extracts at a time: what its death can cost."""
ROUND = 1 << 20
"""Pictures that are committed together: what the death of this program can cost."""
TRIES = 4
"""Actors that may die over one shard before the shard is blamed."""


@attrs.frozen(eq=False)
class _Shard:
    """Pictures that an actor extracts at a time. first: the id of the first row. deaths: of actors
    that were at it."""

    first: int
    entries: tuple[Entry, ...]
    deaths: int = 0


class Worker:
    """What an actor does: it has the run, and makes and writes the rows of shards.

    run: the run folder, as every machine sees it. origin: of the gallery, whose run it must be.
    """

    def __init__(self, tables: Tables, origin: Origin, extra: pa.Schema, run: str, device: str):
        self._tables, self._origin, self._extra = tables, origin, extra
        self._run, self._device = run, device
        self._extractor: Extractor | None = None

    def ready(self) -> int:
        """Load the run and return the number of the actor's process. Raises UsageError for another
        run than the gallery's."""
        # Not in __init__, whose errors Ray takes for a death.
        if self._extractor is None:
            torch.set_num_threads(1)
            search = loaded(self._run, self._device, self._origin)
            self._extractor = Extractor(search, self._origin, self._extra)
        return os.getpid()

    def written(self, entries: Sequence[Entry], first: int) -> Written:
        """Write a shard's files. first: the id of its first row."""
        assert self._extractor is not None
        found = self._extractor.extract(list(entries))
        return write(self._tables, self._origin, numbered(found, first))


def numbered(found: Extracted, first: int) -> Extracted:
    """Return the rows with ids from `first` on, which no other shard of a round has."""
    ids = pa.array(np.arange(first, first + len(found.rows)), pa.int64())

    def of(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("id")
        return rows.set_column(place, rows.schema.field(place), ids)

    maps = None if found.maps is None else of(found.maps)
    return attrs.evolve(found, rows=of(found.rows), maps=maps)


def add_with_ray(
    gallery: Gallery, pictures: Any, address: str = "auto", reporter: Reporter | None = None
) -> Added:
    """Add pictures as `Gallery.add` does, with a pool of actors of a Ray cluster.

    An actor for each GPU of the cluster, or each CPU where there are none, extracts shards of the
    list and writes their files; they are committed here, all together, a million at a time. The
    shard of an actor that dies is done again by another. Gallery, run folder and pictures must lie
    where every machine finds them by the same path.

    Args:
        gallery: the gallery.
        pictures: as for `Gallery.add`.
        address: of the cluster: "auto", "local", or as Ray writes addresses.
        reporter: told of progress.

    Raises:
        reidcore.errors.ReidError: as for `Gallery.add`.
        reidcore.errors.UsageError: Ray or a cluster is not there, or has no free slot.
    """
    entries = entries_of(pictures)
    for entry in entries:
        if entry.row.path.startswith("memory-") or entry.row.opener is not None:
            raise UsageError(f"{entry.row.name} is no file, so other machines cannot read it")
    ray = connected(address)
    extra = make_columns(gallery.tables, gallery.origin, entries)
    with told(gallery.place):
        wanted = missing(gallery.tables.open(), entries)
    added, damaged = 0, list[Damaged]()
    if wanted:
        pool = _Pool(ray, gallery, extra, len(wanted), reporter or Silent())
        try:
            for start in range(0, len(wanted), ROUND):
                count, bad = _round(gallery, pool, wanted[start : start + ROUND])
                added, damaged = added + count, damaged + bad
        finally:
            pool.end()
        compact(gallery.tables, gallery.origin, always=False)
    return Added(added, len(entries) - added - len(damaged), tuple(damaged))


def _round(gallery: Gallery, pool: _Pool, entries: list[Entry]) -> tuple[int, list[Damaged]]:
    """Extract and commit; what another program has added in the meantime is left to it. Where
    something fails, what is done is committed first."""
    tables, origin = gallery.tables, gallery.origin
    added, damaged = 0, list[Damaged]()
    while entries:
        done: list[Written] = []
        with tables.writing():
            try:
                pool.extract(entries, done)
            finally:
                late = commit(tables, origin, done)
        kept = [one for one in done if one not in late]
        added += sum(len(one.ids) for one in kept)
        damaged += [bad for one in kept for bad in one.damaged]
        with told(gallery.place):
            entries = missing(tables.open(), [entry for one in late for entry in one.entries])
    return added, damaged


class _Pool:
    """Actors, and the shards that they are at. One that finds no slot gets no shard, so that none
    waits for it."""

    def __init__(self, ray: Any, gallery: Gallery, extra: pa.Schema, total: int, shown: Reporter):
        self._ray, self._shown, self._total = ray, shown, total
        device = "cuda" if gpus(ray) else "cpu"
        count, self._asked = slots(ray, device, 1, -(-total // SHARD))
        kind = ray.remote(max_restarts=0, **self._asked)(Worker)
        folder = str(gallery.search_run.folder.absolute())
        self._make = lambda: kind.remote(gallery.tables, gallery.origin, extra, folder, device)
        self._pings: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, _Shard]] = {}
        self._deaths, self._most = 0, TRIES * count
        self._since, self._done = time.monotonic(), 0
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        actor = self._make()
        self._pings[actor.ready.remote()] = actor

    def extract(self, entries: Sequence[Entry], done: list[Written]) -> None:
        """Extract and write all entries; each shard that is written is appended to `done`."""
        first = (time.time_ns() // 1_000_000) << BITS
        starts = range(0, len(entries), SHARD)
        queue = deque(_Shard(first + at, tuple(entries[at : at + SHARD])) for at in starts)
        while queue or self._busy:
            while queue and self._idle:
                shard, actor = queue.popleft(), self._idle.pop()
                ref = actor.written.remote(shard.entries, shard.first)
                self._busy[ref] = actor, shard
            wait = None if self._busy else ray_cluster.WAIT
            ended, _ = self._ray.wait([*self._busy, *self._pings], timeout=wait)
            if not ended:
                raise ray_cluster.no_slot(self._ray, self._asked, ray_cluster.WAIT)
            (ref,) = ended
            if ref in self._pings:
                actor, work = self._pings.pop(ref), None
            else:
                actor, work = self._busy.pop(ref)
            try:
                found = self._ray.get(ref)
            except Exception as error:
                if (raised := unwrapped(self._ray, error)) is not None:
                    raise raised from None
                self._died(work, queue)
                continue
            self._idle.append(actor)
            if work is not None:
                done.append(found)
                self._tell(len(work.entries))

    def _died(self, shard: _Shard | None, queue: deque[_Shard]) -> None:
        """Put a dead actor's shard back and start another actor."""
        self._deaths += 1
        at = ""
        if shard is not None:
            queue.appendleft(attrs.evolve(shard, deaths=shard.deaths + 1))
            at = f" over the pictures from {shard.entries[0].row.name} on"
        if self._deaths > self._most or (shard is not None and shard.deaths + 1 == TRIES):
            raise ReidError(
                f"Ray actors die again and again{at}, {self._deaths} so far; have their "
                "machines too little memory?"
            )
        self._start()

    def _tell(self, pictures: int) -> None:
        self._done += pictures
        rate = self._done / max(1e-9, time.monotonic() - self._since)
        self._shown.working(
            f"{self._done} of {self._total} pictures  {rate:.0f} pictures/s  "
            f"{len(self._idle) + len(self._busy)} actors  "
            f"{duration(max(0, self._total - self._done) / max(rate, 1e-9))} left"
        )

    def end(self) -> None:
        """End the actors."""
        busy = [actor for actor, _ in self._busy.values()]
        ended(self._ray, [*self._idle, *busy, *self._pings.values()])
