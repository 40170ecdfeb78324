"""Pictures as a graph takes them: as a viewer shows them, resized by Pillow as in training."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from reid_runtime.folder import ExportError

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
TURNS = dict(zip(range(2, 9), (0, 3, 1, 5, 4, 6, 2), strict=True))
"""What turns a picture of each Exif orientation upright, as Pillow numbers it."""


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
    try:
        if isinstance(picture, Image.Image):
            return _converted(picture)
        content = BytesIO(Path(picture).read_bytes())  # Pillow maps files, and turns these wrongly
        with Image.open(content, formats=FORMATS) as file:
            return _converted(file)
    except Exception as error:  # decoders raise errors of every kind
        name = "" if isinstance(picture, Image.Image) else f" {picture}"
        raise ExportError(f"picture{name} cannot be read: {error!s:.200}") from None


def _converted(file: Image.Image) -> Image.Image:
    tags = getattr(file, "tag_v2", {})  # TIFF's
    inverted, bits = tags.get(262) == 0, tags.get(258, (16,))[0]
    file.load()
    try:
        turn = TURNS.get(int(file.getexif().get(0x0112, 1)))
    except Exception:  # damaged Exif data, which viewers ignore, too
        turn = None
    picture = file
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM")):
        grey = np.clip(np.asarray(file).astype(np.int64) >> (4 if bits == 12 else 8), 0, 255)
        picture = Image.fromarray((255 - grey if inverted else grey).astype(np.uint8))
    elif file.mode in ("I", "F"):
        raise ExportError("it holds numbers of which nothing says what is black and white")
    elif file.has_transparency_data:
        picture = file.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    return picture if turn is None else picture.transpose(Image.Transpose(turn))
