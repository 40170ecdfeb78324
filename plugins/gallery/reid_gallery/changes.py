"""What changes the rows of a gallery, or writes them out, as a program uses it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from reid_gallery.approximate import build_index
from reid_gallery.changing import forget, label, label_each, remove
from reid_gallery.exporting import export
from reid_gallery.extraction import origin_of
from reid_gallery.filters import Filter
from reid_gallery.keeping import compact, require_same
from reid_gallery.progress import Progress
from reid_gallery.rows import entries_of
from reid_gallery.schema import Origin
from reid_gallery.scoring import MapRows
from reid_gallery.tables import Tables
from reid_gallery.told import told
from reid_gallery.upgrading import Upgrade, digest_of
from reidcore.errors import UsageError
from reidcore.tools import Reporter, Search, Silent, load

Place = str | os.PathLike[str]


class Changes:
    """The methods of `reid_gallery.Gallery` that change rows that are there."""

    tables: Tables
    origin: Origin
    place: str
    _device: str
    _run: Path
    _search: Search | None
    _judge: Search | None
    _maps: tuple[int, MapRows] | None

    def label(
        self,
        identity: str | None = None,
        pictures: Any = None,
        camera: str | Sequence[str] | None = None,
        after: float | str | datetime | None = None,
        before: float | str | datetime | None = None,
        where: str = "",
        tracklet: str | None = None,
    ) -> int:
        """Say who is on pictures, and return how many rows that concerns.

        Args:
            identity: the name of all of them; "" takes the name away. Without identity and
                tracklet, each picture gets the identity and tracklet of its row in the CSV file
                `pictures`.
            pictures: the pictures, as for `add`; those that are not there are passed over.
            camera, after, before, where: conditions, as for `search`.
            tracklet: the name of the track that they are of; "" takes it away.

        Raises:
            reidcore.errors.UsageError: for an unknown column, or where neither pictures nor a
                condition is given.
        """
        rows = Filter.of(camera, after, before, where)
        entries = None if pictures is None else entries_of(pictures)
        given = {"identity": identity, "tracklet": tracklet}
        labels = {key: value or None for key, value in given.items() if value is not None}
        if not labels:
            if entries is None or rows.sql:
                raise UsageError("give an identity for the rows, or a CSV file with identities")
            count = label_each(self.tables, self.origin, entries)
        elif entries is None and not rows.sql:
            raise UsageError("name the rows: by pictures, or by a condition")
        else:
            count = label(self.tables, self.origin, labels, rows, entries)
        compact(self.tables, self.origin, always=False)  # each label makes a fragment
        return count

    def remove(
        self,
        pictures: Any = None,
        camera: str | Sequence[str] | None = None,
        after: float | str | datetime | None = None,
        before: float | str | datetime | None = None,
        where: str = "",
    ) -> int:
        """Remove pictures, and return how many. No search finds them any more; their bytes stay on
        disk until the gallery is compacted twice or something is forgotten.

        Args:
            pictures: the pictures, as for `add`; all if there is a condition.
            camera, after, before, where: conditions, as for `search`.

        Raises:
            reidcore.errors.UsageError: where neither pictures nor a condition is given.
        """
        rows = Filter.of(camera, after, before, where)
        entries = None if pictures is None else entries_of(pictures)
        count = remove(self.tables, self.origin, rows, entries)
        compact(self.tables, self.origin, always=False)
        return count

    def forget(
        self,
        pictures: Any = None,
        camera: str | Sequence[str] | None = None,
        after: float | str | datetime | None = None,
        before: float | str | datetime | None = None,
        where: str = "",
        identity: str | None = None,
    ) -> int:
        """Remove pictures and everything that is known of them from disk, and return how many rows
        there were: with old versions, and with what earlier removals and killed programs have left.

        It waits until shards that are being added are done. Where it was killed, do it again. In an
        object store without locks, files that were never committed stay for a week.

        Args:
            pictures, camera, after, before, where: as for `remove`.
            identity: only rows of this name.

        Raises:
            reidcore.errors.UsageError: as for `remove`.
        """
        rows = Filter.of(camera, after, before, where, identity)
        entries = None if pictures is None else entries_of(pictures)
        return forget(self.tables, self.origin, rows, entries)

    def compact(self, ann: bool = False) -> None:
        """Merge small fragments, and remove versions older than ten minutes. `add`, `label` and
        `remove` do it by themselves when there are many.

        Args:
            ann: whether to build, or build anew, the index of approximate neighbours of the first
                matcher that has vectors, for `search(..., ann=True)`. Pictures that are added later
                are found without it; forgetting drops it.

        Raises:
            reidcore.errors.UsageError: there are too few pictures for an index, or no vectors.
        """
        compact(self.tables, self.origin)
        if ann:
            with self.tables.lock(), told(self.place):
                build_index(require_same(self.tables, self.origin), self.origin)

    def upgrade(
        self, run: Place, drop_missing: bool = False, reporter: Reporter | None = None
    ) -> int:
        """Extract all pictures anew from their sources by another run, and return how many there
        are. Until it is done searches see the old templates; where it was killed, it goes on.

        Args:
            run: the run folder.
            drop_missing: remove the pictures whose sources cannot be read any more.
            reporter: told of progress.

        Raises:
            reidcore.errors.DataError: sources cannot be read; then the gallery is as it was.
        """
        search = load(run, device=self._device)
        maps = f"maps-{digest_of(search.made_by, self.origin.half)}.lance"
        new = origin_of(search, self.origin.half, maps)
        if new.made_by == self.origin.made_by:
            raise UsageError(f"the gallery {self.place} is of {new.made_by} already")
        shown = Progress(reporter or Silent())
        count = Upgrade(self.tables, self.origin, new, search).run(drop_missing, shown)
        self.origin, self._search, self._run, self._maps = new, search, Path(run), None
        self._judge = None
        return count

    def export(
        self,
        file: Place,
        camera: str | Sequence[str] | None = None,
        after: float | str | datetime | None = None,
        before: float | str | datetime | None = None,
        where: str = "",
        vectors: bool = False,
    ) -> int:
        """Write rows into a .csv or .parquet file, and return how many.

        Args:
            file: the file to write.
            camera, after, before, where: conditions, as for `search`.
            vectors: whether a .parquet file has the vectors, too.

        Raises:
            reidcore.errors.UsageError: for another kind of file.
            reidcore.errors.OutputError: it cannot be written.
        """
        rows = Filter.of(camera, after, before, where)
        with told(self.place, where):
            return export(self.tables.open(), self.origin, Path(file), rows, vectors)
