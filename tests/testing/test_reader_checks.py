"""What the conformance kit finds in readers of pictures that are no files."""

from __future__ import annotations

import io
import itertools
import threading
import zipfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image

from reidcore.api import Facts, Row
from reidcore.testing.failures import ConformanceError
from reidcore.testing.readers import _check_rows


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    return out.getvalue()


@attrs.frozen
class Sound:
    number: int

    def read(self) -> bytes:
        return png()


@attrs.frozen
class Unreadable(Sound):
    def read(self) -> bytes:
        raise KeyError("no such shot")


@attrs.frozen
class Text(Sound):
    def read(self) -> Any:
        return "png"


@attrs.frozen
class Empty(Sound):
    def read(self) -> bytes:
        return b""


@attrs.frozen(eq=False)
class Unequal:
    number: int

    def read(self) -> bytes:
        return png()


@attrs.define
class Locked(Sound):
    lock: Any = attrs.field(factory=threading.Lock, eq=False)


NUMBERS = itertools.count()
KEPT = [Unequal(number) for number in range(3)]


def reader(opener: Any, names: list[str], facts: Facts | None = None) -> Any:
    """A reader of pictures of these names, each opened by `opener(number)`."""

    class Reader:
        def facts(self) -> Facts | None:
            return facts

        def rows(self, root: Path) -> Any:
            for number, name in enumerate(names):
                yield Row(f"{root}/{name}", "1", opener=opener(number))

    return Reader()


def test_sound_openers_pass(tmp_path: Path):
    """Facts may be unknown; openers, and paths through a zip, are pictures that are there."""
    _check_rows(reader(Sound, ["a", "b"]), tmp_path)
    with zipfile.ZipFile(tmp_path / "shots.zip", "w") as archive:
        archive.writestr("a.png", png())
    _check_rows(reader(lambda number: None, ["shots.zip/a.png"]), tmp_path)


@pytest.mark.parametrize(
    ("opener", "names", "said"),
    [
        (Unreadable, ["a"], "openers do not read their pictures, such as .*/a: .*no such shot"),
        (Empty, ["a"], "openers do not read their pictures, such as .*/a: is empty"),
        (Text, ["a"], r"Text\.read\(\) returned str, expected bytes"),
        (Sound, ["a", "a"], "two pictures are called .*/a"),
        (Unequal, ["a"], "read twice, the rows differ"),
        (lambda number: KEPT[number], ["a"], "is not equal to itself when it was pickled"),
        (Locked, ["a"], "the opener of .*/a cannot be pickled: TypeError"),
        (lambda number: None, ["shots.zip/b.png"], "1 pictures are not there"),
        (lambda number: Sound(next(NUMBERS)), ["a"], "read twice, the rows differ"),
    ],
)
def test_wrong_openers_are_found(opener: Any, names: list[str], said: str, tmp_path: Path):
    """Openers that another process, or a cache, could not use are told."""
    with zipfile.ZipFile(tmp_path / "shots.zip", "w") as archive:
        archive.writestr("a.png", png())
    with pytest.raises(ConformanceError, match=said):
        _check_rows(reader(opener, names), tmp_path)


def test_facts_are_still_compared(tmp_path: Path):
    """Rows with openers must be as the reader's facts say."""
    facts = Facts(2, columns=frozenset())
    with pytest.raises(ConformanceError, match="identities are declared as 2, but the rows have 1"):
        _check_rows(reader(Sound, ["a"], facts), tmp_path)
