"""Pictures as a graph takes them: as a viewer shows them, resized by Pillow as in training."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image, ImageOps

from reid_runtime.folder import ExportError

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def pixels(picture: Picture, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Return a picture as uint8 [height, width, 3]; size: (height, width)."""
    how = Image.Resampling[interpolation.upper()]
    return np.asarray(_shown(picture).resize(size[::-1], how))


def _shown(picture: Picture) -> Image.Image:
    """A picture in mode RGB, upright, transparent parts white, of 16-bit grey the upper 8 bits."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] != (3,) or not picture.size:
            found = f"{picture.dtype} {list(picture.shape)}"
            raise ExportError(f"an array is {found}, expected uint8 [H, W, 3], not empty")
        return Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        return _converted(picture, "a picture")
    try:
        with Image.open(picture, formats=FORMATS) as file:
            file.load()
            return _converted(file, os.fspath(picture))
    except ExportError:
        raise
    except Exception as error:  # decoders raise errors of every kind
        raise ExportError(f"picture {picture} cannot be read: {error!s:.200}") from None


def _converted(file: Image.Image, name: str) -> Image.Image:
    picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and file.format in ("PNG", "PPM")):
        grey = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255)
        picture = Image.fromarray(grey.astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise ExportError(f"{name} holds numbers of which nothing says what is black and white")
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")
