"""Distances of some training pairs, on which the scales of rankings are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from reidcore.contracts.pictures import Rows
from reidcore.errors import DataError

IDENTITIES = 64
PER_IDENTITY = 4
SIDES = ("same", "different")
KEPT = 4096
"""Most distances kept of each kind of pair, as evenly spaced order statistics."""


@attrs.frozen(eq=False)
class Pairs:
    """Distances of training pairs: of one identity (`same`) and of two (`different`), ascending
    float32 [N] on the CPU, where scales are fitted."""

    same: Tensor
    different: Tensor

    def state(self) -> dict[str, Tensor]:
        return {"same": self.same, "different": self.different}


def choose_pictures(rows: Rows, generator: torch.Generator) -> np.ndarray:
    """Return the indices of pictures of up to 64 identities, up to 4 of each, from as many cameras
    as there are.

    Identities with pictures of several cameras are preferred, then those with several pictures.
    """
    order = torch.randperm(len(rows), generator=generator).numpy()
    groups: dict[int, list[int]] = {}
    for index in order:
        groups.setdefault(int(rows.pid[index]), []).append(int(index))

    def spread(indices: list[int]) -> list[int]:
        """Put one picture of every camera first, then the second ones."""
        seen: dict[int, int] = {}
        turns = []
        for index in indices:
            camera = int(rows.camera[index])
            turns.append(seen.get(camera, 0))
            seen[camera] = seen.get(camera, 0) + 1
        return [indices[place] for place in np.argsort(turns, kind="stable")]

    def rank(pid: int) -> tuple[bool, bool]:
        cameras = {int(rows.camera[index]) for index in groups[pid]}
        return len(cameras) < 2, len(groups[pid]) < 2

    chosen = sorted(groups, key=rank)[:IDENTITIES]
    indices = [index for pid in chosen for index in spread(groups[pid])[:PER_IDENTITY]]
    return np.array(indices, dtype=np.int64)


def sort_pairs(distances: Tensor, rows: Rows) -> Pairs:
    """Sort `distances` [N, N] between the pictures of `rows` into pairs of one identity and of two.

    Of one identity only pictures of different cameras count, as in ranking; where there are no
    such pairs, as without known cameras, all do.
    """
    pid, camera = torch.from_numpy(rows.pid), torch.from_numpy(rows.camera)
    apart = ~torch.eye(len(rows), dtype=torch.bool)
    match = (pid[:, None] == pid) & apart
    crossing = match & ((camera[:, None] != camera) | (camera[:, None] < 0))
    same = crossing if crossing.any() else match
    distances = distances.cpu()
    return Pairs(thinned(distances[same]), thinned(distances[pid[:, None] != pid]))


def thinned(distances: Tensor) -> Tensor:
    """Return the distances in ascending order, thinned out evenly to KEPT of them."""
    ascending = distances.float().sort().values
    if len(ascending) <= KEPT:
        return ascending
    return ascending[torch.linspace(0, len(ascending) - 1, KEPT).round().long()]


def read_pairs(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Pairs]:
    """Return {matcher: pairs} of a weights file's `pairs.MATCHER.same` and `.different`.

    Raises DataError naming the first that is missing, or no list of ascending finite numbers.
    """
    names = [key.split(".")[1] for key in tensors if key.startswith("pairs.")]
    return {
        name: Pairs(*(_ascending(tensors, f"pairs.{name}.{side}", path) for side in SIDES))
        for name in dict.fromkeys(names)
    }


def _ascending(tensors: Mapping[str, Tensor], key: str, path: Path) -> Tensor:
    value = tensors.get(key)
    if value is None:
        raise DataError(f"{path.absolute()} is damaged: {key} is missing")
    if value.ndim != 1 or not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise DataError(
            f"{path.absolute()} is damaged: {key} is {kind} {list(value.shape)}, expected a list "
            "of distances"
        )
    if not bool(value.isfinite().all() & (value.diff() >= 0).all()):
        raise DataError(
            f"{path.absolute()} is damaged: {key} holds distances that are not finite, or not in "
            "ascending order"
        )
    return value.float()
