"""Draws train, query and gallery for one's own pictures. Torch-free."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import sha256

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.rows import natural_key
from reidcore.errors import UsageError


@attrs.frozen
class Draw:
    """Rows with their drawn splits; without_query: test identities that could get no query."""

    rows: list[Row]
    without_query: list[str]


def draw_splits(rows: Sequence[Row], fraction: float, seed: int = 0) -> Draw:
    """Return the rows with drawn splits: a `fraction` (0 to 1) of the identities train.

    The others are divided into query and gallery.

    At least one identity stays on either side unless `fraction` is 0 or 1 (a single identity
    trains). A test identity gets one query from each camera, as far as every query keeps a match
    from another camera in the gallery; without cameras, one query if it has two pictures. The draw
    follows from the seed and the pids, cameras and file names alone: the order of the rows and
    where they lie change nothing, and a further identity moves hardly any other.
    """
    if not 0 <= fraction <= 1:
        raise UsageError(f"the split must be a fraction from 0 to 1, got {fraction:g}")

    def lot(*fields: str) -> bytes:
        return sha256("\0".join((str(seed), *fields)).encode("utf-8", "surrogateescape")).digest()

    pids = sorted({row.pid for row in rows}, key=lot)
    count = int(fraction * len(pids) + 0.5)
    if 0 < fraction < 1:
        count = max(1, min(count, len(pids) - 1))
    train = set(pids[:count])

    cameras: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.pid not in train:
            cameras[row.pid][row.camera].append(row)

    def picture_lot(row: Row) -> tuple[bytes, str]:
        # Equal file names in several folders: the whole path decides, the same wherever they lie.
        return lot(row.pid, row.camera, os.path.basename(row.name)), row.name

    queries: set[str] = set()
    without = []
    for pid, seen in cameras.items():
        drawn = [
            min(seen[camera], key=picture_lot)
            for camera in _query_cameras(
                {camera: len(pictures) for camera, pictures in seen.items()},
                lambda camera, pid=pid: lot(pid, camera),  # type: ignore[misc]
            )
        ]
        queries.update(row.name for row in drawn)
        if not drawn:
            without.append(pid)

    def split(row: Row) -> str:
        if row.pid in train:
            return "train"
        return "query" if row.name in queries else "gallery"

    result = [attrs.evolve(row, split=split(row)) for row in rows]
    return Draw(result, sorted(without, key=natural_key))


def _query_cameras(pictures: dict[str, int], lot: Callable[[str], bytes]) -> list[str]:
    """Return the cameras that give a query, of one identity's numbers of pictures by camera.

    A query is matched by what the other cameras leave in the gallery, so two cameras must leave
    something; a camera with a single picture leaves something only if it gives no query.
    """
    if set(pictures) == {""}:
        return [""] if pictures[""] > 1 else []
    giving = {camera: count for camera, count in pictures.items() if camera}
    if len(giving) < 2:
        return []
    single = sorted((camera for camera, count in giving.items() if count == 1), key=lot)
    if len(giving) - len(single) < 2:
        del giving[single[0]]
    return list(giving)
