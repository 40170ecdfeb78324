"""Options of the page, and the studio that draws its figures and pictures."""

from __future__ import annotations

import io
import re
from pathlib import Path

import attrs
from PIL import Image

from reid_report import plots
from reid_report.album import Album, data_uri
from reid_report.plots import Plot
from reidcore.tools import write_atomically


@attrs.frozen
class Options:
    """Options of the page.

    pictures: whether pictures of the test set are on it. side: their longer side in pixels at most.
    queries: ranked lists of each ranking. explain: queries explained of each ranking. png: a folder
    for every figure as a PNG.
    """

    pictures: bool = True
    side: int = 128
    queries: int = 10
    explain: int = 2
    png: Path | None = None


@attrs.frozen
class Drawn:
    """A figure as addresses of data, in ink for a light and for a dark page. width: in pixels."""

    alt: str
    light: str
    dark: str
    width: int


class Studio:
    """Draws figures and pictures for one page, and their PNGs where these are wanted."""

    def __init__(self, options: Options):
        self.options = options
        self.album = Album(options.side)
        self._names: dict[str, int] = {}

    def figure(self, plot: Plot) -> Drawn:
        if self.options.png is not None:
            self._write(plot.name, plot.png())
        light, dark = (
            data_uri("image/svg+xml", plot.svg(ink)) for ink in (plots.LIGHT, plots.DARK)
        )
        return Drawn(plot.alt, light, dark, round(96 * plot.inches[0]))

    def sheet(self, name: str, picture: Image.Image) -> None:
        """A picture that only papers get."""
        out = io.BytesIO()
        picture.save(out, format="PNG")
        self._write(name, out.getvalue())

    def _write(self, name: str, content: bytes) -> None:
        assert self.options.png is not None
        stem = re.sub(r"[^A-Za-z0-9+-]+", "-", name).strip("-") or "figure"
        count = self._names[stem] = self._names.get(stem, 0) + 1
        file = f"{stem}.png" if count == 1 else f"{stem}-{count}.png"
        write_atomically(self.options.png / file, content)
