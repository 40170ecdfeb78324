"""Settings and wiring of the core's augmentations."""

from __future__ import annotations

import attrs

from reidcore.api import setting


@attrs.frozen
class Flip:
    """Settings of `core.flip`."""

    p: float = setting("probability", default=0.5, at_least=0, at_most=1)


@attrs.frozen
class PadCrop:
    """Settings of `core.pad_crop`."""

    pad: int = setting("pixels added on each side", default=10, at_least=0)
    fill: int = setting("value of the added pixels", default=0, at_least=0, at_most=255)
