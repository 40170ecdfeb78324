"""The two Lance tables of a gallery: opened, made, and committed to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import lance
import pyarrow as pa
from lance.fragment import write_fragments

from reid_gallery.locks import COMMIT, FILES, GATE, held
from reid_gallery.schema import VERSION, Origin
from reid_gallery.told import GONE, told
from reidcore.errors import DataError, UsageError

PICTURES = "pictures.lance"
MAPS = "maps.lance"


def located(folder: str | os.PathLike[str]) -> str:
    """Return a gallery's place: an absolute path, or a URI such as s3://bucket/gallery."""
    text = os.fspath(folder)
    return text.rstrip("/") if "://" in text else str(Path(text).absolute())


@attrs.frozen
class Tables:
    """The tables at a place. They are opened anew for each use, at their latest version.

    place: see `located`. options: what Lance is told of an object store, such as keys. pictures:
    name of the table of pictures.
    """

    place: str
    options: dict[str, str] | None = None
    pictures: str = PICTURES

    @property
    def folder(self) -> Path | None:
        """The local folder, if it is one."""
        return None if "://" in self.place else Path(self.place)

    def lock(self) -> AbstractContextManager[bool]:
        """Hold the gallery against other commits."""
        return held(self.folder, COMMIT)

    def gate(self) -> AbstractContextManager[bool]:
        """Hold the place where those wait who are about to write files."""
        return held(self.folder, GATE)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep files that are written in the `with` block, until they are committed in it, from
        being removed as never committed ones."""
        with ExitStack() as files:
            with self.gate():
                files.enter_context(held(self.folder, FILES, shared=True))
            yield

    def lock_files(self) -> AbstractContextManager[bool]:
        """Wait until nobody writes files that are not committed, and keep others from it."""
        return held(self.folder, FILES)

    def uri(self, name: str) -> str:
        """Return the place of a table."""
        return f"{self.place}/{name}"

    def exists(self) -> bool:
        """Return whether there is a table of pictures, be it a gallery's or not."""
        return self._dataset(self.pictures) is not None

    def open(self) -> lance.LanceDataset:
        """Return the table of pictures. Raises DataError where there is none."""
        found = self._dataset(self.pictures)
        if found is None:
            raise DataError(
                f"there is no gallery at {self.place}; make one with `reid gallery create RUN DIR`"
            )
        return found

    def open_maps(self, origin: Origin) -> lance.LanceDataset | None:
        """Return the table of wide templates; None for a gallery without."""
        if not origin.maps:
            return None
        found = self._dataset(origin.maps)
        if found is None:
            raise DataError(f"the gallery {self.place} is damaged: {origin.maps} is missing")
        return found

    def _dataset(self, name: str) -> lance.LanceDataset | None:
        try:
            return lance.dataset(self.uri(name), storage_options=self.options)
        except (ValueError, OSError) as error:
            if GONE.search(str(error)) and not self._has_files(name):
                return None
            with told(self.uri(name)):
                raise
        return None

    def _has_files(self, name: str) -> bool:
        return self.folder is not None and any((self.folder / name).glob("_versions/*.manifest"))

    def create(self, origin: Origin) -> None:
        """Make both tables, empty, the one of pictures last. Raises UsageError if it is there."""
        if self.exists():
            raise UsageError(f"there is a gallery at {self.place} already; name a new folder")
        with told(self.place):
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            if origin.maps:
                self.create_empty(origin.maps, origin.maps_schema())
            self.create_empty(self.pictures, origin.schema())

    def create_empty(self, name: str, schema: pa.Schema) -> None:
        """Make a table without rows, in place of one that is there."""
        lance.write_dataset(
            schema.empty_table(),
            self.uri(name),
            mode="create" if self._dataset(name) is None else "overwrite",
            data_storage_version=VERSION,
            storage_options=self.options,
        )

    def write(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> list[Any]:
        """Write rows into files of a table and return what commits them, Lance's metadata of
        fragments, which can be pickled. Until then nobody sees them."""
        if isinstance(rows, pa.Table) and not len(rows):
            return []
        with told(self.uri(name)):
            return list(
                write_fragments(
                    rows,
                    self.uri(name),
                    schema=rows.schema,
                    data_storage_version=VERSION,
                    storage_options=self.options,
                )
            )

    def append(self, name: str, fragments: Sequence[Any]) -> None:
        """Commit written fragments; their rows are there for good when it returns."""
        if not fragments:
            return
        with told(self.uri(name)):
            version = lance.dataset(self.uri(name), storage_options=self.options).version
            lance.LanceDataset.commit(
                self.uri(name),
                lance.LanceOperation.Append(list(fragments)),
                read_version=version,
                storage_options=self.options,
            )
