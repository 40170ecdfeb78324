"""Ranked lists as one picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from reidcore.api import Row
from reidcore.modules import RankedList
from reidcore.tools import open_picture

HEIGHT, BORDER, GAP = 96, 4, 6
"""Pixels of every picture, of its border and between two."""
QUERY, MATCH, WRONG = (60, 110, 200), (30, 150, 70), (208, 48, 56)


def draw_lists(lists: Sequence[RankedList]) -> Image.Image | None:
    """Return a row for every list: the query with a blue border, then its nearest gallery pictures,
    matches green and others red. None where there is no list."""
    rows = [
        [_framed(one.query, QUERY)]
        + [_framed(near.row, MATCH if near.match else WRONG) for near in one.nearest]
        for one in lists
    ]
    if not rows:
        return None
    width = max(sum(one.width + GAP for one in row) + GAP for row in rows)
    height = HEIGHT + 2 * BORDER + GAP
    sheet = Image.new("RGB", (width, len(rows) * height + GAP), (255, 255, 255))
    for line, row in enumerate(rows):
        left = GAP
        for one in row:
            sheet.paste(one, (left, GAP + line * height))
            left += one.width + GAP
    return sheet


def _framed(row: Row, color: tuple[int, int, int]) -> Image.Image:
    opened = open_picture(row)
    size = max(1, round(opened.width * HEIGHT / opened.height)), HEIGHT
    framed = Image.new("RGB", (size[0] + 2 * BORDER, HEIGHT + 2 * BORDER), color)
    framed.paste(opened.resize(size, Image.Resampling.BICUBIC), (BORDER, BORDER))
    return framed
