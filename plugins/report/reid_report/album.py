"""Small pictures inside the page: each is there once, however often it is shown."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import attrs
from PIL import Image

from reidcore.api import Row
from reidcore.tools import open_picture

QUALITY = 78
"""Of the JPEGs."""


def data_uri(kind: str, content: bytes) -> str:
    """`content` as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@attrs.frozen
class Thumb:
    """A picture of the album. key: its CSS class. width, height: in pixels."""

    key: str
    width: int
    height: int


class Album:
    """Pictures as JPEGs whose longer side has at most `side` pixels."""

    def __init__(self, side: int):
        self.side = side
        self._thumbs: dict[str, Thumb] = {}
        self._uris: dict[str, str] = {}

    def thumb(self, row: Row) -> Thumb:
        """The picture of a row. Raises DataError if it cannot be read."""
        if row.name not in self._thumbs:
            picture, content = jpeg(open_picture(row), self.side)
            thumb = Thumb(f"p{len(self._thumbs)}", picture.width, picture.height)
            self._thumbs[row.name] = thumb
            self._uris[thumb.key] = data_uri("image/jpeg", content)
        return self._thumbs[row.name]

    def css(self) -> str:
        """A rule for every picture; it holds nothing but keys and addresses of data."""
        return "\n".join(
            f".{key}{{background-image:url({uri})}}" for key, uri in self._uris.items()
        )


def jpeg(picture: Image.Image, side: int) -> tuple[Image.Image, bytes]:
    """The picture, reduced where its longer side has more than `side` pixels, and its file."""
    reduced = picture.copy()
    reduced.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    reduced.save(out, format="JPEG", quality=QUALITY, optimize=True)
    return reduced, out.getvalue()


def name_below(path: str, folder: str) -> str:
    """The path of a picture below the pictures' common folder, or its name."""
    own = Path(path)
    return own.relative_to(folder).as_posix() if own.is_relative_to(folder) else own.name
