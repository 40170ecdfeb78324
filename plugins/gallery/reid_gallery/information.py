"""What a gallery holds, in numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lance
import pyarrow.compute as pc

from reid_gallery.filters import cameras
from reid_gallery.schema import Origin
from reid_gallery.tables import Tables
from reid_gallery.told import told


def information(tables: Tables, origin: Origin) -> dict[str, Any]:
    """Return counts, sizes and origin of a gallery, as JSON holds them."""
    with told(tables.place):
        dataset = tables.open()
        maps = tables.open_maps(origin)
        times = _range(dataset, "time")
        return {
            "place": tables.place,
            "run": origin.run,
            "run_folder": origin.folder,
            "made_by": origin.made_by,
            "precision": "float16" if origin.half else "float32",
            "pictures": dataset.count_rows(),
            "identities": _distinct(dataset, "identity"),
            "labelled": dataset.count_rows(filter="identity IS NOT NULL"),
            "cameras": cameras(dataset),
            "first_time": times[0],
            "last_time": times[1],
            "columns": [field.name for field in origin.extra(dataset.schema)],
            "fragments": len(dataset.get_fragments()),
            "map_fragments": 0 if maps is None else len(maps.get_fragments()),
            "versions": len(dataset.versions()),
            "bytes": size_of(tables),
            "bytes_per_picture": sum(column.bytes for column in origin.columns),
        }


def size_of(tables: Tables) -> int | None:
    """Return the bytes of all files of a gallery in a local folder, None of one elsewhere."""
    folder = tables.folder
    if folder is None:
        return None
    return sum(_size(Path(root) / name) for root, _, names in os.walk(folder) for name in names)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # removed by another program meanwhile
        return 0


def _distinct(dataset: lance.LanceDataset, column: str) -> int:
    found: set[Any] = set()
    for batch in dataset.to_batches(columns=[column]):
        found.update(batch.column(0).unique().to_pylist())
    return len(found - {None})


def _range(dataset: lance.LanceDataset, column: str) -> tuple[float | None, float | None]:
    ends: list[float] = []
    for batch in dataset.to_batches(columns=[column]):
        found = pc.min_max(batch.column(0))
        ends += [end for end in (found["min"].as_py(), found["max"].as_py()) if end is not None]
    return (min(ends), max(ends)) if ends else (None, None)


def lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the names and values of `information` as a terminal shows them."""
    return [(name.replace("_", " "), _shown(name, value)) for name, value in found.items()]


def _shown(name: str, value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(value[:20]) + (f" and {len(value) - 20} more" if len(value) > 20 else "")
    if name == "bytes":
        return f"{value:,} ({value / 2**20:.1f} MiB)"
    return f"{value:,}" if isinstance(value, int) else str(value)
