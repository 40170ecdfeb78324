"""Settings of global context blocks, which the backbone and the head share. Torch-free."""

from __future__ import annotations

from typing import Literal

import attrs

from reidcore.api import setting


@attrs.frozen
class ContextSettings:
    """Base class of the settings of parts that have global context blocks."""

    gc_ratio: float = setting(
        "channels inside a global context block's transform, as a share of the map's, at least one",
        default=1 / 16,
        above=0,
        at_most=1,
    )
    gc_fusion: Literal["add", "mul", "both"] = setting(
        "how a global context block changes the map: add: adds its transform; mul: multiplies by "
        "its sigmoid; both: multiplies, then adds",
        default="add",
    )
    gc_pool: Literal["attention", "average"] = setting(
        "how a global context block pools the map: by attention with a softmax over the positions, "
        "or on average",
        default="attention",
    )
