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

    def require_finite(
        self,
        matcher: str,
        distances: Tensor,
        rows: tuple[str, int],
        columns: str,
        listed: Tensor | None = None,
    ) -> None:
        """Raise ReidError, naming the first such pair, if distances [r, c] are not finite.

        rows: the side of the rows, and the place of the first. columns: that of the columns, which
        are all of the side's pictures, or those at `listed` int64 [r, c].
        """
        if is_finite(distances):
            return
        row, column = (~distances.isfinite()).nonzero()[0].tolist()
        place = column if listed is None else int(listed[row, column])
        side, start = rows
        raise ReidError(
            f"distances by matcher {matcher!r} are not finite: {faults(distances)}, the first is "
            f"{distances[row, column].item()} between {self.name(side, start + row)} and "
            f"{self.name(columns, place)}; nothing can be ranked"
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
