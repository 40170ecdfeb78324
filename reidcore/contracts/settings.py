"""Settings of components: names of features, matchers and losses, and documented ranges."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NewType

import attrs

MapName = NewType("MapName", str)
"""A setting that names a feature map, `instance.output`, of shape (C, H, W)."""


VectorName = NewType("VectorName", str)
"""A setting that names a vector feature of shape (D,)."""


TensorName = NewType("TensorName", str)
"""A setting that names a feature of kind tensor, of any shape."""


FeatureName = NewType("FeatureName", str)
"""A setting that names a feature of any kind."""


MatcherName = NewType("MatcherName", str)
"""A setting that names a `[[matcher]]`."""


LossName = NewType("LossName", str)
"""A setting that names another `[[loss]]`."""


IMAGENET = "imagenet"
"""What a setting `weights` says for torchvision's published weights instead of a file."""


CHECKPOINTS = (".pth", ".pt", ".tar", ".safetensors")


INSTANCE = re.compile(r"[a-z][a-z0-9_]*")


def setting(
    doc: str,
    *,
    default: Any = attrs.NOTHING,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    check: Callable[[Any], str | None] | None = None,
) -> Any:
    """One key of a component's table: an attrs field with a documented range.

    `doc` is shown by `reid plugins NAME` and in the documentation. The bounds hold for numbers and
    for every number in a list or table. `check` returns a complaint such as "expected an odd
    number", or None. Mutable defaults (list, dict) are copied for every instance.
    """

    def refuse(attribute: Any, text: str) -> None:
        error = ValueError(text)
        error.reid_field = attribute.name  # type: ignore[attr-defined]
        raise error

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if isinstance(value, Mapping):
            items: list[Any] = list(value.values())
        else:
            items = list(value) if isinstance(value, list | tuple) else [value]
        for item in items:
            if isinstance(item, bool) or not isinstance(item, int | float):
                continue
            for bound, fails, words in (
                (at_least, lambda x, b: not x >= b, "at least"),
                (above, lambda x, b: not x > b, "above"),
                (at_most, lambda x, b: not x <= b, "at most"),
                (below, lambda x, b: not x < b, "below"),
            ):
                if bound is not None and fails(item, bound):
                    refuse(attribute, f"expected a number {words} {bound:g}, got {item!r}")
        complaint = check(value) if check is not None else None
        if complaint:
            refuse(attribute, f"{complaint}, got {value!r}")

    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {"doc": doc, "bounds": {k: v for k, v in bounds.items() if v is not None}}
    if isinstance(default, list | dict):
        factory = default
        return attrs.field(
            factory=factory.copy, validator=validate, metadata=metadata, kw_only=True
        )
    return attrs.field(default=default, validator=validate, metadata=metadata, kw_only=True)


FusedChoice = Literal["auto", "always", "never"]
"""Type of the setting `fused` of matchers that have a Triton kernel."""


def fused_setting() -> Any:
    """Return the setting `fused` of a matcher whose distances a Triton kernel can compute.

    `reidcore.modules.Fused` does what it says.

    Returns:
        A field for the body of a class decorated with `attrs.frozen`, as `setting` returns.

    Example:
        >>> import attrs
        >>> from reidcore.api import FusedChoice, fused_setting
        >>> @attrs.frozen
        ... class Places:
        ...     fused: FusedChoice = fused_setting()
        >>> Places().fused
        'auto'
    """
    return setting(
        "whether one Triton kernel computes distances of a test: auto, on NVIDIA GPUs where triton "
        "is installed, and elsewhere plain torch; always, where it cannot is an error; never. "
        "Training always uses plain torch",
        default="auto",
    )
