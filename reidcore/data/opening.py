"""Opens pictures as a viewer shows them: RGB, turned upright, 16 bits scaled to 8. Torch-free.

Whatever opens a picture opens it here, so that a file is refused everywhere or nowhere, and looks
alike in training, in a report and in an explanation. Pillow is imported when it is needed.
"""

from __future__ import annotations

import os
from io import BytesIO
from typing import TYPE_CHECKING

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.openers import Box, Opener
from reidcore.data.archives import ZipMember, member_at
from reidcore.data.picture_files import (
    BadPicture,
    BehindFile,
    check_file,
    check_size,
    read_file,
)
from reidcore.errors import PluginError
from reidcore.support.wording import in_words, one_line, shortened

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read, as Pillow names them. Others are refused: one starts Ghostscript, some
fail in ways of their own. What counts is the content; a name's ending says nothing."""

GREY16 = "in 16-bit grey, of which the upper 8 bits are used"
DARK = "in 16-bit grey that stays nearly black in 8 bits, all below 32 of 255; spread the values"
TURNED = "turned as the orientation in the file says"
SEE_THROUGH = "with transparent parts, which become white"
PRINT = "in CMYK, converted to RGB without a colour profile"
CUT = "with a box that reaches out of the picture, cut off there"

_ORIENTATION = 0x0112  # Exif's tag
_PHOTOMETRIC, _BITS = 262, 258  # TIFF's tags
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
    7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip


@attrs.frozen
class Opened:
    """A picture in mode RGB, upright. found: what was done to show it so, of the constants here."""

    picture: Image.Image
    found: tuple[str, ...] = ()


def open_picture(picture: Row | str | os.PathLike[str]) -> Image.Image:
    """Return a picture as a viewer shows it, in mode RGB, for drawing.

    picture: a row, of which the box is given if it has one, or a path. Raises DataError, which
    names the picture, for all that is no picture or damaged.
    """
    try:
        return shown(picture).picture
    except BadPicture as error:
        named = picture.name if isinstance(picture, Row) else os.fspath(picture)
        raise error.of(f"picture {named}") from None


def shown(picture: Row | str | os.PathLike[str]) -> Opened:
    """Return a picture, or a row's box of it. Raises BadPicture."""
    opened = decoded(read_picture(picture))
    return cut_out(opened, picture.box if isinstance(picture, Row) else None)


def has_path(row: Row) -> bool:
    """Return whether a row's path alone tells where its picture is: in a file, or in a zip."""
    return row.opener is None or isinstance(row.opener, ZipMember)


def check_picture(row: Row) -> None:
    """Raise BadPicture unless a row's file, or what its opener gives, exists and is not empty.

    Files and members of a zip are not read.
    """
    opener = row.opener
    if opener is None:
        try:
            return check_file(row.path)
        except BehindFile:
            if (opener := member_at(row.path)) is None:
                raise
    if isinstance(opener, ZipMember):
        opener.check()
    else:
        _given(opener)


def read_picture(picture: Row | str | os.PathLike[str]) -> bytes:
    """Return the content of a picture's file, of a member of a zip whose path goes through the
    archive, or what a row's opener gives. Raises BadPicture."""
    path = picture.path if isinstance(picture, Row) else picture
    if isinstance(picture, Row) and picture.opener is not None:
        return _given(picture.opener)
    try:
        return read_file(path)
    except BehindFile:
        if (member := member_at(path)) is None:
            raise
        return member.read()


def _given(opener: Opener) -> bytes:
    """Return what an opener reads. Raises PluginError if that is nothing like a file's content."""
    try:
        content = opener.read()
    except BadPicture:
        raise
    except Exception as error:  # openers read what may be damaged in any way
        raise BadPicture(f"cannot be read: {shortened(in_words(error), 300)}") from None
    if not isinstance(content, bytes | bytearray | memoryview):
        raise PluginError(
            f"{type(opener).__qualname__}.read() returned {type(content).__name__}, expected bytes"
        )
    check_size(len(content))
    return bytes(content)


def cut_out(opened: Opened, box: Box | None) -> Opened:
    """Return what a box holds of a picture; without a box, all of it. Raises BadPicture where that
    is nothing."""
    if box is None:
        return opened
    width, height = opened.picture.size
    left, top, right, bottom = (
        max(box[0], 0),
        max(box[1], 0),
        min(box[2], width),
        min(box[3], height),
    )
    if left >= right or top >= bottom:
        raise BadPicture(
            f"has nothing in the box {' '.join(map(str, box))} (left, top, right, bottom): the "
            f"picture is {width} pixels wide and {height} high"
        )
    inside = (left, top, right, bottom)
    found = opened.found if inside == box else (*opened.found, CUT)
    return Opened(opened.picture.crop(inside), found)


def decoded(content: bytes) -> Opened:
    """Return the picture that is the content of a file. Raises BadPicture, and nothing else."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content), formats=FORMATS) as file:
            return as_shown(file)
    except BadPicture:
        raise
    except UnidentifiedImageError:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise BadPicture(f"is not a picture that Pillow knows as {known}") from None
    except Exception as error:
        raise _damaged(error) from None


def as_shown(file: Image.Image) -> Opened:
    """Return a picture that Pillow has opened, or one in memory. Raises BadPicture."""
    try:
        return _as_shown(file)
    except BadPicture:
        raise
    except Exception as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> BadPicture:
    """Return what is said of an error of Pillow's."""
    from PIL import Image

    if isinstance(error, Image.DecompressionBombError):
        return BadPicture(f"is too large: {error}")
    if isinstance(error, MemoryError):
        return BadPicture("is too large: it needs more memory than there is")
    # Decoders raise struct.error, SyntaxError, EOFError and others.
    said = one_line(error) or type(error).__name__
    return BadPicture(f"cannot be decoded: {shortened(said, 200)}")


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
