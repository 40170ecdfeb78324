"""Pictures in a zip, with a manifest in it or names that tell their labels. Torch-free."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path

import attrs

from reidcore.builtin.readers.drawn_splits import split_setting, with_splits
from reidcore.contracts.component import Row
from reidcore.contracts.settings import setting
from reidcore.data.archives import ZipMember, archive_names, is_archive, read_member
from reidcore.data.index import compile_pattern, index_folder, some
from reidcore.data.labels import is_junk
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError, UsageError, nearest

MANIFEST = "manifest.csv"


def _pattern(text: str) -> str | None:
    try:
        compile_pattern(text) if text else None
    except UsageError as error:
        return str(error)
    return None


@attrs.frozen
class ZipPictures:
    """Settings of `core.zip`: pictures in a zip, which is not unpacked."""

    manifest: str = setting(
        "the manifest in the zip; by default its only manifest.csv, unless there is a pattern",
        default="",
    )
    pattern: str = setting(
        "layout of the names in the zip, as of `reid data index`, such as '{pid}_c{camera}_*.jpg'; "
        "then no manifest is read",
        default="",
        check=_pattern,
    )
    train_fraction: float | None = split_setting()
    seed: int = setting("seed of the draw of train_fraction", default=0, at_least=0)

    def facts(self) -> None:
        """Nothing is known without the zip."""

    def rows(self, root: Path) -> list[Row]:
        """Return the rows of the manifest, or of the pictures whose names fit the pattern.

        Raises:
            DataError: There is no zip, no manifest, or a listed picture is not in the zip.
        """
        root = Path(root).absolute()
        if not is_archive(root):
            raise DataError(f"{root} is no zip; set root to a file such as pictures.zip")
        if self.pattern:
            rows = [row for row in index_folder(root, self.pattern).rows if not is_junk(row.pid)]
            if not rows:
                raise DataError(f"all pictures in {root} that fit are of the identity -1, junk")
            return with_splits(rows, self.train_fraction, self.seed)
        names = archive_names(root)
        manifest = self._manifest(root, names)
        rows = read_manifest(root / manifest, content=read_member(root, manifest))
        return with_splits(_opened(root, rows, names), self.train_fraction, self.seed)

    def _manifest(self, root: Path, names: Sequence[str]) -> str:
        if self.manifest in names:
            return self.manifest
        if self.manifest:
            close = nearest(self.manifest, names)
            raise DataError(f"{root} has no manifest {self.manifest!r}{close}")
        found = [name for name in names if posixpath.basename(name) == MANIFEST]
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"{root} has several manifests, {some(found)}; set manifest to one")
        raise DataError(
            f"{root} has no {MANIFEST} that says who is on which picture. If names do, set "
            "pattern, such as '{pid}_c{camera}_*.jpg'; if another CSV file in it does, set "
            f"manifest. It holds {some(names) or 'no file'}"
        )


def _opened(root: Path, rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return a manifest's rows with openers. Raises DataError for what is not in the zip."""
    held, below = set(names), f"{root.as_posix()}/"
    opened, absent = [], []
    for row in rows:
        path = Path(row.path).as_posix()
        member = path.removeprefix(below)
        if member not in held:
            absent.append(f"{row.listed}: {path}")
        opened.append(attrs.evolve(row, opener=ZipMember(str(root), member)))
    if absent:
        one = "1 listed picture is" if len(absent) == 1 else f"{len(absent):,} listed pictures are"
        raise DataError(
            f"{one} not in {root}; first {absent[0]}. Paths are relative to the manifest in the zip"
        )
    return opened
