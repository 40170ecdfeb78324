"""Augmentations of the core, functions from pictures uint8 [3, H, W] to uint8 [3, H, W].

Pixels are moved by NumPy and numbers drawn by as few tensor operations as possible: each of torch's
releases the interpreter's lock and asks for it again, so that reading threads and the training step
would wait for one another.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from reidcore.builtin.settings.augmentations import Erase as EraseSettings
from reidcore.builtin.settings.augmentations import Flip as FlipSettings
from reidcore.builtin.settings.augmentations import Grey as GreySettings
from reidcore.builtin.settings.augmentations import Jitter as JitterSettings
from reidcore.builtin.settings.augmentations import Occlude as OccludeSettings
from reidcore.builtin.settings.augmentations import PadCrop as PadCropSettings
from reidcore.contracts.parts import Context

MEAN = (124, 116, 104)
"""ImageNet's mean colour (0.485, 0.456, 0.406), of 255."""

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601)."""


def _happens(p: float, generator: torch.Generator) -> bool:
    """Draw True with probability p."""
    # The number drawn is a float32; so must be what it is compared with.
    return torch.rand((), generator=generator).item() < float(np.float32(p))


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """Draw a number from `low` to `high` - 1."""
    return int(torch.randint(low, high, (), generator=generator))


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Return the part of an axis that a shift keeps in view: its place before and after."""
    stay = max(0, size - abs(shift))
    start = max(0, -shift)
    return slice(start, start + stay), slice(max(0, shift), max(0, shift) + stay)


class Flip:
    """Mirror left and right with probability p."""

    def __init__(self, config: FlipSettings):
        self.p = config.p

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        return picture.flip(2) if _happens(self.p, generator) else picture


class PadCrop:
    """Pad all four sides and crop at a random place to the size before."""

    def __init__(self, config: PadCropSettings):
        self.pad = config.pad
        self.fill = config.fill

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        top, left = torch.randint(2 * self.pad + 1, (2,), generator=generator).tolist()
        down, right = self.pad - top, self.pad - left
        source = picture.numpy()
        shifted = np.full(source.shape, self.fill, dtype=np.uint8)
        rows, columns = _overlap(down, source.shape[1]), _overlap(right, source.shape[2])
        shifted[:, rows[1], columns[1]] = source[:, rows[0], columns[0]]
        return torch.from_numpy(shifted)


class Erase:
    """Random erasing: fill a random rectangle (Zhong et al., AAAI 2020, algorithm 1).

    Area and ratio of height to width are uniform in their ranges. A rectangle that is as high or as
    wide as the picture is drawn again.
    """

    def __init__(self, config: EraseSettings):
        self.config = config

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        box = None
        if _happens(self.config.p, generator):
            box = self._box(picture.shape[1], picture.shape[2], generator)
        if box is None:
            return picture
        top, left, height, width = box
        filling = self._filling(height, width, generator)
        erased = picture.numpy().copy()
        erased[:, top : top + height, left : left + width] = filling
        return torch.from_numpy(erased)

    def _box(
        self, height: int, width: int, generator: torch.Generator
    ) -> tuple[int, int, int, int] | None:
        """Draw a rectangle: top, left, height and width; None if no attempt fits."""
        low, high = self.config.area
        least = self.config.aspect
        for _ in range(self.config.attempts):
            one, two = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
            area = (low + (high - low) * one) * height * width
            aspect = least + (1 / least - least) * two
            tall, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < tall < height and 0 < wide < width:
                top = _integer(0, height - tall + 1, generator)
                return top, _integer(0, width - wide + 1, generator), tall, wide
        return None

    def _filling(self, height: int, width: int, generator: torch.Generator) -> np.ndarray:
        """Return the pixels of a rectangle, [3, height, width] or a shape that expands to it."""
        fill = self.config.fill
        if fill == "random":
            size = (3, height, width)
            return torch.randint(256, size, generator=generator, dtype=torch.uint8).numpy()
        return np.array(MEAN if fill == "mean" else fill, dtype=np.uint8).reshape(-1, 1, 1)


def occlusion_box(
    height: int, width: int, smallest: float, area: float, integer: Callable[[int, int], int]
) -> tuple[int, int, int]:
    """Draw the square of random occlusion: its left, top and side in pixels.

    The square never touches the last row and column.

    Args:
        height: Height of the picture.
        width: Width of the picture.
        smallest: Least side as a share of the picture's shorter side.
        area: Share of the shorter side below which the side stays.
        integer: Function (low, high) that draws from low to high - 1; it is called for side, left
            and top, in this order.
    """
    shorter = min(height, width)
    least = max(1, int(shorter * smallest))
    side = integer(least, max(least + 1, int(shorter * area)))
    left = integer(0, width - side)
    return left, integer(0, height - side), side


class Occlude:
    """Random occlusion: fill a random square (Liao and Shao, ECCV 2020)."""

    def __init__(self, config: OccludeSettings):
        self.config = config

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        config = self.config
        if not config.area or not _happens(config.p, generator):
            return picture
        left, top, side = occlusion_box(
            picture.shape[1],
            picture.shape[2],
            config.smallest,
            config.area,
            lambda low, high: _integer(low, high, generator),
        )
        occluded = picture.numpy().copy()
        occluded[:, top : top + side, left : left + side] = config.fill
        return torch.from_numpy(occluded)


def grey_of(pixels: Tensor) -> Tensor:
    """Return the brightness [1, H, W] of float [3, H, W]."""
    return torch.tensordot(pixels.new_tensor(LUMA), pixels, 1)[None]


def _rounded(pixels: Tensor) -> Tensor:
    """Return float pixels in [0, 1] as uint8."""
    return pixels.mul(255).round_().to(torch.uint8)


def with_brightness(pixels: Tensor, factor: float) -> Tensor:
    """Return float [3, H, W] in [0, 1], multiplied by a factor and clipped."""
    return (pixels * factor).clamp_(0, 1)


def with_contrast(pixels: Tensor, factor: float) -> Tensor:
    """Return pixels whose distances to the mean brightness are multiplied, clipped to [0, 1]."""
    mean = grey_of(pixels).mean()
    return (mean + (pixels - mean) * factor).clamp_(0, 1)


def with_saturation(pixels: Tensor, factor: float) -> Tensor:
    """Return pixels whose distances to their own brightness are multiplied, clipped to [0, 1]."""
    grey = grey_of(pixels)
    return (grey + (pixels - grey) * factor).clamp_(0, 1)


def with_hue(pixels: Tensor, turn: float) -> Tensor:
    """Return pixels whose hue is turned by a share of the circle (hexcone model; Smith 1978)."""
    value = pixels.amax(0)
    chroma = value - pixels.amin(0)
    red, green, blue = pixels
    sector = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, (blue - red) + 2 * chroma, (red - green) + 4 * chroma),
    )
    sector = sector / chroma.where(chroma > 0, 1) + 6 * turn
    # A channel falls from `value` by as much of the chroma as its hue is away.
    offset = pixels.new_tensor([5.0, 3.0, 1.0]).view(3, 1, 1)
    away = (offset + sector).remainder(6)
    return value - chroma * torch.minimum(away, 4 - away).clamp_(0, 1)


class Jitter:
    """Change brightness, contrast, saturation and hue, in random order, with probability p.

    Ranges are those of torchvision's ColorJitter. Values are rounded once, at the end.
    """

    def __init__(self, config: JitterSettings):
        self.p = config.p
        self.changes = [
            (with_brightness, max(0.0, 1 - config.brightness), 1 + config.brightness),
            (with_contrast, max(0.0, 1 - config.contrast), 1 + config.contrast),
            (with_saturation, max(0.0, 1 - config.saturation), 1 + config.saturation),
            (with_hue, -config.hue, config.hue),
        ]

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        if not _happens(self.p, generator):
            return picture
        order = torch.randperm(len(self.changes), generator=generator).tolist()
        amounts = torch.rand(len(self.changes), generator=generator).tolist()
        pixels = picture.float() / 255
        for index in order:
            change, low, high = self.changes[index]
            if low < high:
                pixels = change(pixels, low + (high - low) * amounts[index])
        return _rounded(pixels)


class Grey:
    """Show the brightness, or one channel, in all three channels, with probability p."""

    def __init__(self, config: GreySettings):
        self.p = config.p
        self.of = config.of

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        if not _happens(self.p, generator):
            return picture
        if self.of == "channel":
            return picture[_integer(0, 3, generator)].expand_as(picture).clone()
        return _rounded(grey_of(picture.float() / 255)).repeat(3, 1, 1)


def build_flip(config: FlipSettings, context: Context) -> Flip:
    return Flip(config)


def build_pad_crop(config: PadCropSettings, context: Context) -> PadCrop:
    return PadCrop(config)


def build_erase(config: EraseSettings, context: Context) -> Erase:
    return Erase(config)


def build_occlude(config: OccludeSettings, context: Context) -> Occlude:
    return Occlude(config)


def build_jitter(config: JitterSettings, context: Context) -> Jitter:
    return Jitter(config)


def build_grey(config: GreySettings, context: Context) -> Grey:
    return Grey(config)
