"""Ranked lists as rows of pictures: for the page, and as one PNG for papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import attrs
from PIL import Image, ImageDraw, ImageFont

from reid_report.album import Album, Thumb, name_below
from reid_report.stage import IGNORED, MATCH, WRONG, Stage
from reidcore.api import Row
from reidcore.tools import open_picture

KINDS = {MATCH: "match", WRONG: "wrong", IGNORED: "ignored"}
BORDERS = {
    "query": (60, 110, 200),
    "match": (30, 150, 70),
    "wrong": (208, 48, 56),
    "ignored": (140, 140, 148),
}
HEIGHT = 160
"""Pixels of every picture of the PNG."""
GAP = 10
BORDER = 4
TEXT = 13
"""Pixels of a line of text."""


@attrs.frozen(eq=False)
class Tile:
    """A picture of a list.

    kind: query, match, wrong or ignored. words: what stands below it. rank: in the kept list, 0 for
    a query and for what is left out. distance: NaN for a query.
    """

    thumb: Thumb
    kind: str
    alt: str
    words: Sequence[str]
    row: Row
    rank: int = 0
    distance: float = math.nan


@attrs.frozen(eq=False)
class Strip:
    """A query and gallery pictures. place: of the query in its stage. more: words on the whole."""

    place: int
    query: Tile
    gallery: Sequence[Tile]
    more: str


class Strips:
    """Makes strips of a test set's pictures. rows: its pictures. folder: that holds them."""

    def __init__(self, album: Album, rows: Sequence[Row], folder: str):
        self._album, self._rows, self._folder = album, rows, folder

    def lists(self, stage: Stage, places: Iterable[int], more: Callable[[int], str]) -> list[Strip]:
        """The nearest pictures of the queries at these places, ignored ones among them."""
        return [
            Strip(place, self._query(stage, place), self._nearest(stage, place), more(place))
            for place in map(int, places)
        ]

    def failures(self, stage: Stage, places: Iterable[int]) -> list[Strip]:
        """Of each query its nearest wrong picture and its first match."""
        return [
            Strip(
                place,
                self._query(stage, place),
                [
                    self._tile(number, kind, rank, distance)
                    for number, kind, rank, distance in (
                        (stage.wrong[place], "wrong", 1, stage.wrong_distance[place]),
                        (
                            stage.match[place],
                            "match",
                            int(stage.rank[place]),
                            stage.match_distance[place],
                        ),
                    )
                    if number >= 0
                ],
                f"average precision {100 * stage.ap[place]:.1f} %",
            )
            for place in map(int, places)
        ]

    def _query(self, stage: Stage, place: int) -> Tile:
        return self._tile(int(stage.query[place]), "query", 0, math.nan)

    def _nearest(self, stage: Stage, place: int) -> list[Tile]:
        listed = zip(
            stage.near[place].tolist(),
            stage.near_kind[place].tolist(),
            stage.near_distance[place].tolist(),
            strict=True,
        )
        tiles, rank = [], 0
        for number, kind, distance in listed:
            if number < 0:
                break
            rank += kind != IGNORED
            tiles.append(self._tile(number, KINDS[kind], 0 if kind == IGNORED else rank, distance))
        return tiles

    def _tile(self, number: int, kind: str, rank: int, distance: float) -> Tile:
        row = self._rows[int(number)]
        place = {"query": "query", "ignored": "not counted"}.get(kind, f"rank {rank}, {kind}")
        words = [place, f"id {row.pid}"]
        if row.camera:
            words.append(f"camera {row.camera}")
        if row.time is not None:
            words.append(f"time {row.time:.10g}")
        if not math.isnan(distance):
            words.append(f"distance {distance:.4g}")
        alt = f"{', '.join(words)}, {name_below(row.name, self._folder)}"
        return Tile(self._album.thumb(row), kind, alt, words, row, rank, float(distance))


def png_of(strips: Sequence[Strip]) -> Image.Image:
    """The strips one below the other, pictures in full resolution at one height."""
    rows = [[_framed(tile) for tile in (strip.query, *strip.gallery)] for strip in strips]
    width = max(sum(one.width + GAP for one in row) + GAP for row in rows)
    height = rows[0][0].height + GAP
    sheet = Image.new("RGB", (width, len(rows) * height + GAP), (255, 255, 255))
    for line, row in enumerate(rows):
        left = GAP
        for one in row:
            sheet.paste(one, (left, GAP + line * height))
            left += one.width + GAP
    return sheet


def _framed(tile: Tile) -> Image.Image:
    opened = open_picture(tile.row)
    size = max(1, round(opened.width * HEIGHT / opened.height)), HEIGHT
    picture = opened.resize(size, Image.Resampling.BICUBIC)
    words = [tile.words[0].replace("rank ", "").partition(",")[0]]
    words += [word.removeprefix("distance ") for word in tile.words if "distance" in word]
    whole = Image.new(
        "RGB", (picture.width + 2 * BORDER, HEIGHT + 2 * BORDER + 2 * TEXT + 6), (255, 255, 255)
    )
    frame = Image.new("RGB", (picture.width + 2 * BORDER, HEIGHT + 2 * BORDER), BORDERS[tile.kind])
    whole.paste(frame, (0, 0))
    whole.paste(picture, (BORDER, BORDER))
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(TEXT - 1)
    for line, word in enumerate(words):
        draw.text((0, HEIGHT + 2 * BORDER + 1 + line * TEXT), word, (32, 32, 40), font)
    return whole
