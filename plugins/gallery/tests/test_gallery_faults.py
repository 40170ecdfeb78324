"""Nothing is lost: kills, programs at once, full disks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from disks import files_of
from running import environment

pytest.importorskip("lance", reason="needs `uv run --all-groups`")

from reid_gallery import Gallery
from reidcore.errors import OutputError

KILLS = Path(__file__).parents[3] / "tests" / "gallery_kills.py"


def ran(work, place, rounds, seed=0):
    """What the script tells."""
    done = subprocess.run(
        [sys.executable, KILLS, work / "run", work / "drawn", place, str(rounds), str(seed)],
        env=environment(work / "cache"),
        capture_output=True,
        text=True,
        timeout=280 if rounds < 50 else 1500,
    )
    assert not done.returncode, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture
def place(work, trained, tmp_path):
    """A gallery that holds nothing."""
    Gallery.create(work / "run", tmp_path / "g", device="cpu")
    return tmp_path / "g"


def test_some_kills(work, place):
    """No acknowledged picture is lost, none is there twice, none is without its maps, and another
    program's searches never fail."""
    found = ran(work, place, 8)
    assert found["errors"] == [] and found["searches"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_a_hundred_kills(work, place):
    """Likewise, in every kind of change."""
    found = ran(work, place, 100, seed=1)
    print(found)
    assert found["errors"] == [] and found["searches"] > 0
    assert found["interrupted"]["add"] and found["interrupted"]["forget"]


def test_programs_at_once(work, place):
    """Two adders of the same pictures add each once; who forgets waits for them; searches go on."""
    found = ran(work, place, 0)
    assert found["errors"] == [] and found["searches"] > 0
    assert sum(found["added"]) == found["pictures"] and all(found["added"])


def test_a_full_disk(work, trained, place):
    """It is a sentence; what was there is there, and once there is room adding goes on."""
    gallery = Gallery.open(place, device="cpu")
    gallery._search = trained
    pictures = sorted((work / "drawn" / "gallery").glob("*.jpg"))
    gallery.add(pictures[:3])
    for most in (0, 200, 5000, 60_000):
        with files_of(most), pytest.raises(OutputError, match="cannot write") as refused:
            gallery.add(pictures)
        assert len(str(refused.value)) < 1000
        assert len(gallery) == 3 and gallery.search(pictures[:1], ranking="short")[0].matches
    assert gallery.add(pictures).added == len(pictures) - 3
    with files_of(0), pytest.raises(OutputError, match="cannot write"):
        gallery.remove(pictures[:1])
    assert len(gallery) == len(pictures)
    with files_of(0), pytest.raises(OutputError, match="cannot write"):
        gallery.export(place / "all.csv")
    assert not list(place.glob("*.csv")) and not list(place.glob(".*.tmp"))
