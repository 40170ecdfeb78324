"""Pictures as parts, losses, rankings and samplers see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class Images:
    """All that inference may use of B pictures.

    pixels: float [B, 3, H, W]. modality: int64 [B], index into the run's modalities. camera: int64
    [B], -1 if unknown.
    """

    pixels: Tensor
    modality: Tensor
    camera: Tensor

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device | str) -> Images:
        return Images(*(value.to(device, non_blocking=True) for value in self._values()))

    def __getitem__(self, index: Any) -> Images:
        return Images(*(value[index] for value in self._values()))

    def _values(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.pixels, self.modality, self.camera


@attrs.frozen(eq=False)
class Batch:
    """Pictures with their identities, for losses only. pid: int64 [B], 0 .. identities - 1."""

    images: Images
    pid: Tensor

    def __len__(self) -> int:
        return self.pid.shape[0]


@attrs.frozen(eq=False)
class Meta:
    """What ranking may know of N pictures; never their identity.

    camera: int64 [N], -1 if unknown. time: float64 [N] seconds, NaN if unknown. modality: int64
    [N].
    """

    camera: Tensor
    time: Tensor
    modality: Tensor

    def __len__(self) -> int:
        return self.camera.shape[0]

    def __getitem__(self, index: Any) -> Meta:
        return Meta(self.camera[index], self.time[index], self.modality[index])

    def to(self, device: torch.device | str) -> Meta:
        return Meta(self.camera.to(device), self.time.to(device), self.modality.to(device))


@attrs.frozen(eq=False)
class Rows:
    """A list of labelled training pictures: what samplers and procedures see.

    paths: absolute paths. pid: int64 [N], 0 .. identities - 1. camera, time, modality: as `Meta`.
    names: the identities' names in the data set, by number. listed: where each row stands.
    """

    paths: Sequence[str]
    pid: np.ndarray
    camera: np.ndarray
    time: np.ndarray
    modality: np.ndarray
    names: Sequence[str]
    listed: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def identities(self) -> int:
        """Number of identities that labels may name; some may have no picture in a part."""
        return len(self.names)

    def where(self, mask: Sequence[bool] | np.ndarray) -> Rows:
        """The rows where `mask` [N] is true, in order, with labels unchanged."""
        if len(mask) != len(self):
            raise ValueError(f"mask has {len(mask)} entries for {len(self)} rows")
        return self.take(np.flatnonzero(np.asarray(mask, dtype=bool)))

    def take(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """The rows at `indices`, in that order, with labels unchanged."""
        index = np.asarray(indices, dtype=np.int64)
        return attrs.evolve(
            self,
            paths=[self.paths[int(i)] for i in index],
            listed=[self.listed[int(i)] for i in index],
            **{name: getattr(self, name)[index] for name in ("pid", "camera", "time", "modality")},
        )

    def relabelled(self, pids: Sequence[int]) -> Rows:
        """The same rows with label pids[k] renamed to k; every row's label must be listed."""
        number = {int(pid): new for new, pid in enumerate(pids)}
        missing = sorted({int(pid) for pid in self.pid} - number.keys())
        if missing:
            raise ValueError(f"rows have labels that pids does not list: {missing[:5]}")
        return attrs.evolve(
            self,
            pid=np.array([number[int(pid)] for pid in self.pid], dtype=np.int64),
            names=[self.names[int(pid)] for pid in pids],
        )
