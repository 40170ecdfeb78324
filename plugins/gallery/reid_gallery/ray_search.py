"""Searching with Ray actors: each keeps some of a gallery's fragments and is exact over these."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import pyarrow as pa
import torch

from reid_gallery.filters import Filter
from reid_gallery.gallery import Gallery
from reid_gallery.ray_cluster import connected, ended, loaded, slots, started, unwrapped
from reid_gallery.reading import Reader
from reid_gallery.scan import Best, Nearest, fragments_of, merged, search_tiles
from reid_gallery.schema import Origin
from reid_gallery.scoring import MapRows, Range, Scorer
from reid_gallery.searching import View
from reid_gallery.tables import Tables
from reidcore.errors import ReidError
from reidcore.tools import Search, Templates

KEPT = 4 << 30
"""Bytes of its fragments that an actor keeps in memory; it reads the rest for every search."""
ATTEMPTS = 4


@attrs.frozen(eq=False)
class Asked:
    """What an actor is asked. versions: of the tables of pictures and of maps, 0 for none. ranges:
    of all rows, where the ranking's scale needs them."""

    versions: tuple[int, int]
    table: Any
    query: Templates
    count: int
    filter: Filter
    ranges: dict[str, Range] | None = None


class Keeper:
    """What an actor does: it has the run and some fragments, and searches these."""

    def __init__(self, tables: Tables, origin: Origin, run: str, device: str, threads: int):
        self._tables, self._origin = tables, origin
        self._run, self._device, self._threads = run, device, threads
        self._search: Search | None = None
        self._view: tuple[tuple[int, int], View] | None = None
        self._kept: dict[tuple[int, tuple[str, ...]], list[pa.RecordBatch]] = {}
        self._bytes = 0
        self._reader = Reader()

    def ready(self) -> int:
        """Load the run and return the number of the actor's process. Raises UsageError for another
        run than the gallery's."""
        # Not in __init__, whose errors Ray takes for a death.
        if self._search is None:
            # Another number of threads might add up products in another order.
            torch.set_num_threads(self._threads)
            self._search = loaded(self._run, self._device, self._origin)
        return os.getpid()

    def ranges(self, asked: Asked, fragments: Sequence[int]) -> dict[str, Range]:
        """Return each query's smallest and largest distance by each matcher."""
        scorer = self._scorer(asked)
        return joined([scorer.ranges(batch) for batch in self._batches(asked, fragments, scorer)])

    def nearest(self, asked: Asked, fragments: Sequence[int]) -> Best:
        """Return the nearest rows of some fragments."""
        scorer = self._scorer(asked)
        score = scorer.score() if asked.ranges is None else scorer.ranged(asked.ranges)
        best = Nearest(len(asked.query), asked.count)
        search_tiles(self._batches(asked, fragments, scorer), best, score)
        return best.best()

    def _scorer(self, asked: Asked) -> Scorer:
        assert self._search is not None
        if self._view is None or self._view[0] != asked.versions:
            own, wide = asked.versions
            dataset = self._tables.open().checkout_version(own)
            maps = self._tables.open_maps(self._origin)
            rows = MapRows.of(maps.checkout_version(wide)) if maps is not None else None
            self._view = asked.versions, View(dataset, self._origin, rows, self._reader)
            self._kept, self._bytes = {}, 0
        view = self._view[1]
        return Scorer(self._search, self._origin, asked.table, view.maps, asked.query)

    def _batches(
        self, asked: Asked, fragments: Sequence[int], scorer: Scorer
    ) -> Iterator[pa.RecordBatch]:
        assert self._view is not None
        view, columns, whole = self._view[1], scorer.columns(), not asked.filter.sql
        for fragment in fragments:
            key = fragment, tuple(one.name for one in columns)
            if whole and key in self._kept:
                yield from self._kept[key]
                continue
            read = []
            for batch in view.tiles(fragment, columns, asked.filter):
                if whole and self._bytes < KEPT:
                    read.append(batch)
                    self._bytes += batch.nbytes
                yield batch
            if whole and self._bytes < KEPT:
                self._kept[key] = read


def joined(found: Sequence[dict[str, Range]]) -> dict[str, Range]:
    """Return the ranges over several sets of rows."""
    total: dict[str, Range] = {}
    for one in found:
        for name, (low, high) in one.items():
            lowest, highest = total.get(name, (low, high))
            total[name] = torch.minimum(low, lowest), torch.maximum(high, highest)
    return total


class RayScan:
    """Scans a gallery with the actors of a Ray cluster: `gallery.scan = RayScan(gallery, "auto")`.

    A gallery's fragments are dealt to actors, which keep them in memory for the next search. Each
    answer is that of one machine to the last bit, where all machines have processors of one kind.
    The gallery and its run folder must lie where every machine finds them by the same path. Use it
    as a context manager, or call `close`, to end the actors.
    """

    def __init__(self, gallery: Gallery, address: str = "auto"):
        self._ray = connected(address)
        threads = torch.get_num_threads()
        fragments = len(fragments_of(gallery.tables.open()))
        run = gallery.search_run
        device = run.model.device.type
        self._count, self._asked = slots(self._ray, device, threads, max(1, fragments))
        kind = self._ray.remote(max_restarts=0, **self._asked)(Keeper)
        folder = str(run.folder.absolute())
        given = gallery.tables, gallery.origin, folder, device, threads
        self._make = lambda: kind.remote(*given)
        self._actors = started(self._ray, self._make, self._count, self._asked)

    def __enter__(self) -> RayScan:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors."""
        ended(self._ray, self._actors)
        self._actors = []

    def __call__(self, view: View, scorer: Scorer, count: int, chosen: Filter) -> Best:
        """Return the nearest rows of each query among those that meet a filter."""
        maps = view.maps.dataset.version if view.maps is not None else 0
        # What reads the queries' pictures need not be known elsewhere.
        rows = tuple(attrs.evolve(row, opener=None) for row in scorer.query.rows)
        query = Templates(rows, scorer.query.parts, scorer.query.made_by)
        asked = Asked((view.dataset.version, maps), scorer.table, query, count, chosen)
        fragments = fragments_of(view.dataset)
        if scorer.table.scale == "row_minmax":
            asked = attrs.evolve(asked, ranges=joined(self._all("ranges", asked, fragments)))
        return merged([Best.none(len(query)), *self._all("nearest", asked, fragments)], count)

    def _all(self, method: str, asked: Asked, fragments: Sequence[int]) -> list[Any]:
        """Return the answers of all actors; what those owed that have died, others do again."""
        given = self._ray.put(asked)
        found, left = [], list(fragments)
        for _ in range(ATTEMPTS):
            if not self._actors:
                self._actors = started(self._ray, self._make, self._count, self._asked)
            number = len(self._actors)
            shares = [left[place::number] for place in range(number)]
            refs = [
                getattr(actor, method).remote(given, share)
                for actor, share in zip(self._actors, shares, strict=True)
            ]
            left, alive = [], []
            for ref, actor, share in zip(refs, self._actors, shares, strict=True):
                try:
                    found.append(self._ray.get(ref))
                    alive.append(actor)
                except Exception as error:
                    if (raised := unwrapped(self._ray, error)) is not None:
                        raise raised from None
                    left += share
            self._actors = alive
            if not left:
                return found
        raise ReidError(f"{ATTEMPTS} times Ray actors have died in a search; have they memory?")
