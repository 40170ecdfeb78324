"""Makes the rows of both tables of pictures: what a worker does, on this machine or another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F

from reid_gallery.rows import Entry, column
from reid_gallery.schema import BASE, Column, Origin, template_columns
from reid_gallery.tables import MAPS
from reidcore.errors import DataError, ReidError
from reidcore.tools import Search, Templates, open_picture

PIECE = 256
"""Pictures that are extracted between two looks at how far it is."""
BITS = 20
"""Bits of an id below the milliseconds since 1970 at which its shard began."""

Damaged = tuple[str, str]
"""A picture's name and what is wrong with it."""


@attrs.frozen(eq=False)
class Extracted:
    """The rows of some pictures for both tables, and the pictures that are damaged."""

    entries: tuple[Entry, ...]
    rows: pa.Table
    maps: pa.Table | None
    damaged: tuple[Damaged, ...]


@attrs.frozen
class Extractor:
    """Makes rows of pictures by a run. extra: the user's columns that the gallery has."""

    search: Search
    origin: Origin
    extra: pa.Schema

    def extract(
        self, entries: Sequence[Entry], progress: Callable[[int], None] = lambda done: None
    ) -> Extracted:
        """Return the rows of pictures, those that cannot be read left out.

        progress: is told after some pictures how many are done. Raises ReidError where the run's
        templates are not finite, or do not fit the gallery's precision.
        """
        good: list[Entry] = []
        damaged: list[Damaged] = []
        parts: list[Templates] = []
        for start in range(0, len(entries), PIECE):
            piece = list(entries[start : start + PIECE])
            templates, piece, bad = self._templates(piece)
            damaged += bad
            if templates is not None:
                good += piece
                parts.append(templates)
            progress(min(start + PIECE, len(entries)))
        return self.rows(good, _joined(parts), tuple(damaged))

    def _templates(self, piece: list[Entry]) -> tuple[Templates | None, list[Entry], list[Damaged]]:
        try:
            for entry in piece:
                check_place(entry)
            return self.search.templates([entry.row for entry in piece]), piece, []
        except DataError:
            found = [(entry, fault(entry)) for entry in piece]
            bad = [(entry.row.name, why) for entry, why in found if why]
            if not bad:
                raise
        rest = [entry for entry, why in found if not why]
        if not rest:
            return None, [], bad
        return self.search.templates([entry.row for entry in rest]), rest, bad

    def rows(
        self,
        entries: Sequence[Entry],
        parts: Mapping[str, Mapping[str, torch.Tensor]],
        damaged: tuple[Damaged, ...] = (),
    ) -> Extracted:
        """Return the rows of pictures whose templates, {matcher: {key: [N, ...]}}, are there."""
        # Gaps between ids do no harm; what counts is that no two shards share one.
        first = (time.time_ns() // 1_000_000) << BITS
        ids = pa.array(np.arange(first, first + len(entries)), pa.int64())
        now = datetime.now(UTC)
        own = {
            "id": ids,
            "key": pa.array([entry.key for entry in entries], pa.binary(16)),
            "source": pa.array([entry.row.path for entry in entries], pa.string()),
            "box": pa.array([entry.box for entry in entries], pa.string()),
            "camera": _texts([entry.row.camera for entry in entries]),
            "time": pa.array([entry.row.time for entry in entries], pa.float64()),
            "modality": _texts([entry.row.modality for entry in entries]),
            "added": pa.array([now] * len(entries), BASE.field("added").type),
        }
        schema = self.origin.schema(self.extra)
        columns = {one.name: one for one in self.origin.columns}
        names = [entry.row.name for entry in entries]

        def array(field: pa.Field) -> pa.Array:
            if field.name in own:
                return own[field.name]
            if field.name in columns:
                return self._stored(columns[field.name], parts, names)
            return column(entries, field)

        rows = pa.table([array(field) for field in schema], schema=schema)
        maps = None
        if self.origin.maps:
            wide = self.origin.maps_schema()
            maps = pa.table([array(field) for field in wide], schema=wide)
        return Extracted(tuple(entries), rows, maps, damaged)

    def _stored(
        self,
        column: Column,
        parts: Mapping[str, Mapping[str, torch.Tensor]],
        names: Sequence[str],
    ) -> pa.Array:
        """A template's column. Raises ReidError for the first picture that does not fit."""
        kind = column.field.type
        if not names:
            return pa.array([], kind)
        value = parts[column.matcher][column.key]
        if column.unit:
            matcher: Any = self.search.model.matchers[column.matcher]
            with torch.no_grad():
                value = F.normalize(matcher.descriptor({column.key: value}), dim=1)
        with np.errstate(over="ignore"):  # told below
            stored = value.reshape(len(names), -1).numpy().astype(column.stored, copy=False)
        if stored.dtype.kind == "f" and not (good := np.isfinite(stored).all(1)).all():
            raise ReidError(
                f"the template {column.matcher}.{column.key} of picture "
                f"{names[int((~good).argmax())]} is not finite as {column.stored}; nothing can be "
                "ranked by it"
                + ("; make the gallery with --precision float32" if self.origin.half else "")
            )
        return pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), type=kind)


def check_place(entry: Entry) -> None:
    """Raise DataError where a picture's path cannot be kept."""
    try:
        entry.row.path.encode()
    except UnicodeEncodeError:
        raise DataError(
            "its path is not Unicode, which a gallery cannot keep; rename the file or its folder"
        ) from None


def fault(entry: Entry) -> str:
    """Return what is wrong with a picture, "" if nothing is."""
    try:
        check_place(entry)
        open_picture(entry.row)
    except DataError as error:
        return str(error)
    return ""


def _texts(values: Sequence[str]) -> pa.Array:
    return pa.array([value or None for value in values], pa.string())


def _joined(parts: Sequence[Templates]) -> dict[str, dict[str, torch.Tensor]]:
    if not parts:
        return {}
    return {
        matcher: {key: torch.cat([one.parts[matcher][key] for one in parts]) for key in template}
        for matcher, template in parts[0].parts.items()
    }


def ignores_length(search: Search, matcher: str) -> bool:
    """Return whether a matcher's distances are (1 - cos) / 2 of one vector, as those of
    core.cosine are, so that vectors of length 1 can be stored for it. It is tried on random
    vectors."""
    part: Any = search.model.matchers[matcher]
    specs = search.plan.matching(matcher).template
    if not hasattr(part, "descriptor") or len(specs) != 1:
        return False
    ((key, spec),) = specs.items()
    if len(spec.shape) != 1 or not spec.dtype.startswith("float"):
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, *spec.shape, generator=generator) for _ in range(2))
    device = search.model.device
    with torch.no_grad():
        own = part.distance({key: a.to(device)}, {key: b.to(device)}).cpu()
        units = [F.normalize(part.descriptor({key: one.to(device)}), dim=1).cpu() for one in (a, b)]
    if units[0].shape[1:] != spec.shape:
        return False
    return bool(torch.allclose(own, (1 - units[0] @ units[1].T) / 2, atol=1e-5))


def origin_of(search: Search, half: bool, maps: str = MAPS) -> Origin:
    """Return the origin of a new gallery. maps: a name for the table of wide templates."""
    names = dict.fromkeys(name for table in search.plan.rankings for name in table.matchers)
    specs = {name: search.plan.matching(name).template for name in names}
    unit = frozenset(name for name in names if ignores_length(search, name))
    columns = template_columns(specs, unit, half)
    return Origin(
        search.plan.runfile.name,
        str(search.folder.absolute()),
        search.made_by,
        columns,
        maps if any(column.wide for column in columns) else "",
    )
