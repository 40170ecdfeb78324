"""Rows with openers and boxes, alone and as the arrays that samplers get."""

from __future__ import annotations

import re

import attrs
import numpy as np
import pytest

from reidcore.api import Opener, Row
from reidcore.data.pictures import make_rows
from reidcore.errors import DataError
from reidcore.support.cache_folder import cache_folder


@attrs.frozen
class Stored:
    """Opens what it holds."""

    content: bytes

    def read(self) -> bytes:
        return self.content


def test_boxes_are_whole_pixels():
    """Numbers of any kind are rounded, halves up, and the box is part of the name."""
    row = Row("/a.png", "1", box=(np.float32(0.5), -1.5, np.int64(7), 8.4))
    assert row.box == (1, -1, 7, 8)
    assert [type(side) for side in row.box] == [int] * 4
    assert row.name == "/a.png[1 -1 7 8]"
    assert Row("/a.png", "1").name == "/a.png"
    assert attrs.evolve(row, pid="2").box == row.box


@pytest.mark.parametrize(
    "box", [(1, 2, 3), (1, 2, 3, 4, 5), "1234x", 7, (1, 2, "a", 4), (0, 0, float("nan"), 4)]
)
def test_what_is_no_box_is_the_readers_mistake(box: object):
    """The error names the row, and says what a box is."""
    with pytest.raises(ValueError, match=r"^own\.csv row 2: the box is .*left, top, right"):
        Row("/a.png", "1", listed="own.csv row 2", box=box)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 9, 5, 5), (1, 1, 1.2, 9)])
def test_empty_boxes_name_their_row(box: tuple[float, ...]):
    """A box without a pixel is at fault in the data."""
    with pytest.raises(DataError, match=r"^/a\.png: the box .* is empty"):
        Row("/a.png", "1", box=box)


def test_arrays_of_rows_keep_openers_and_boxes():
    """Whatever is chosen of rows, each keeps what opens it; plain rows carry nothing more."""
    rows = [Row(f"/{n}.png", str(n % 2), listed=f"row {n}") for n in range(4)]
    plain = make_rows(rows, {}, ())
    assert (plain.openers, plain.boxes) == ((), ())
    assert plain.take([2]).picture(0) == Row("/2.png", "", listed="row 2")
    rows[1] = attrs.evolve(rows[1], opener=Stored(b"1"))
    rows[3] = attrs.evolve(rows[3], box=(0, 0, 3, 4))
    assert isinstance(rows[1].opener, Opener)
    chosen = make_rows(rows, {}, ()).take([3, 1, 0]).where([True, True, False]).relabelled([1])
    assert [chosen.picture(place) for place in range(2)] == [
        Row("/3.png", "", listed="row 3", box=(0, 0, 3, 4)),
        Row("/1.png", "", listed="row 1", opener=Stored(b"1")),
    ]


def test_the_cache_folder(monkeypatch):
    """REID_CACHE, or a folder at home; without a home a sentence."""
    monkeypatch.setenv("REID_CACHE", "/somewhere")
    assert cache_folder("boats-1").as_posix() == "/somewhere/boats-1"
    monkeypatch.setenv("REID_CACHE", "")
    monkeypatch.setenv("HOME", "/home/anna")
    assert cache_folder("boats-1").as_posix() == "/home/anna/.cache/reidcore/boats-1"

    def homeless() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    with pytest.raises(Exception, match=re.escape("name a cache folder in REID_CACHE")):
        cache_folder()
