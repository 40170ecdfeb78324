"""Explanations as pictures: heat over a query and its match, lines between them. Pillow only."""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence

import attrs
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reidcore.contracts.component import Row
from reidcore.contracts.explanations import Heat, Lines
from reidcore.data.opening import open_picture

HEIGHT = 384
"""Height in pixels at which pictures are drawn; half their width, for pictures wider than that."""
FINE = 3
"""Lines are drawn this much larger and then reduced, which smooths them."""
GAP = 16
TEXT = 15
PAPER = (255, 255, 255)
INK = (32, 32, 40)
FAINT = (112, 112, 124)
RAMP = (
    (20, 14, 58), (76, 20, 122), (150, 38, 127), (214, 66, 104), (248, 124, 76), (254, 193, 92),
    (252, 250, 190),
)  # fmt: skip
"""Colours from low to high. They grow lighter evenly, so the scale can be read in grey too."""


@attrs.frozen(eq=False)
class Side:
    """One of the two pictures with what is written above it. width, height: as it is drawn."""

    picture: Image.Image
    title: str
    name: str

    @property
    def width(self) -> int:
        return self.picture.width

    @property
    def height(self) -> int:
        return self.picture.height


def open_side(row: Row, title: str) -> Side:
    """Return a row's picture, enlarged or reduced in its own proportions."""
    picture = open_picture(row)
    scale = HEIGHT / max(picture.height, picture.width / 2)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return Side(picture.resize(size, Image.Resampling.BICUBIC), title, os.path.basename(row.name))


def scaled(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Return values of any shape scaled to [0, 1].

    They become 0 up to `low`, by default the smallest value, and 1 from `high` on, by default the
    largest; 0 everywhere if these differ by no more than float32 rounds.
    """
    start = float(values.min()) if low is None else low
    end = float(values.max()) if high is None else high
    # Norms of unit vectors are 1 but for their rounding, which must not look like a finding.
    if not end - start > 1e-5 * max(abs(start), abs(end)):
        return np.zeros(values.shape)
    return np.clip((values - start) / (end - start), 0, 1)


def enlarged(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return [h, w] enlarged to [height, width], bilinear between the centres of the cells."""
    for axis, size in enumerate((height, width)):
        cells = values.shape[axis]
        places = (np.arange(size) + 0.5) * cells / size - 0.5
        lines = np.moveaxis(values, axis, -1)
        fine = np.stack([np.interp(places, np.arange(cells), line) for line in lines])
        values = np.moveaxis(fine, -1, axis)
    return values


def colours(values: np.ndarray) -> np.ndarray:
    """Return the colours of values [h, w] in [0, 1] as RGB in [0, 255], float [h, w, 3]."""
    places = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(values, places, channel) for channel in np.array(RAMP).T], -1)


def heated(picture: Image.Image, values: np.ndarray) -> Image.Image:
    """Return the picture in grey under the colours of `values` [h, w] in [0, 1], which cover more
    where they are high."""
    fine = enlarged(values, picture.height, picture.width)
    grey = np.asarray(picture.convert("L"), dtype=np.float64)[..., None]
    cover = (0.5 + 0.25 * fine)[..., None]
    return _image((1 - cover) * grey + cover * colours(fine))


def heat_picture(heat: Heat, query: Side, gallery: Side, title: str) -> Image.Image:
    """Draw both pictures, each beside itself under its heat, above the scale with its numbers."""
    blocks = []
    for side, values in zip((query, gallery), heat.values, strict=True):
        under = heated(side.picture, scaled(values, heat.low, heat.high))
        pair = _row([side.picture, under], GAP // 4)
        legend = _row([_blank(side.width, 1), _legend(heat, values, side.width)], GAP // 4)
        blocks.append(_column([_head(side, pair.width), pair, legend], GAP // 4))
    return _framed(_row(blocks, 2 * GAP), title, heat.meaning)


def line_picture(lines: Lines, query: Side, gallery: Side, title: str) -> Image.Image:
    """Draw the pictures with lines between them: a ring at the place that was asked, a disc at its
    partner. The ring's height gives the colour, the weight the width."""
    gap = max(120, (query.width + gallery.width) // 3)
    heads = _row(
        [_head(query, query.width + gap - GAP), _head(gallery, max(160, gallery.width))], GAP
    )
    pictures = _row([query.picture, _blank(gap, 1), gallery.picture], 0)
    right = query.width + gap
    drawn = lines.weight > lines.above
    size = np.array([query.width, query.height]), np.array([gallery.width, gallery.height])
    starts = lines.query[drawn] * size[0]
    ends = lines.gallery[drawn] * size[1] + [right, 0]
    asked, partner = (starts, ends) if lines.towards == "gallery" else (ends, starts)
    canvas = _with_lines(pictures, asked, partner, lines.weight[drawn])
    found = "query to gallery" if lines.towards == "gallery" else "gallery to query"
    words = f"{found}, {drawn.sum()} of {len(drawn)} places"
    if lines.meaning:
        words += f", {lines.meaning}"
    return _framed(_column([heads, canvas], GAP // 4), title, words)


def _with_lines(
    picture: Image.Image, asked: np.ndarray, partner: np.ndarray, weight: np.ndarray
) -> Image.Image:
    """The picture with lines between places [N, 2] in its pixels, the heaviest on top."""
    layer = Image.new("RGBA", (picture.width * FINE, picture.height * FINE))
    draw = ImageDraw.Draw(layer)
    strength = scaled(weight, 0.0) if len(weight) else weight
    ends = [
        (tuple(pair[0] * FINE), tuple(pair[1] * FINE)) for pair in zip(asked, partner, strict=True)
    ]
    hues = [_hue(place[1] / picture.height) for place in asked]
    for place in np.argsort(weight, kind="stable"):
        opacity = round(130 + 125 * strength[place])
        width = round(FINE * (1 + 1.5 * strength[place]))
        draw.line(ends[place], (0, 0, 0, opacity // 2), width + 2 * FINE)
        draw.line(ends[place], (*hues[place], opacity), width)
    for (start, end), hue in zip(ends, hues, strict=True):
        for (x, y), fill, edge, rim in ((start, PAPER, hue, 2), (end, hue, PAPER, 1)):
            box = [x - 4 * FINE, y - 4 * FINE, x + 4 * FINE, y + 4 * FINE]
            draw.ellipse(box, fill, edge, rim * FINE)
    fine = layer.resize(picture.size, Image.Resampling.BOX)
    return Image.alpha_composite(picture.convert("RGBA"), fine).convert("RGB")


def _hue(place: float) -> tuple[int, int, int]:
    """A vivid colour for a height in [0, 1], from red at the top to violet at the bottom."""
    red, green, blue = colorsys.hsv_to_rgb(0.8 * place, 0.7, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _legend(heat: Heat, values: np.ndarray, width: int) -> Image.Image:
    """The colours from low to high between their numbers."""
    low = float(values.min()) if heat.low is None else heat.low
    high = float(values.max()) if heat.high is None else heat.high
    legend = _blank(width, 2 * TEXT)
    legend.paste(_image(colours(np.linspace(0, 1, width)[None].repeat(TEXT // 2, 0))), (0, 2))
    draw, font = ImageDraw.Draw(legend), ImageFont.load_default(TEXT - 3)
    draw.text((0, 2 * TEXT), f"{low:.3g}", FAINT, font, "ld")
    draw.text((width, 2 * TEXT), f"{high:.3g}", FAINT, font, "rd")
    return legend


def _head(side: Side, width: int) -> Image.Image:
    """Draw what a picture is above its name."""
    head = _blank(width, round(2.8 * TEXT))
    draw = ImageDraw.Draw(head)
    _write(draw, (0, 0), side.title, INK, TEXT, width)
    _write(draw, (0, round(1.35 * TEXT)), side.name, FAINT, TEXT - 3, width)
    return head


def _framed(picture: Image.Image, title: str, words: str) -> Image.Image:
    """The picture on paper under its title and some smaller words."""
    framed = _blank(picture.width + 2 * GAP, picture.height + 4 * GAP + 2 * TEXT)
    draw, width = ImageDraw.Draw(framed), picture.width
    _write(draw, (GAP, GAP), title, INK, TEXT + 3, width)
    _write(draw, (GAP, GAP + round(1.6 * TEXT)), words, FAINT, TEXT - 2, width)
    framed.paste(picture, (GAP, 3 * GAP + 2 * TEXT))
    return framed


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    colour: tuple[int, int, int],
    size: int,
    width: int,
) -> None:
    """One line of text; the front of what is too long for `width` gives way to dots."""
    font, shown = ImageFont.load_default(size), text
    while draw.textlength(shown, font) > width and len(text) > 1:
        text = text[1:]
        shown = f"...{text}"
    draw.text(at, shown, colour, font)


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.round().astype(np.uint8))


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), PAPER)


def _row(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Side by side, aligned at the top."""
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    row, left = _blank(width, max(picture.height for picture in pictures)), 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    return row


def _column(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """One below the other, aligned at the left."""
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    column, top = _blank(max(picture.width for picture in pictures), height), 0
    for picture in pictures:
        column.paste(picture, (0, top))
        top += picture.height + gap
    return column
