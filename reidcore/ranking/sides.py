"""The two sides of a ranking, queries and gallery."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Meta
from reidcore.ranking.templates import take


@attrs.frozen(eq=False)
class Sides:
    """The pictures that are compared: what is known of them, and their templates.

    query, gallery: on the device where distances are to be. templates: {side: {matcher: template}},
    on any device. places: int64, of some of these templates, where not all belong to the side.
    """

    query: Meta
    gallery: Meta
    templates: Mapping[str, Mapping[str, Template]]
    places: Mapping[str, Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """The device of all distances that are given to anybody."""
        return self.query.camera.device

    def template(self, side: str, matcher: str) -> Template:
        """Return one matcher's template of a side's pictures."""
        whole = self.templates[side][matcher]
        return whole if self.places is None else take(whole, self.places[side])

    def size(self, side: str) -> int:
        """Return the number of a side's pictures."""
        return len(self.query if side == "query" else self.gallery)

    def part(self, query: Tensor, gallery: Tensor) -> Sides:
        """Return some of the pictures alone, by their places, int64. Their templates are taken from
        the whole when they are asked for."""
        places = {"query": query.to(self.device), "gallery": gallery.to(self.device)}
        if self.places is not None:
            places = {side: self.places[side][index] for side, index in places.items()}
        return Sides(self.query[query], self.gallery[gallery], self.templates, places)
