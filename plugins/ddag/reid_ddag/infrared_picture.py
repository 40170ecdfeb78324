"""A colour picture shown as if it were infrared, for `ddag.pseudo_infrared`."""

from __future__ import annotations

import hashlib
import io
import os

import attrs
import numpy as np
from PIL import Image, ImageFilter, ImageOps

FORMATS = ("JPEG", "PNG", "BMP")
DARKEST, BRIGHTEST = 0.5, 2.0
"""Exponents between which tone curves are drawn."""


def drawn(*parts: object) -> np.random.Generator:
    """Return the generator that belongs to some labels, the same on every machine."""
    text = "\0".join(map(str, parts)).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))


@attrs.frozen
class InfraredPicture:
    """Opens a picture file as grey, as `PseudoInfrared.rows` says; always with the same noise."""

    path: str
    pid: str
    camera: str
    noise: float
    blur: float
    seed: int

    def read(self) -> bytes:
        """Return the picture as a BMP file."""
        with Image.open(self.path, formats=FORMATS) as picture:
            colour = ImageOps.exif_transpose(picture).convert("RGB")
        channel = int(drawn(self.seed, "channel", self.camera, self.pid).integers(3))
        grey = colour.getchannel(channel).filter(ImageFilter.GaussianBlur(self.blur))
        low, high = np.log([DARKEST, BRIGHTEST])
        exponent = np.exp(drawn(self.seed, "tone", self.camera).uniform(low, high))
        values = 255 * (np.asarray(grey, dtype=np.float64) / 255) ** exponent
        noise = drawn(self.seed, "noise", os.path.basename(self.path))
        values += noise.normal(0, self.noise, values.shape)
        file = io.BytesIO()
        Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB").save(
            file, "BMP"
        )
        return file.getvalue()
