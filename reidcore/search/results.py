"""Templates of pictures, and ranked lists."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import torch
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.contracts.parts import Template
from reidcore.ranking.templates import moved
from reidcore.support.device_memory import fits

if TYPE_CHECKING:
    pass


Pictures = str | os.PathLike[str] | Iterable[str | os.PathLike[str] | Row]


@attrs.frozen(eq=False)
class Templates:
    """What a run keeps of N pictures.

    rows: the pictures. parts: {matcher: template}. made_by: identifies weights and picture size;
    only templates of one model are comparable.
    """

    rows: tuple[Row, ...]
    parts: dict[str, Template]
    made_by: str
    memo: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False, repr=False)
    """What rankings have found out about these pictures as a gallery."""
    _moved: dict[torch.device, dict[str, Template]] = attrs.field(
        factory=dict, init=False, repr=False
    )

    def __len__(self) -> int:
        return len(self.rows)

    def on(self, device: torch.device) -> dict[str, Template]:
        """`parts` for distances that are computed on this device: moved there once, if they fit,
        else as they are, to be moved tile by tile."""
        if device.type == "cpu":
            return self.parts
        if device not in self._moved:
            size = sum(value.nbytes for part in self.parts.values() for value in part.values())
            if not fits(size, device):
                return self.parts
            self._moved[device] = {name: moved(part, device) for name, part in self.parts.items()}
        return self._moved[device]

    @property
    def paths(self) -> list[str]:
        """The pictures' absolute paths."""
        return [row.path for row in self.rows]


class Match(NamedTuple):
    """One line of a ranked list; rank counts from 1."""

    query: str
    rank: int
    gallery: str
    distance: float


@attrs.frozen(eq=False)
class Ranked:
    """The best gallery pictures of every query.

    index: int64 [Q, K], gallery numbers, nearest first, -1 where the gallery has fewer. distance:
    float32 [Q, K], infinite there. Iterating gives `Match` by `Match`.
    """

    query: tuple[Row, ...]
    gallery: tuple[Row, ...]
    index: Tensor
    distance: Tensor

    def __iter__(self) -> Iterator[Match]:
        lists = zip(self.query, self.index.tolist(), self.distance.tolist(), strict=True)
        for row, places, distances in lists:
            for rank, (place, value) in enumerate(zip(places, distances, strict=True), 1):
                if place >= 0:
                    yield Match(row.path, rank, self.gallery[place].path, value)
