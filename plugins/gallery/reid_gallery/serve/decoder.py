"""A process that decodes uploaded pictures: `python -m reid_gallery.serve.decoder`.

It reads requests from its standard input and answers on its standard output until the input ends.
Whatever a hostile picture does to Pillow happens here, within limits of memory and time. It has
no torch.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from io import BytesIO
from typing import BinaryIO

import attrs

FORMATS = ("BMP", "JPEG", "PNG", "WEBP")
"""The formats of uploads, fewer than those of files: as cameras, phones and browsers write them."""
HEAD = struct.Struct("!II")
"""Before each message: bytes of its description in JSON, and of what follows it."""


@attrs.frozen
class Content:
    """Opens an upload as the core opens files."""

    content: bytes

    def read(self) -> bytes:
        """Return the file's content."""
        return self.content


def write(stream: BinaryIO, said: dict[str, object], content: bytes = b"") -> None:
    """Write a message."""
    text = json.dumps(said).encode()
    stream.write(HEAD.pack(len(text), len(content)) + text)
    stream.write(content)
    stream.flush()


def read(stream: BinaryIO) -> tuple[dict[str, object], bytes] | None:
    """Return the next message, None at the end."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    text, content = HEAD.unpack(head)
    return json.loads(stream.read(text)), stream.read(content)


def decode(content: bytes, pixels: int, box: list[int] | None) -> tuple[dict[str, object], bytes]:
    """Return what a picture is, {"size", "format"} or {"error"}, and its RGB bytes."""
    from PIL import Image, UnidentifiedImageError

    from reidcore.api import Row
    from reidcore.errors import ReidError
    from reidcore.tools import open_picture

    try:
        with Image.open(BytesIO(content), formats=FORMATS) as file:
            kind, (width, height) = file.format, file.size
    except UnidentifiedImageError:
        return {"error": f"is not a picture in one of the formats {', '.join(FORMATS)}"}, b""
    except Exception:
        return {"error": "is damaged, or too large"}, b""
    if width * height > pixels:
        return {"error": f"has {width} x {height} pixels, more than {pixels}", "large": True}, b""
    row = Row("upload", "", opener=Content(content), box=None if box is None else tuple(box))  # type: ignore[arg-type]
    try:
        picture = open_picture(row)
        return {"size": picture.size, "format": kind}, picture.tobytes()
    except ReidError as error:
        said = str(error).removeprefix("picture upload ").split(" [", 1)[0]
        return {"error": said, "large": "more memory" in said}, b""
    except MemoryError:
        return {"error": "needs too much memory", "large": True}, b""


def main() -> None:
    """Decode until the input ends. The limit of memory is the first argument, in bytes."""
    from PIL import Image

    from reidcore import tools  # noqa: F401  imported before the limit counts

    Image.init()
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    Image.MAX_IMAGE_PIXELS = None  # the request says how many there may be
    given, told = sys.stdin.buffer, sys.stdout.buffer
    write(told, {"ready": True})
    while (message := read(given)) is not None:
        asked, content = message
        try:
            found = decode(content, asked["pixels"], asked["box"])  # type: ignore[arg-type]
        except MemoryError:
            found = {"error": "needs too much memory", "large": True}, b""
        write(told, *found)


if __name__ == "__main__":
    main()
