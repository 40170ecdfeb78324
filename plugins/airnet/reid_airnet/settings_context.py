"""Settings of global context blocks, which the backbone and the head share. Torch-free."""

from __future__ import annotations

from typing import Any, Literal

from reidcore.api import setting

Fusion = Literal["add", "mul", "both"]
ContextPool = Literal["attention", "average"]


def ratio() -> Any:
    return setting(
        "channels inside a global context block's transform, as a share of the map's, at least one",
        default=1 / 16,
        above=0,
        at_most=1,
    )


def fusion() -> Any:
    return setting(
        "how a global context block changes the map: add: adds its transform; mul: multiplies by its "
        "sigmoid; both: multiplies, then adds",
        default="add",
    )


def context_pool() -> Any:
    return setting(
        "how a global context block pools the map: by attention with a softmax over the positions, or "
        "on average",
        default="attention",
    )
