"""The gallery behind the service: one thread embeds, one searches, one changes rows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import attrs

from reid_gallery.answers import Answer
from reid_gallery.changing import ids_of
from reid_gallery.gallery import Added, Gallery
from reid_gallery.keeping import listed
from reid_gallery.rows import Entry, row_of
from reid_gallery.schema import BASE, Origin
from reid_gallery.serve.batching import Batcher, Places
from reid_gallery.serve.metrics import Metrics
from reid_gallery.serve.pictures import LOST
from reid_gallery.serve.problems import Problem
from reid_gallery.serve.queries import Kind, Wanted, each, joined
from reid_gallery.serve.settings import Settings
from reid_gallery.serve.uploads import sweep
from reid_gallery.told import told
from reidcore.api import Row
from reidcore.errors import DataError, ReidError
from reidcore.tools import Templates

T = TypeVar("T")
EVERY = frozenset(BASE.names)
TOLD = tuple(name for name in BASE.names if name not in ("key", "source"))
"""Columns of every gallery, and those that clients are told; Arrow takes a while to list them."""
AGAIN = 5
"""Times that a change is tried anew where another program changes the table at the same time."""


@attrs.frozen(eq=False)
class Engine:
    """Answers requests from a gallery, and opens it anew where it was upgraded to another run.

    Methods that are no coroutines block, and are run in one of the threads.

    Attributes:
        embedding, searching: embed pictures, and search for them, several requests at a time.
        places: of pictures whose requests are not answered yet.
    """

    settings: Settings
    gallery: Gallery
    embedding: Batcher
    searching: Batcher
    places: Places
    changing: ThreadPoolExecutor = attrs.field(factory=lambda: ThreadPoolExecutor(1, "change"))
    reading: ThreadPoolExecutor = attrs.field(factory=lambda: ThreadPoolExecutor(2, "read"))
    reopening: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    @classmethod
    def start(cls, settings: Settings, metrics: Metrics) -> Engine:
        """Open the gallery and load its run. Raises ReidError. Call it where an event loop runs."""
        gallery = Gallery.open(settings.gallery, settings.run, settings.device)
        _ = gallery.search_run
        engine: Engine

        def embed(pictures: list[Any], kind: None) -> list[Templates]:
            with metrics.model.time():
                return each(engine.gallery.search_run.templates(pictures))

        def search(queries: list[Templates], kind: Kind) -> list[Answer]:
            with metrics.search.time():
                return engine.gallery.search(joined(queries), **kind.wanted.told())

        embedding = Batcher("embed", embed, settings.together)
        embedding.seen = metrics.batch.observe
        searching = Batcher("search", search, settings.together)
        engine = cls(settings, gallery, embedding, searching, Places(settings.waiting))
        return engine

    async def run(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Return what work returns, done in a thread."""
        loop = asyncio.get_running_loop()
        return await self._renewing(lambda: loop.run_in_executor(thread, work))

    async def search(self, pictures: Sequence[Any], wanted: Wanted) -> list[Answer]:
        """Return the answers to pictures: of Pillow's, or rows. Raises Problem for a row whose file
        cannot be read."""

        async def work() -> list[Answer]:
            try:
                queries = await self.embedding.done(pictures)
            except DataError:
                if any(isinstance(one, Row) for one in pictures):
                    raise Problem(404, LOST) from None
                raise
            # Postprocessors see the candidates of all queries, which must be of one request then.
            alone = object() if self._has_post(wanted.ranking) else None
            return await self.searching.done(queries, Kind(wanted, queries[0].made_by, alone))

        return await self._renewing(work)

    def _has_post(self, ranking: str | None) -> bool:
        tables = self.gallery.search_run.plan.rankings
        return any(one.post for one in tables if one.name == (ranking or tables[0].name))

    async def _renewing(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what work returns, done again where the gallery was upgraded meanwhile."""
        own = self.gallery.origin
        try:
            return await work()
        except ReidError:
            # Another request may have opened it anew already.
            if own == self.gallery.origin and not await self._renewed():
                raise
        return await work()

    async def _renewed(self) -> bool:
        """Open the gallery anew if another program upgraded it, and return whether it did."""
        own = self.gallery.origin
        loop = asyncio.get_running_loop()
        async with self.reopening:
            if own == self.gallery.origin:
                fresh = await loop.run_in_executor(self.reading, self._newer)
                if fresh is not None:
                    object.__setattr__(self, "gallery", fresh)
        return own != self.gallery.origin

    def _newer(self) -> Gallery | None:
        tables = self.gallery.tables
        try:
            if Origin.read(tables.open().schema, tables.place) == self.gallery.origin:
                return None
        except ReidError:
            return None
        # The run it was started with is not the upgraded gallery's.
        fresh = Gallery.open(self.settings.gallery, None, self.settings.device)
        _ = fresh.search_run
        return fresh

    async def add(self, entries: list[Entry]) -> tuple[Added, list[int | None]]:
        """Add pictures, which lie on disk, and return what was done and the id of each."""

        def work() -> tuple[Added, list[int | None]]:
            done = again(lambda: self.gallery.add(entries))
            with told(self.gallery.place):
                found = ids_of(self.gallery.tables.open(), entries)
            ids = {key: number for number, key in found.items()}
            return done, [ids.get(entry.key) for entry in entries]

        return await self.run(self.changing, work)

    async def change(self, name: str, asked: dict[str, Any]) -> int:
        """Label, remove or forget rows, and return how many. asked: as for the gallery's method."""

        def work() -> int:
            return int(again(lambda: getattr(self.gallery, name)(**asked)))

        return await self.run(self.changing, work if name == "label" else lambda: self._less(work))

    def _less(self, change: Callable[[], int]) -> int:
        """Make a change that removes rows, and remove the uploads that were theirs alone."""
        before = self._sources()
        count = change()
        after = self._sources()
        sweep(self.settings.uploads, after, before - after)
        return count

    def _sources(self) -> set[str]:
        with told(self.gallery.place):
            found = self.gallery.tables.open().to_table(columns=["source"])
            return set(found.column("source").to_pylist())

    def cells(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return what is known of rows, in the order of their ids. Raises Problem for one that is
        not there."""
        with told(self.gallery.place):
            dataset = self.gallery.tables.open()
            names = [name for name in dataset.schema.names if "__" not in name and name != "key"]
            found = dataset.to_table(columns=names, filter=listed(list(ids))).to_pylist()
        by_id = {one["id"]: one for one in found}
        lost = [one for one in ids if one not in by_id]
        if lost:
            raise Problem(404, f"the gallery has no picture with the id {lost[0]}")
        return [by_id[one] for one in ids]

    def rows(self, ids: Sequence[int]) -> list[Row]:
        """Return rows as the run takes them. Raises Problem for one that is not there."""
        return [row_of(cells) for cells in self.cells(ids)]

    def info(self) -> dict[str, Any]:
        """Return what the gallery holds."""
        dataset = self.gallery.tables.open()
        found = self.gallery.info()
        return {**found, "version": dataset.version, "rankings": list(self.rankings)}

    @property
    def rankings(self) -> tuple[str, ...]:
        """Names of the run's rankings."""
        return self.gallery.search_run.rankings

    async def close(self) -> None:
        """End all threads; what is being changed is finished first."""
        await self.embedding.close()
        await self.searching.close()
        self.changing.shutdown(wait=True)
        self.reading.shutdown(wait=True)


def again(change: Callable[[], T]) -> T:
    """Return what a change returns, tried anew where another program changed the table."""
    for _ in range(AGAIN):
        try:
            return change()
        except ReidError as error:
            if "by several programs at once" not in str(error):
                raise
    return change()


def shown(cells: dict[str, Any]) -> dict[str, Any]:
    """Return what a client is told of a row: the name of its file, and not where it lies."""
    known = {name: cells[name] for name in TOLD}
    columns = {name: value for name, value in cells.items() if name not in EVERY}
    return {**known, "name": Path(cells["source"]).name, "columns": columns}
