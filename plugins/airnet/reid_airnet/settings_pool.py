"""Settings and wiring of the plugin's head. Torch-free."""

from __future__ import annotations

from typing import Literal

import attrs

from reid_airnet.settings_context import ContextSettings
from reidcore.api import Feature, Given, MapName, setting

VECTORS = ("a1", "a2", "i", "m")


@attrs.frozen
class Pool(ContextSettings):
    """Settings of `airnet.pool`. Each vector names the map that it is pooled from; one that names
    none is not there."""

    a1: MapName | None = setting(
        "the map whose maximum over the positions is the vector a1", default=None
    )
    a2: MapName | None = setting("the map whose maximum is the vector a2", default=None)
    i: MapName | None = setting(
        "the map whose attention-based pooling is the vector i", default=None
    )
    m: MapName | None = setting(
        "the map that passes a global context block before its maximum is the vector m",
        default=None,
    )
    attention: Literal["sum", "mean", "softmax"] = setting(
        "weights of the positions in i: sum: as they are, as printed; mean: divided by the number "
        "of positions; softmax: a softmax over them",
        default="sum",
    )
    bias: bool = setting("whether i's values have a bias", default=False)
    shift: bool = setting("whether the normalisations' shift is trained or stays 0", default=False)

    def sources(self) -> dict[str, MapName]:
        """{vector: its map} of the vectors that are there."""
        named = {name: getattr(self, name) for name in VECTORS}
        return {name: source for name, source in named.items() if source is not None}

    def outputs(self, given: Given) -> dict[str, Feature]:
        sources = self.sources()
        given.need(
            bool(sources), "", f"pools nothing: name a map for at least one of {', '.join(VECTORS)}"
        )
        given.need_batch_norm()
        lengths = {name: Feature.vector(given.map(source)[0]) for name, source in sources.items()}
        return lengths | {f"{name}_bn": length for name, length in lengths.items()}
