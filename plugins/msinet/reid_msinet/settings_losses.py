"""Settings and wiring of the plugin's losses."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from reidcore.api import Given, MapName, VectorName, setting


def temperature() -> Any:
    return setting("what similarities are divided by, tau", default=0.05, above=0)


def momentum() -> Any:
    return setting(
        "share of a memory's entry that stays when a picture of its identity was seen, beta",
        default=0.2,
        at_least=0,
        below=1,
    )


def normalize() -> Any:
    return setting(
        "what has unit length: features and entries, as in the authors' code, features alone, or "
        "none, as equations 2 and 3 are printed",
        default="both",
    )


def memory_init() -> Any:
    return setting(
        "what entries start as: the mean of each identity's pictures as the untrained network sees "
        "them, as the paper says, or zeros, as in the authors' code",
        default="centroid",
    )


@attrs.frozen
class Memory:
    """Settings of `msinet.memory`."""

    feature: VectorName = setting("the vector that the memory keeps")
    temperature: float = temperature()
    momentum: float = momentum()
    normalize: Literal["both", "features", "none"] = normalize()
    memory_init: Literal["centroid", "zeros"] = memory_init()

    def check(self, given: Given) -> None:
        given.need_identities()


@attrs.frozen
class Sam:
    """Settings of `msinet.sam`."""

    source: MapName = setting("the map to align, backbone.cell6 as published")
    mode: Literal["pos_neg", "pos", "neg"] = setting(
        "whether positive pairs, negative pairs or both are aligned; of separated pairs alone",
        default="pos_neg",
    )
    activation: Literal["pam", "self", "none"] = setting(
        "what an anchor's positives are aligned with: position attention with weights of its own "
        "(pam), the picture's own correlation, without weights (self), or each other, as negatives "
        "are (none)",
        default="pam",
    )
    pairs: Literal["separated", "unified"] = setting(
        "positives and negatives on their own, or all pictures among each other",
        default="separated",
    )
    orientation: Literal["partner", "anchor"] = setting(
        "which picture's positions an activation vector has: the other's, as in the authors' code, "
        "or the anchor's, as in the paper's text",
        default="partner",
    )
    exclude_self: bool = setting(
        "whether pairs of a picture with itself are left out; the authors' code keeps them",
        default=False,
    )
    negatives: Literal["pairs", "pictures"] = setting(
        "what the sum over pairs of negatives is divided by: their number, as in the authors' "
        "code, or the number of negative pictures, as equation 8 is printed",
        default="pairs",
    )

    def check(self, given: Given) -> None:
        channels = given.map(self.source)[0]
        given.need(
            self.activation != "pam" or channels >= 8,
            "source",
            f"is {self.source!r} with {channels} channels, of which position attention takes an "
            "eighth; use a map with 8 or more, or activation = 'self' or 'none'",
        )
        given.need(
            self.pairs == "separated" or self.mode == "pos_neg",
            "mode",
            f"is {self.mode!r}, but unified pairs are all pairs; use mode = 'pos_neg' with them",
        )
        given.need_pairs()
