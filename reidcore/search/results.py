"""Templates of pictures, and ranked lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.contracts.parts import Template
from reidcore.ranking.templates import moved
from reidcore.support.device_memory import fits


@attrs.frozen(eq=False)
class Templates:
    """N pictures as a run compares them with others. `Search.templates` makes them.

    Attributes:
        rows: the pictures, in their order.
        parts: {matcher: {name: tensor [N, ...]}}, on the CPU; those of an index folder are mapped
            from disk.
        made_by: a text that names the run, its weights, the size of pictures and the views; only
            templates with the same text can be compared.

    Example::

        gallery = run.templates("gallery")
        print(len(gallery), gallery.paths[0], gallery.made_by)
    """

    rows: tuple[Row, ...]
    parts: dict[str, Template]
    made_by: str
    memo: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False, repr=False)
    """Results of rankings that depend on these pictures as a gallery alone."""
    _moved: dict[torch.device, dict[str, Template]] = attrs.field(
        factory=dict, init=False, repr=False
    )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def paths(self) -> list[str]:
        """The pictures' absolute paths, or names of those that are no files."""
        return [row.path for row in self.rows]

    @property
    def names(self) -> list[str]:
        """The pictures' paths, each with its box behind it if it has one."""
        return [row.name for row in self.rows]

    def on(self, device: torch.device) -> dict[str, Template]:
        """Return `parts` for distances that are computed on this device: moved there once, if they
        fit, else as they are, to be moved tile by tile."""
        if device.type == "cpu":
            return self.parts
        if device not in self._moved:
            size = sum(value.nbytes for part in self.parts.values() for value in part.values())
            if not fits(size, device):
                return self.parts
            self._moved[device] = {name: moved(part, device) for name, part in self.parts.items()}
        return self._moved[device]


class Match(NamedTuple):
    """One line of a ranked list.

    Attributes:
        query: the query picture's absolute path, with its box behind it if it has one; of a
            picture in memory a name with its place in the list that was given, from 0, such as
            "memory-2[0]".
        rank: the place in the query's list, from 1.
        gallery: the gallery picture's, likewise. Places of pictures are in `Ranked.index`.
        distance: after the ranking's postprocessors, smaller is closer; its range is that of the
            run's matchers and postprocessors.
    """

    query: str
    rank: int
    gallery: str
    distance: float


@attrs.frozen(eq=False)
class Ranked:
    """The K nearest gallery pictures of each of Q queries. Iterating gives `Match` by `Match`.

    Attributes:
        query: the query pictures.
        gallery: all gallery pictures.
        index: int64 [Q, K], places in `gallery`, nearest first, -1 where a query has fewer than K.
        distance: float32 [Q, K], ascending, infinite where `index` is -1.

    Example::

        for match in run.rank("new", "gallery", top=3):
            print(match.query, match.rank, match.gallery, match.distance)
    """

    query: tuple[Row, ...]
    gallery: tuple[Row, ...]
    index: Tensor
    distance: Tensor

    def _repr_html_(self) -> str:
        """Show the first lists in a notebook, as rows of pictures."""
        from reidcore.search.notebook import ranked_html

        return ranked_html(self)

    def __iter__(self) -> Iterator[Match]:
        lists = zip(self.query, self.index.tolist(), self.distance.tolist(), strict=True)
        for row, places, distances in lists:
            for rank, (place, value) in enumerate(zip(places, distances, strict=True), 1):
                if place >= 0:
                    yield Match(row.name, rank, self.gallery[place].name, value)
