"""The two sides of a ranking, queries and gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor

from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Meta
from reidcore.errors import ReidError
from reidcore.model.finite import faults, is_finite
from reidcore.ranking.templates import take

Place = tuple[str, int | Tensor]
"""Pictures of a side: the place of the first, or the places, of the shape of their distances."""


@attrs.frozen(eq=False)
class Sides:
    """The pictures that are compared: what is known of them, and their templates.

    query, gallery: on the device where distances are to be. templates: {side: {matcher: template}},
    on any device. places: {side: int64, the numbers of its pictures in `templates`}, None
    where all belong to the side.
    names: {side: names of the templates' pictures}, for messages.
    """

    query: Meta
    gallery: Meta
    templates: Mapping[str, Mapping[str, Template]]
    places: Mapping[str, Tensor] | None = None
    names: Mapping[str, Sequence[str]] | None = None

    @property
    def device(self) -> torch.device:
        """The device of all distances that are returned."""
        return self.query.camera.device

    def template(self, side: str, matcher: str) -> Template:
        """Return one matcher's template of a side's pictures."""
        whole = self.templates[side][matcher]
        return whole if self.places is None else take(whole, self.places[side])

    def name(self, side: str, number: int) -> str:
        """Return words for one of a side's pictures, by its place in the side."""
        if self.names is None:
            return f"{side} picture {number}"
        if self.places is not None:
            number = int(self.places[side][number])
        return f"{side} picture {self.names[side][number]}"

    def require_finite(self, what: str, distances: Tensor, rows: Place, columns: Place) -> None:
        """Raise ReidError, naming the first such pair, if some distances are not finite.

        what: the distances in words. rows, columns: the pictures of their rows and columns.
        """
        if not is_finite(distances):
            fault = self.fault(distances, rows, columns)
            raise ReidError(f"{what} are not finite: {fault}; nothing can be ranked")

    def fault(self, distances: Tensor, rows: Place, columns: Place) -> str:
        """Return how many distances are not finite, and the first such pair, as words."""
        at = tuple((~distances.isfinite()).nonzero()[0].tolist())
        (left, i), (right, j) = (
            (side, int(first[at]) if isinstance(first, Tensor) else first + at[axis])
            for axis, (side, first) in enumerate((rows, columns))
        )
        return (
            f"{faults(distances)}, the first is {distances[at].item()} between "
            f"{self.name(left, i)} and {self.name(right, j)}"
        )

    def size(self, side: str) -> int:
        """Return the number of a side's pictures."""
        return len(self.query if side == "query" else self.gallery)

    def part(self, query: Tensor, gallery: Tensor) -> Sides:
        """Return some of the pictures alone, by their places, int64. Their templates are taken from
        the whole when they are asked for."""
        places = {"query": query.to(self.device), "gallery": gallery.to(self.device)}
        if self.places is not None:
            places = {side: self.places[side][index] for side, index in places.items()}
        return Sides(self.query[query], self.gallery[gallery], self.templates, places, self.names)
