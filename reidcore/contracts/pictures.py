"""Pictures as parts, losses, rankings and samplers get them.

Each class carries what its reader may know: `Images` no labels, `Batch` labels for losses, `Meta`
what a ranking may use, `Rows` the list that samplers and procedures choose from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.contracts.openers import Box, Opener


@attrs.frozen(eq=False)
class Images:
    """B pictures with all that a network may use of them, at training and at inference.

    Attributes:
        pixels: float [B, 3, H, W], red, green and blue, normalised as the run file says.
        modality: int64 [B], index into the run's modalities; by default all are of the first.
        camera: int64 [B], number of the camera, -1 if unknown, as all are by default.

    Example:
        >>> import torch
        >>> from reidcore.modules import Images
        >>> pixels = torch.zeros(4, 3, 256, 128)
        >>> images = Images(pixels, modality=torch.zeros(4).long(), camera=torch.ones(4).long())
        >>> len(images), len(images[:2])
        (4, 2)
        >>> Images(pixels).camera.tolist()
        [-1, -1, -1, -1]
    """

    pixels: Tensor
    modality: Tensor = attrs.field(default=attrs.Factory(lambda own: own._all(0), takes_self=True))
    camera: Tensor = attrs.field(default=attrs.Factory(lambda own: own._all(-1), takes_self=True))

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def to(self, device: torch.device | str) -> Images:
        """Return these pictures on a device."""
        return Images(*(value.to(device, non_blocking=True) for value in self._values()))

    def __getitem__(self, index: Any) -> Images:
        return Images(*(value[index] for value in self._values()))

    def _values(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.pixels, self.modality, self.camera

    def _all(self, number: int) -> Tensor:
        return torch.full((len(self),), number, device=self.pixels.device)


@attrs.frozen(eq=False)
class Batch:
    """Training pictures with their identities, which losses alone may see.

    Attributes:
        images: The B pictures.
        pid: int64 [B], labels from 0 to identities - 1.

    Example:
        >>> import torch
        >>> from reidcore.modules import Batch, Images
        >>> zeros = torch.zeros(4).long()
        >>> batch = Batch(Images(torch.zeros(4, 3, 8, 8), zeros, zeros), torch.tensor([0, 0, 1, 1]))
        >>> len(batch)
        4
    """

    images: Images
    pid: Tensor

    def __len__(self) -> int:
        return self.pid.shape[0]


@attrs.frozen(eq=False)
class Meta:
    """Cameras, times and modalities of N pictures: what a ranking may know, never identities.

    Attributes:
        camera: int64 [N], number of the camera, -1 if unknown.
        time: float64 [N], seconds, NaN if unknown.
        modality: int64 [N], index into the run's modalities.

    Example:
        >>> import torch
        >>> from reidcore.modules import Meta
        >>> meta = Meta(torch.tensor([1, 2]), torch.tensor([0.0, 8.5]), torch.tensor([0, 0]))
        >>> len(meta), meta[1:].camera.tolist()
        (2, [2])
    """

    camera: Tensor
    time: Tensor
    modality: Tensor

    def __len__(self) -> int:
        return self.camera.shape[0]

    def __getitem__(self, index: Any) -> Meta:
        return Meta(self.camera[index], self.time[index], self.modality[index])

    def to(self, device: torch.device | str) -> Meta:
        """Return the same on a device."""
        return Meta(self.camera.to(device), self.time.to(device), self.modality.to(device))


@attrs.frozen(eq=False)
class Rows:
    """A list of N labelled training pictures, as samplers and procedures get it.

    Attributes:
        paths: Absolute paths of the pictures.
        pid: int64 [N], labels from 0 to identities - 1.
        camera: int64 [N], number of the camera, -1 if unknown.
        time: float64 [N], seconds, NaN if unknown.
        modality: int64 [N], index into the run's modalities.
        names: Names of the identities in the data set, by label.
        listed: Place each row comes from, for messages.
        openers: What opens each picture, as in `reidcore.api.Row`; () if all are files.
        boxes: The part of each picture that counts, as in `Row`; () if it is always all of it.

    Example:
        >>> import numpy as np
        >>> from reidcore.modules import Rows
        >>> zeros = np.zeros(3, dtype=np.int64)
        >>> rows = Rows(
        ...     paths=["/a.jpg", "/b.jpg", "/c.jpg"], pid=np.array([0, 1, 1]), camera=zeros,
        ...     time=np.full(3, np.nan), modality=zeros, names=["7", "12"], listed=["", "", ""],
        ... )
        >>> len(rows), rows.identities
        (3, 2)
        >>> rows.where(rows.pid == 1).paths
        ['/b.jpg', '/c.jpg']
        >>> rows.take([2, 0]).pid.tolist()
        [1, 0]
        >>> rows.where(rows.pid == 1).relabelled([1]).names
        ['12']
    """

    paths: Sequence[str]
    pid: np.ndarray
    camera: np.ndarray
    time: np.ndarray
    modality: np.ndarray
    names: Sequence[str]
    listed: Sequence[str]
    openers: Sequence[Opener | None] = ()
    boxes: Sequence[Box | None] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def picture(self, index: int) -> Row:
        """Return what opens and names a picture: a row with a path, opener, box and place alone."""
        return Row(
            self.paths[index],
            "",
            listed=self.listed[index],
            opener=self.openers[index] if self.openers else None,
            box=self.boxes[index] if self.boxes else None,
        )

    @property
    def identities(self) -> int:
        """Number of identities that labels may name; some may have no picture in a part."""
        return len(self.names)

    def where(self, mask: Sequence[bool] | np.ndarray) -> Rows:
        """Return the rows where a mask is true, in order, with labels unchanged.

        Args:
            mask: bool [N].

        Raises:
            ValueError: The mask has another length.
        """
        if len(mask) != len(self):
            raise ValueError(f"mask has {len(mask)} entries for {len(self)} rows")
        return self.take(np.flatnonzero(np.asarray(mask, dtype=bool)))

    def take(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """Return the rows at these indices, in that order, with labels unchanged."""
        index = np.asarray(indices, dtype=np.int64)
        chosen: dict[str, Any] = {
            name: [values[int(i)] for i in index]
            for name in ("paths", "listed", "openers", "boxes")
            if (values := getattr(self, name))
        }
        for name in ("pid", "camera", "time", "modality"):
            chosen[name] = getattr(self, name)[index]
        return attrs.evolve(self, **chosen)

    def relabelled(self, pids: Sequence[int]) -> Rows:
        """Return the same rows with label pids[k] changed to k.

        Args:
            pids: Every label that the rows have, in the order of the new labels.

        Raises:
            ValueError: A row has another label.
        """
        number = {int(pid): new for new, pid in enumerate(pids)}
        missing = sorted({int(pid) for pid in self.pid} - number.keys())
        if missing:
            raise ValueError(f"rows have labels that pids does not list: {missing[:5]}")
        return attrs.evolve(
            self,
            pid=np.array([number[int(pid)] for pid in self.pid], dtype=np.int64),
            names=[self.names[int(pid)] for pid in pids],
        )
