"""Settings and wiring of the core's augmentations."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from reidcore.contracts.settings import refuse_value, setting


def _probability(default: float) -> Any:
    return setting("probability", default=default, at_least=0, at_most=1)


def _ordered(value: tuple[float, float]) -> str | None:
    return None if value[0] <= value[1] else "expected the smaller number first"


@attrs.frozen
class Flip:
    """Settings of `core.flip`."""

    p: float = _probability(0.5)


@attrs.frozen
class PadCrop:
    """Settings of `core.pad_crop`."""

    pad: int = setting("pixels added on each side", default=10, at_least=0, at_most=16384)
    fill: int = setting("value of the added pixels", default=0, at_least=0, at_most=255)


@attrs.frozen
class Erase:
    """Settings of `core.erase`."""

    p: float = _probability(0.5)
    area: tuple[float, float] = setting(
        "smallest and largest erased share of the picture",
        default=(0.02, 0.4),
        above=0,
        at_most=1,
        check=_ordered,
    )
    aspect: float = setting(
        "smallest ratio of height to width; the largest is its inverse",
        default=0.3,
        above=0,
        at_most=1,
    )
    attempts: int = setting(
        "how often a rectangle is drawn before the picture is left as it is",
        default=100,
        at_least=1,
    )
    fill: Literal["mean", "random"] | int | tuple[int, int, int] = setting(
        "what is put there: ImageNet's mean colour, which its normalisation turns into 0, random "
        "values for each pixel, a value, or three for red, green and blue",
        default="mean",
        at_least=0,
        at_most=255,
    )


@attrs.frozen
class Occlude:
    """Settings of `core.occlude`."""

    area: float = setting(
        "the square's side is below this share of the picture's shorter side; 0 draws none",
        default=0.8,
        at_least=0,
        at_most=1,
    )
    smallest: float = setting(
        "least side, as a share of the shorter side, but at least a pixel",
        default=0.0,
        at_least=0,
        below=1,
    )
    fill: int = setting("value of the square's pixels", default=255, at_least=0, at_most=255)
    p: float = _probability(1.0)

    @smallest.validator
    def _below_area(self, attribute: attrs.Attribute, value: float) -> None:
        if value > self.area > 0:
            refuse_value(attribute, f"expected at most area = {self.area:g}, got {value!r}")


@attrs.frozen
class Jitter:
    """Settings of `core.jitter`."""

    p: float = _probability(0.5)
    brightness: float = setting(
        "b: pixels are multiplied by a factor from 1 - b, at least 0, to 1 + b",
        default=0.15,
        at_least=0,
    )
    contrast: float = setting(
        "c: likewise, the distance to the picture's mean brightness", default=0.15, at_least=0
    )
    saturation: float = setting(
        "s: likewise, the distance to each pixel's grey", default=0.1, at_least=0
    )
    hue: float = setting(
        "h: the hue is turned by -h to h of the whole circle", default=0.1, at_least=0, at_most=0.5
    )


@attrs.frozen
class Grey:
    """Settings of `core.grey`."""

    p: float = _probability(0.1)
    of: Literal["brightness", "channel"] = setting(
        "what all three channels show: the brightness, or one of red, green and blue, drawn anew "
        "for each picture",
        default="brightness",
    )
