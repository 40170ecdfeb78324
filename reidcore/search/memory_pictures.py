"""Pictures that are in memory already, such as those of a tracker, as what opens a row."""

from __future__ import annotations

import itertools

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reidcore.data.opening import BadPicture, as_shown
from reidcore.errors import UsageError

_NUMBERS = itertools.count(1)


@attrs.frozen(eq=False, repr=False)
class InMemory:
    """Opens a picture in memory. content: of a PPM file, which holds the pixels as they are."""

    content: bytes

    def read(self) -> bytes:
        """Return the picture's content."""
        return self.content


def next_name() -> str:
    """Return a name for pictures in memory that no others in this process have."""
    return f"memory-{next(_NUMBERS)}"


def memory_picture(given: object, place: str) -> InMemory | None:
    """Return what opens a picture of Pillow's, a uint8 array [H, W, 3] or a uint8 tensor [3, H, W];
    None for anything else.

    Pixels are copied. place: the picture, in words. Raises UsageError for other dtypes and shapes,
    DataError for pictures that Pillow cannot show.
    """
    if isinstance(given, Image.Image):
        return _in_memory(_of_pillow(given, place))
    if isinstance(given, Tensor):
        _check(given.dtype == torch.uint8, tuple(given.shape), 0, f"{place} is a tensor", given)
        return _in_memory(given.detach().cpu().permute(1, 2, 0).numpy())
    if isinstance(given, np.ndarray):
        _check(given.dtype == np.uint8, given.shape, 2, f"{place} is an array", given)
        return _in_memory(given)
    return None


def _in_memory(pixels: np.ndarray) -> InMemory:
    height, width, _ = pixels.shape
    return InMemory(b"P6 %d %d 255\n" % (width, height) + np.ascontiguousarray(pixels).tobytes())


def _of_pillow(picture: Image.Image, place: str) -> np.ndarray:
    """Return the pixels that a viewer shows, as of a file."""
    if not picture.width or not picture.height:
        raise UsageError(f"{place} has no pixels: it is {picture.width} x {picture.height}")
    try:
        return np.asarray(as_shown(picture).picture)
    except BadPicture as error:
        raise error.of(f"{place}, of Pillow's mode {picture.mode},") from None


def _check(
    uint8: bool, shape: tuple[int, ...], channels: int, what: str, given: Tensor | np.ndarray
) -> None:
    """Raise UsageError unless pixels are uint8 and have three channels on the axis `channels` of
    three."""
    expected = "uint8 [3, H, W]" if channels == 0 else "uint8 [H, W, 3]"
    found = (
        f"{what} of {str(given.dtype).removeprefix('torch.')} {list(shape)}, expected {expected}"
    )
    if len(shape) == 4:
        raise UsageError(f"{found}; give a list of pictures, such as list(batch)")
    if len(shape) == 2:
        raise UsageError(f"{found}; give a grey picture as Image.fromarray(grey)")
    if len(shape) != 3:
        raise UsageError(found)
    if shape[channels] != 3 and shape[2 - channels] == 3:
        turned = "permute(2, 0, 1)" if channels == 0 else "transpose(1, 2, 0)"
        raise UsageError(f"{found}; turn it by {turned}")
    if shape[channels] != 3:
        raise UsageError(f"{found}: red, green and blue")
    if not uint8:
        raise UsageError(f"{found}, from 0 to 255; scale and round others first")
    if 0 in shape:
        raise UsageError(f"{found} with H and W of at least 1")
