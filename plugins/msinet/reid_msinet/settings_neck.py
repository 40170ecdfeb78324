"""Settings and wiring of `msinet.neck`."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import Feature, Given, MapName, setting

Form = Literal["msinet", "cdnet"]
CDNET_LENGTH = 512
"""Length of CDNet's vectors behind both fully connected layers."""


@attrs.frozen
class Neck:
    """Settings of `msinet.neck`."""

    source: MapName = setting("the map of the global branch, backbone.cell6 as published")
    part_source: MapName = setting(
        "the map whose upper and lower half are the part branch, backbone.down2 as published"
    )
    form: Form = setting(
        "msinet: a linear layer and a batch norm whose shift stays 0; cdnet: CDNet's linear layer "
        "to 512, batch norm with a shift, and ReLU, and no shift in the convolution of the parts",
        default="msinet",
    )
    part_channels: int = setting(
        "channels that are left of the part branch's map", default=128, at_least=1
    )
    weights: str = setting(
        'what to start from: "" random, or the path of a checkpoint of the authors\' program',
        default="",
    )
    allow: list[str] = setting(
        "keys of the checkpoint or of the neck that may stay unmatched, as in the backbone",
        default=[],
    )

    def lengths(self, given: Given) -> dict[str, int]:
        """Lengths of the vectors."""
        pooled, parts = given.map(self.source)[0], 2 * self.part_channels
        cdnet = self.form == "cdnet"
        return {
            "pooled": pooled,
            "part": parts,
            "bn": CDNET_LENGTH if cdnet else pooled,
            "part_bn": CDNET_LENGTH if cdnet else parts,
        }

    def outputs(self, given: Given) -> dict[str, Feature]:
        height = given.map(self.part_source)[1]
        given.need(
            height >= 2,
            "part_source",
            f"is {self.part_source!r}, which has {height} row; two halves need two rows or more",
        )
        given.weights("weights", self.weights)
        lengths = self.lengths(given)
        lengths["feature"] = lengths["pooled"] + lengths["part"]
        lengths["feature_bn"] = lengths["bn"] + lengths["part_bn"]
        return {name: Feature.vector(length) for name, length in lengths.items()}
