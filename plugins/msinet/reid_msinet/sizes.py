"""Stages of an MSINet and their shapes, by arithmetic alone."""

from __future__ import annotations

from reidcore.sizes import conv_size

STAGES = ("stem", "cell1", "cell2", "down1", "cell3", "cell4", "down2", "cell5", "cell6")
"""Names of the stages in the order of computation."""
CHANNELS = (64, 256, 384, 512)
"""Published channels of the stem and of the three pairs of cells."""


def cell_channels(channels: tuple[int, int, int, int]) -> dict[str, tuple[int, int]]:
    """Channels that each cell takes and gives."""
    stem, first, second, third = channels
    return {
        "cell1": (stem, first),
        "cell2": (first, first),
        "cell3": (first, second),
        "cell4": (second, second),
        "cell5": (second, third),
        "cell6": (third, third),
    }


def stage_shapes(
    channels: tuple[int, int, int, int], image: tuple[int, int]
) -> dict[str, tuple[int, int, int]]:
    """(channels, height, width) of every stage. `image` is (height, width) in pixels; an extent is
    0 where the picture is too small."""

    def halved(extents: tuple[int, int], kernel: int, padding: int) -> tuple[int, int]:
        return (
            conv_size(extents[0], kernel, 2, padding),
            conv_size(extents[1], kernel, 2, padding),
        )

    extents = halved(halved(image, 7, 3), 3, 1)
    shapes = {}
    wide = channels[0]
    for stage in STAGES:
        if stage.startswith("cell"):
            wide = cell_channels(channels)[stage][1]
        elif stage != "stem":
            extents = halved(extents, 2, 0)
        shapes[stage] = (wide, *extents)
    return shapes
