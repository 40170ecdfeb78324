"""Settings of components: fields with documented ranges, and types of settings that name things."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NewType, NoReturn

import attrs

MapName = NewType("MapName", str)
"""A setting that names a feature map, `instance.output`, of shape [C, H, W]."""

VectorName = NewType("VectorName", str)
"""A setting that names a vector feature, of shape [D]."""

TensorName = NewType("TensorName", str)
"""A setting that names a feature of kind tensor, of any shape."""

FeatureName = NewType("FeatureName", str)
"""A setting that names a feature of any kind."""

MatcherName = NewType("MatcherName", str)
"""A setting that names a `[[matcher]]`."""

LossName = NewType("LossName", str)
"""A setting that names another `[[loss]]`."""

IMAGENET = "imagenet"
"""Value of a setting `weights` that stands for torchvision's published weights, not for a file."""

CHECKPOINTS = (".pth", ".pt", ".tar", ".safetensors")
"""Endings of files with weights that `weights` may name."""

NAMED_WEIGHTS = re.compile(r"[a-z][a-z0-9_]*:[\w.\-]+")
"""Values of a setting `weights` that stand for weights which a plugin names."""

INSTANCE = re.compile(r"[a-z][a-z0-9_]*")
"""Names that a part of a run, and everything else a run file names, may have."""


def refuse_value(attribute: attrs.Attribute[Any], text: str) -> NoReturn:
    """Raise the ValueError by which a validator refuses the value of its attribute.

    Args:
        attribute: The attribute, as attrs hands it to a validator.
        text: What would fit and what was found, such as "expected an odd number, got 4".
    """
    error = ValueError(text)
    error.reid_field = attribute.name  # type: ignore[attr-defined]
    raise error


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
    """Return an attrs field for one key of a component's table, with a documented range.

    The bounds hold for a number and for every number in a list or table; booleans have none.

    Args:
        doc: Meaning of the key, which `reid plugins NAME` shows.
        default: Value where the run file has no such key; without it the key is required. A list
            or dict is copied for every instance.
        at_least: Smallest allowed number.
        above: Number that must be exceeded.
        at_most: Largest allowed number.
        below: Number that must not be reached.
        check: Function of the value that returns a complaint such as "expected an odd number", or
            None if the value is right.

    Returns:
        A field for the body of a class decorated with `attrs.frozen`; it is keyword-only. Making an
        instance raises ValueError, with the key in `reid_field`, for a value that does not fit.

    Example:
        >>> import attrs
        >>> from reidcore.api import setting
        >>> @attrs.frozen
        ... class Stripes:
        ...     parts: int = setting("number of stripes", default=6, at_least=1)
        >>> Stripes().parts
        6
        >>> Stripes(parts=0)
        Traceback (most recent call last):
        ...
        ValueError: expected a number at least 1, got 0
    """

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
                    refuse_value(attribute, f"expected a number {words} {bound:g}, got {item!r}")
        complaint = check(value) if check is not None else None
        if complaint:
            refuse_value(attribute, f"{complaint}, got {value!r}")

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
