"""Decodes pictures and normalizes their pixels."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reidcore.contracts.component import Row
from reidcore.data.opening import BadPicture, shown
from reidcore.runfiles.tables import IMAGENET_PIXELS, Normalize

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode(row: Row, size: tuple[int, int], interpolation: str) -> Tensor:
    """Return a row's picture as a viewer shows it, uint8 [3, H, W] RGB, resized to `size`, (height,
    width) in pixels.

    interpolation: as in [data]. Raises `DataError` naming the picture and its row.
    """
    height, width = size
    try:
        opened = shown(row)
    except BadPicture as error:
        raise error.of(f"picture {row.name} ({row.listed or 'not listed'})") from None
    picture = opened.picture.resize((width, height), RESAMPLING[interpolation])
    # A row's reds, greens and blues one after another, so that planes are copied row by row.
    lines = np.frombuffer(picture.tobytes("raw", "RGB;L"), np.uint8).reshape(height, 3, width)
    return torch.from_numpy(np.ascontiguousarray(lines.swapaxes(0, 1)))


def normalized(pixels: Tensor, by: str | Normalize) -> Tensor:
    """Return uint8 pixels [B, 3, H, W] as float32, normalized.

    by: "none" leaves them in [0, 1]; else a mean is subtracted, and they are divided by a
    deviation, for "imagenet" ImageNet's.
    """
    scaled = pixels.float().div_(255)
    if by == "none":
        return scaled
    known = by if isinstance(by, Normalize) else IMAGENET_PIXELS
    # Numbers instead of tensors: a tensor sent to a GPU would wait for its queue.
    for channel, mean, deviation in zip(scaled.unbind(1), known.mean, known.deviation, strict=True):
        channel.sub_(mean).div_(deviation)
    return scaled
