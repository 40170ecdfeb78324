"""Pictures that are not whole files: what opens them, and boxes in larger ones. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from reidcore.errors import DataError

Box = tuple[int, int, int, int]
"""The part of a picture that counts: left, top, right and bottom in pixels of the picture as it is
shown, turned upright; the pixels at right and bottom are the first that do not belong to it."""


@runtime_checkable
class Opener(Protocol):
    """Opens a picture that has no file of its own: in an archive, a database or a larger file.

    Any class with `read` will do if its instances can be pickled and are equal where they open the
    same picture, as those of a frozen attrs class are. Several threads, and several processes,
    forked ones too, read at the same time. So an opener holds no open file: it opens one when it
    reads, or keeps it by `os.getpid()` and thread.

    Example:
        >>> import attrs
        >>> from reidcore.api import Opener, Row
        >>> @attrs.frozen
        ... class Piece:
        ...     file: str
        ...     start: int
        ...     size: int
        ...     def read(self) -> bytes:
        ...         with open(self.file, "rb") as whole:
        ...             whole.seek(self.start)
        ...             return whole.read(self.size)
        >>> row = Row("/data/all.bin/17", pid="7", opener=Piece("/data/all.bin", 4096, 9143))
        >>> isinstance(row.opener, Opener)
        True
    """

    def read(self) -> bytes:
        """Return the content of a picture's file, such as a JPEG, PNG or BMP.

        What it raises is told as a damaged picture, with the row's path before it.
        """


def whole_box(box: Sequence[Any], listed: str) -> Box:
    """Return a box in whole pixels. listed: the row, for messages.

    Raises ValueError for anything but four finite numbers, DataError for an empty box.
    """
    try:
        left, top, right, bottom = (math.floor(side + 0.5) for side in box)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{listed}: the box is {str(box)[:100]}, expected four numbers of pixels: left, top, "
            "right and bottom"
        ) from None
    if left < right and top < bottom:
        return left, top, right, bottom
    # Rounded to nothing, the box is too small to show anything.
    raise DataError(
        f"{listed}: the box {' '.join(f'{side:g}' for side in box)} is empty: expected left, top, "
        "right and bottom in pixels, right beyond left and bottom beyond top"
    )
