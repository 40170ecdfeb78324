"""Opens pictures as a viewer shows them: RGB, turned upright, 16 bits scaled to 8. Torch-free.

Whatever opens a picture opens it here, so that a file is refused everywhere or nowhere, and looks
alike in training, in a report and in an explanation. Pillow is imported when it is needed.
"""

from __future__ import annotations

import os
import stat
from io import BytesIO
from typing import TYPE_CHECKING

import attrs

from reidcore.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read, as Pillow names them. Others are refused: one starts Ghostscript, some
fail in ways of their own. What counts is the content; a name's ending says nothing."""
MOST_BYTES = 2**31
"""Larger files are refused unread: there is no picture in them that Pillow would decode."""

GREY16 = "in 16-bit grey, of which the upper 8 bits are used"
DARK = "in 16-bit grey that stays nearly black in 8 bits, all below 32 of 255; spread the values"
TURNED = "turned as the orientation in the file says"
SEE_THROUGH = "with transparent parts, which become white"
PRINT = "in CMYK, converted to RGB without a colour profile"

_ORIENTATION = 0x0112  # Exif's tag
_PHOTOMETRIC, _BITS = 262, 258  # TIFF's tags
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
    7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


class BadPicture(DataError):
    """A file that is no picture, or a damaged one; the text is the end of a sentence that begins
    with its path, such as "is missing"."""

    def of(self, named: str) -> DataError:
        """Return the error with the whole sentence. named: the picture, in words."""
        text = str(self)
        said = text.startswith(("is missing", "is too large", "cannot be "))
        return DataError(f"{named} {text}" if said else f"{named} cannot be read: it {text}")


@attrs.frozen
class Opened:
    """A picture in mode RGB, upright. found: what was done to show it so, of the constants here."""

    picture: Image.Image
    found: tuple[str, ...] = ()


def open_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Return the picture at `path` as a viewer shows it, in mode RGB, for drawing.

    Raises DataError, which names the file, for all that is no picture or damaged.
    """
    try:
        return decoded(read_picture(path)).picture
    except BadPicture as error:
        raise error.of(f"picture {os.fspath(path)}") from None


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise BadPicture unless a regular file that is not empty lies at `path`; it is not opened."""
    _checked(path)


def read_picture(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a picture's file.

    Only regular files are opened: a pipe would wait for ever, a device may give without end.
    Raises BadPicture.
    """
    _checked(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        # Unbuffered: each small read would hand the interpreter's lock to another thread.
        with open(path, "rb", buffering=0, opener=lambda name, _: os.open(name, flags)) as file:
            if kind := _kind(os.fstat(file.fileno()).st_mode):  # replaced since it was looked at
                raise BadPicture(f"is {kind}, expected a picture's file")
            content = file.readall()
    except (OSError, ValueError) as error:
        raise BadPicture(_unreadable(path, error)) from None
    if not content:
        raise BadPicture("is empty (zero bytes)")
    return content


def _checked(path: str | os.PathLike[str]) -> None:
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise BadPicture(_unreadable(path, error)) from None
    if kind := _kind(state.st_mode):
        hint = "" if kind == "a folder" else ", expected a picture's file"
        raise BadPicture(f"is {kind}{hint}")
    if not state.st_size:
        raise BadPicture("is empty (zero bytes)")
    if state.st_size > MOST_BYTES:
        raise BadPicture(f"has {state.st_size:,} bytes, too many for a picture")


def _kind(mode: int) -> str:
    """Return what a path leads to, in words; "" for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    return next((words for test, words in _KINDS.items() if test(mode)), "no regular file")


def _unreadable(path: str | os.PathLike[str], error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        swapped = "\\" in os.fspath(path) and os.sep == "/"
        return "is missing" + "; paths are written with '/', not '\\'" * swapped
    said = error.strerror if isinstance(error, OSError) else None
    return f"cannot be read: {said or error}"


def decoded(content: bytes) -> Opened:
    """Return the picture that is the content of a file. Raises BadPicture, and nothing else."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content), formats=FORMATS) as file:
            return _as_shown(file)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise BadPicture(f"is not a picture that Pillow knows as {known}") from None
    except Image.DecompressionBombError as error:
        raise BadPicture(f"is too large: {error}") from None
    except MemoryError:
        raise BadPicture("is too large: it needs more memory than there is") from None
    except Exception as error:  # decoders raise struct.error, SyntaxError, EOFError and others
        said = " ".join(str(error).split()) or type(error).__name__
        raise BadPicture(f"cannot be decoded: {said[:200]}") from None


def _as_shown(file: Image.Image) -> Opened:
    from PIL import Image

    tags = getattr(file, "tag_v2", {})  # TIFF's; Pillow's newer versions turn TIFF themselves
    turned = tags.get(_ORIENTATION, 1) in _TURNS
    inverted = tags.get(_PHOTOMETRIC) == 0
    bits = tags.get(_BITS, (16,))[0]
    file.load()
    orientation = _orientation(file)
    found = []
    picture = file
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM")):
        found.append(GREY16)
        picture = _upper_bits(file, bits, inverted)
        if picture.histogram()[32:] == [0] * 224:
            found.append(DARK)
    elif file.mode in ("I", "F"):
        held = "signed or 32-bit integers" if file.mode == "I" else "floating-point numbers"
        raise BadPicture(
            f"holds {held}, of which nothing says what is black and white; save it with 8 or "
            "unsigned 16 bits"
        )
    elif file.has_transparency_data:
        picture = file.convert("RGBA")
        if any(picture.getchannel("A").histogram()[:255]):
            found.append(SEE_THROUGH)
            paper = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(paper, picture)
    elif file.mode == "CMYK":
        found.append(PRINT)
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    if orientation in _TURNS:
        picture = picture.transpose(Image.Transpose[_TURNS[orientation]])
    elif picture is file:
        picture = file.copy()  # outlives the file
    return Opened(picture, (*found, TURNED) if turned or orientation in _TURNS else tuple(found))


def _upper_bits(file: Image.Image, bits: int, inverted: bool) -> Image.Image:
    """Return a picture of 16-bit grey in 8 bits, as 16-bit colours become 8 bits in Pillow."""
    import numpy as np
    from PIL import Image

    values = np.asarray(file).astype(np.int64) >> (4 if bits == 12 else 8)
    grey = np.clip(values, 0, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if inverted else grey)


def _orientation(file: Image.Image) -> int:
    """Return Exif's number of how a picture lies; 1, upright, where that is damaged."""
    try:
        return int(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged Exif data, which viewers ignore, too
        return 1
