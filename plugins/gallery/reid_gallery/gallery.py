"""The gallery as a program uses it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from reid_gallery.adding import Written, commit, make_columns, missing, write
from reid_gallery.answers import Answer
from reid_gallery.approximate import SHARE, approximate
from reid_gallery.changes import Changes, Place
from reid_gallery.extraction import Damaged, Extractor, origin_of
from reid_gallery.filters import Filter
from reid_gallery.information import information
from reid_gallery.keeping import compact, require_same
from reid_gallery.labelled import Labelled
from reid_gallery.progress import Progress
from reid_gallery.reading import Reader
from reid_gallery.request import Request
from reid_gallery.rows import Entry, entries_of
from reid_gallery.schema import Origin
from reid_gallery.scoring import LostMaps, MapRows
from reid_gallery.searching import Scan, Searcher, View, scan
from reid_gallery.tables import Tables, located
from reid_gallery.told import GONE, told
from reidcore.errors import DataError, UsageError
from reidcore.tools import Reporter, Search, Silent, Templates, load

SHARD = 1024
"""Pictures that are committed together: what a kill can cost of the work done."""
ATTEMPTS = 20
"""Times that a search begins anew since another program has removed the files of its version."""


@attrs.frozen
class Added:
    """What `Gallery.add` did: how many pictures it added, how many were there already, and those
    that cannot be read, each with what is wrong with it."""

    added: int
    skipped: int
    damaged: tuple[Damaged, ...]


class Gallery(Changes):
    """Pictures with their templates, which a run has made, in Lance tables in a folder or an object
    store. `open` and `create` make one. Several programs may use a gallery at once; each method
    sees what is there when it is called.

    Attributes:
        place: the absolute path of the folder, or the URI.
        origin: the run, and the columns of templates.
        scan: finds each query's nearest rows; set `RayScan` or `StoreScan` in its place.
    """

    def __init__(self, tables: Tables, run: Place | None = None, device: str = "auto"):
        self.tables = tables
        self.place = tables.place
        with told(tables.place):
            self.origin = Origin.read(tables.open().schema, tables.place)
        self._run = Path(run) if run is not None else Path(self.origin.folder)
        self._device = device
        self.scan: Scan = scan
        self._search: Search | None = None
        self._judge: Search | None = None
        self._maps: tuple[int, MapRows] | None = None
        self._reader = Reader()

    @classmethod
    def open(
        cls,
        folder: Place,
        run: Place | None = None,
        device: str = "auto",
        options: dict[str, str] | None = None,
    ) -> Gallery:
        """Return the gallery in a folder.

        Args:
            folder: a folder, or a URI that Lance knows, such as s3://bucket/gallery.
            run: the run folder, where it is no longer where the gallery was made with it.
            device: of the run's model: "auto", "cpu", "cuda" or "cuda:N". The model is loaded when
                something is added or searched.
            options: what Lance is told of an object store, such as keys.

        Raises:
            reidcore.errors.DataError: there is no gallery, or another program wrote the table.
        """
        return cls(Tables(located(folder), options), run, device)

    @classmethod
    def create(
        cls,
        run: Place,
        folder: Place,
        precision: str = "float32",
        device: str = "auto",
        options: dict[str, str] | None = None,
    ) -> Gallery:
        """Make an empty gallery for the templates of a run, and return it.

        Args:
            run: a run folder.
            folder: a new folder, or a URI that Lance knows.
            precision: "float32" keeps templates as they are; "float16" takes half the room.
            device: as for `open`.
            options: as for `open`.

        Raises:
            reidcore.errors.UsageError: there is a gallery already, or the run cannot rank.
        """
        if precision not in ("float32", "float16"):
            raise UsageError(f"precision is {precision!r}, expected 'float32' or 'float16'")
        tables = Tables(located(folder), options)
        if tables.exists():
            raise UsageError(f"there is a gallery at {tables.place} already; name a new folder")
        search = load(run, device=device)
        tables.create(origin_of(search, precision == "float16"))
        gallery = cls(tables, run, device)
        gallery._search = search
        return gallery

    @property
    def search_run(self) -> Search:
        """The gallery's run, loaded when it is first used. Raises UsageError for another run than
        the one that made the templates."""
        if self._search is None:
            search = load(self._run, device=self._device)
            if search.made_by != self.origin.made_by:
                raise UsageError(
                    f"the gallery {self.place} was made by {self.origin.made_by}, and {self._run} "
                    f"is {search.made_by}: their templates cannot be compared. Name the gallery's "
                    "own run, or extract all pictures anew with `reid gallery upgrade --run`"
                )
            self._search = search
        return self._search

    def add(self, pictures: Any, reporter: Reporter | None = None) -> Added:
        """Add pictures; those that are there already are skipped, and damaged ones left out.

        They are committed 1,024 at a time, so that a killed program has lost no more than these;
        the same call goes on where it was.

        Args:
            pictures: a folder, a zip, or a CSV file with the column path, whose columns camera,
                time, modality, box, identity (or pid), tracklet and others are kept; or a list of
                paths and `reidcore.api.Row`s.
            reporter: told of progress, such as `reidcore.tools.reporter()`.

        Raises:
            reidcore.errors.DataError: there are no pictures, or the CSV file has mistakes.
            reidcore.errors.OutputError: nothing can be written, as on a full disk.
        """
        entries = entries_of(pictures)
        _require_places(entries)
        shown = Progress(reporter or Silent())
        extra = make_columns(self.tables, self.origin, entries)
        with told(self.place):
            wanted = missing(self.tables.open(), entries)
        skipped = len(entries) - len(wanted)
        if not wanted:
            return Added(0, skipped, ())
        extractor = Extractor(self.search_run, self.origin, extra)
        shown.start(len(wanted))
        added = 0
        damaged: list[Damaged] = []
        for start in range(0, len(wanted), SHARD):
            shard = wanted[start : start + SHARD]
            # Another program may have added some of them since.
            with told(self.place):
                shard = missing(self.tables.open(), shard)
            while shard:
                with self.tables.writing():
                    found = extractor.extract(shard, shown.at(start))
                    written = write(self.tables, self.origin, found)
                    late: list[Written] = commit(self.tables, self.origin, [written])
                if not late:
                    added += len(written.ids)
                    damaged += written.damaged
                    break
                with told(self.place):
                    shard = missing(self.tables.open(), shard)
        compact(self.tables, self.origin, always=False)
        return Added(added, len(entries) - added - len(damaged), tuple(damaged))

    def search(
        self,
        pictures: Any,
        camera: str | Sequence[str] | None = None,
        after: float | str | datetime | None = None,
        before: float | str | datetime | None = None,
        where: str = "",
        top: int = 10,
        ranking: str | None = None,
        candidates: int = 200,
        unknown_above: float | None = None,
        ann: bool | float = False,
    ) -> list[Answer]:
        """Return the nearest pictures of the gallery for each picture. A picture's own file is left
        out of its list.

        Args:
            pictures: as `reidcore.load(...).templates` takes them: a folder, a CSV file, a list of
                paths, pictures of Pillow's or arrays; or templates.
            camera: a camera's name, or several, to which the answers are limited.
            after, before: times to which they are limited, in seconds or as 2026-11-29T14:02.
            where: a condition in SQL to which they are limited, such as "identity IS NOT NULL".
            top: matches of each picture.
            ranking: a ranking of the run, by default its first.
            candidates: nearest pictures of each that the ranking's postprocessors order.
            unknown_above: a picture that has no match of at least this probability is unknown.
            ann: whether candidates come from the index of approximate neighbours that
                `compact(ann=True)` built, in place of all rows; a number is the share of the
                gallery that is looked through, above 0 and up to 1, in place of 0.2.

        Raises:
            reidcore.errors.UsageError: for an unknown column, camera or ranking.
            reidcore.errors.DataError: for pictures that cannot be read.
        """
        chosen = Filter.of(camera, after, before, where)
        request = Request(chosen, top, ranking, candidates, unknown_above)
        request.check()
        run = self.search_run
        query = self._query(pictures)
        way = self.scan if ann is False else approximate(SHARE if ann is True else ann)
        for attempt in range(ATTEMPTS):
            view = None
            try:
                view = self.view()
                with told(self.place, where):
                    return Searcher(run, view, way, self._judge).answers(query, request)
            except DataError as error:
                # Files of this version, or maps of its rows, may have been removed meanwhile.
                gone = isinstance(error, LostMaps) or GONE.search(str(error.__cause__ or ""))
                stale = view is None or self._changed(view)
                if not gone or not stale or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError

    def calibrate(self, pairs: str | os.PathLike[str]) -> None:
        """Fit the probabilities of all further searches of this object on pairs of your own, in
        place of the run's training pictures; distances and orders stay as they are.

        pairs: a CSV file with the columns first and second, paths from its folder, and same, 1 or
        0; or with path and identity, of whose pictures all pairs count. Raises DataError for a file
        with mistakes or without pairs of both kinds, and for a picture that cannot be read.
        """
        self._judge = Labelled.read(Path(pairs)).fitted(self.search_run)

    def info(self) -> dict[str, Any]:
        """Return counts, sizes and origin of the gallery: `pictures`, `fragments`, `bytes`, ..."""
        return information(self.tables, self.origin)

    def _changed(self, view: View) -> bool:
        """Whether there is a newer version than a view's, whose files may have been removed."""
        current = self.tables.open().version != view.dataset.version
        maps = self.tables.open_maps(self.origin)
        return current or (
            maps is not None and view.maps is not None and maps.version != view.maps.dataset.version
        )

    def _query(self, pictures: Any) -> Templates:
        """The templates of what is looked for."""
        run = self.search_run
        if not isinstance(pictures, Templates):
            return run.templates(pictures)
        if pictures.made_by != run.made_by:
            raise UsageError(
                f"these templates were made by {pictures.made_by}, and the gallery's by "
                f"{run.made_by}: they cannot be compared"
            )
        return pictures

    def view(self) -> View:
        """Return the tables as they are now."""
        dataset = require_same(self.tables, self.origin)
        maps = self.tables.open_maps(self.origin)
        if maps is None:
            return View(dataset, self.origin, None, self._reader)
        if self._maps is None or self._maps[0] != maps.version:
            with told(self.place):
                self._maps = maps.version, MapRows.of(maps)
        return View(dataset, self.origin, self._maps[1], self._reader)

    def __len__(self) -> int:
        with told(self.place):
            return int(self.tables.open().count_rows())


def _require_places(entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.row.path.startswith("memory-"):
            raise UsageError(
                "a gallery keeps where its pictures lie, so pictures in memory cannot be added; "
                "save them first"
            )
