"""The drawn data set: reproducible, complete, plausible in time, and what its manifest says."""

import csv
import hashlib
import os
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidcore.builtin.drawn_people import pictures as demo
from reidcore.builtin.drawn_people.pictures import (
    HEIGHT,
    TRAVEL_SECONDS,
    WIDTH,
    plan_sightings,
    write_demo,
)
from reidcore.builtin.drawn_people.wardrobe import dye, generator, lightness, second_dye
from reidcore.contracts.rows import COLUMNS
from reidcore.errors import OutputError

SMALL = {"train_identities": 3, "test_identities": 4, "pictures": 7, "cameras": 3}
TINY = {"train_identities": 2, "test_identities": 2, "pictures": 4, "cameras": 2}


def manifest(folder: Path) -> list[dict[str, str]]:
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file under ``folder`` by its relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def chroma(path: Path) -> int:
    """Return the largest difference between two channels of a pixel."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((pixels.max(axis=-1) - pixels.min(axis=-1)).max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("demo") / "mixed"
    write_demo(target, **SMALL, infrared_cameras=1, seed=5)
    return target


def test_same_arguments_give_the_same_bytes(folder, tmp_path):
    write_demo(tmp_path / "again", **SMALL, infrared_cameras=1, seed=5)
    assert digests(tmp_path / "again") == digests(folder)


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path):
    code = (
        "import sys; from reidcore.builtin.drawn_people.pictures import write_demo; "
        "write_demo(sys.argv[1], **{!r})"
    )
    for hash_seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code.format(TINY), str(tmp_path / hash_seed)],
            check=True,
            cwd=Path(demo.__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_another_seed_gives_other_pictures(folder, tmp_path):
    write_demo(tmp_path / "other", **SMALL, infrared_cameras=1, seed=6)
    ours, theirs = digests(folder), digests(tmp_path / "other")
    shared = [name for name in ours.keys() & theirs.keys() if name.endswith(".jpg")]
    assert shared
    assert all(ours[name] != theirs[name] for name in shared)


def test_manifest_lists_every_picture_once(folder):
    rows = manifest(folder)
    assert tuple(rows[0]) == COLUMNS
    assert {row["path"] for row in rows} == {name for name in digests(folder) if "jpg" in name}
    assert len({row["path"] for row in rows}) == len(rows)
    counts = defaultdict(int)
    for row in rows:
        counts[row["pid"]] += 1
    # Three to train on, four to look for and one distractor.
    assert counts == {f"{pid:04d}": SMALL["pictures"] for pid in range(1, 9)}


def test_every_query_has_a_match_in_another_camera(folder):
    rows = manifest(folder)
    queries = [row for row in rows if row["split"] == "query"]
    gallery = [row for row in rows if row["split"] == "gallery"]
    asked = [(row["pid"], row["camera"]) for row in queries]
    assert len(asked) == len(set(asked)) == SMALL["test_identities"] * SMALL["cameras"]
    for pid, camera in asked:
        assert any(row["pid"] == pid and row["camera"] != camera for row in gallery)
    assert {row["pid"] for row in gallery} - {row["pid"] for row in queries} == {"0008"}


def test_train_and_test_people_differ(folder):
    people = defaultdict(set)
    for row in manifest(folder):
        people[row["split"]].add(row["pid"])
    assert len(people["train"]) == SMALL["train_identities"]
    assert not people["train"] & (people["query"] | people["gallery"])


@pytest.mark.parametrize(("cameras", "pictures"), [(4, 14), (5, 6), (2, 4)])
def test_groups_stay_together_and_walk_at_a_plausible_pace(cameras, pictures):
    sightings = plan_sightings(range(30), cameras, pictures, generator(3, cameras))
    visits = defaultdict(list)
    for sighting in sightings:
        visits[sighting.group, sighting.camera].append(sighting)
    for visit in visits.values():
        assert 2 <= len({sighting.person for sighting in visit}) <= 4
        times = sorted(sighting.tenths / 10 for sighting in visit)
        # A group passes a camera once or twice, each time within a minute.
        passes = 1 + sum(after - before > 60 for before, after in pairwise(times))
        assert passes <= 2
        assert times[-1] - times[0] <= 60 or passes == 2

    walks = defaultdict(list)
    for sighting in sightings:
        walks[sighting.person].append((sighting.tenths / 10, sighting.camera))
    moves = 0
    for walk in walks.values():
        assert len(walk) == pictures
        for (start, here), (end, there) in pairwise(sorted(walk)):
            if here != there and end - start < 400:
                moves += 1
                # The moments within a visit differ by up to 20 seconds.
                assert TRAVEL_SECONDS[0] - 20 < end - start < TRAVEL_SECONDS[1] + 20
                assert abs(here - there) in (1, cameras - 1)
    assert moves >= len(walks)


def test_manifest_times_share_one_clock(folder):
    times = [row["time"] for row in manifest(folder)]
    assert all(len(time.split(".")[1]) == 1 for time in times)
    assert 0 <= min(map(float, times)) < max(map(float, times)) < 3 * 3600


def test_infrared_pictures_have_no_colour(folder):
    chromas = defaultdict(list)
    for row in manifest(folder):
        assert row["modality"] == ("infrared" if row["camera"] == "3" else "visible")
        chromas[row["modality"]].append(chroma(folder / row["path"]))
    assert max(chromas["infrared"]) == 0
    assert min(chromas["visible"]) > 20


def test_infrared_cameras_leave_visible_pictures_as_they_are(folder, tmp_path):
    write_demo(tmp_path / "visible", **SMALL, seed=5)
    mixed, visible = digests(folder), digests(tmp_path / "visible")
    told = {row["path"]: row["modality"] for row in manifest(folder)}
    assert {name for name in told if mixed[name] == visible[name]} == {
        name for name, modality in told.items() if modality == "visible"
    }


def test_infrared_is_half_cloth_and_half_lightness():
    """Brightness follows lightness, but a dark garment may be as bright as a light one; two colours
    of a pattern, more often than not on one cloth, then keep half of their contrast."""
    rng = generator(11)
    firsts = np.array([dye(rng) for _ in range(1500)])
    light, infrared = np.array([lightness(dye) for dye in firsts]), firsts[:, 3]
    assert 0.6 < np.corrcoef(light, infrared)[0, 1] < 0.9
    assert infrared[light < 60].max() > infrared[light > 190].min()
    cloth = 2 * infrared - light
    assert abs(np.corrcoef(light, cloth)[0, 1]) < 0.1

    seconds = np.array([second_dye(rng, tuple(map(int, first))) for first in firsts])
    contrast = np.array([lightness(dye) for dye in seconds]) - light
    off = np.abs(seconds[:, 3] - infrared - contrast / 2)
    same = off < 14  # half of 25, and rounding
    assert 0.6 < same.mean() < 0.85


def test_pictures_have_the_declared_size(folder):
    assert (HEIGHT, WIDTH) == (128, 64)
    for row in manifest(folder):
        with Image.open(folder / row["path"]) as picture:
            assert (picture.size, picture.mode) == ((WIDTH, HEIGHT), "RGB")


def test_difficulty_changes_the_pictures_not_the_people(tmp_path):
    for difficulty in (0, 2):
        write_demo(tmp_path / str(difficulty), **TINY, difficulty=difficulty)
    assert manifest(tmp_path / "0") == manifest(tmp_path / "2")
    clean, hard = digests(tmp_path / "0"), digests(tmp_path / "2")
    assert all(clean[name] != hard[name] for name in clean if name.endswith(".jpg"))


@pytest.mark.parametrize(
    ("error", "seen_as"), [(OSError, OutputError), (KeyboardInterrupt, KeyboardInterrupt)]
)
def test_failed_generation_leaves_nothing(tmp_path, monkeypatch, error, seen_as):
    target, save, seen = tmp_path / "demo", Image.Image.save, []

    def fail_later(picture, path, **options):
        save(picture, path, **options)
        seen.append(path)
        assert not target.exists()
        if len(seen) == 3:
            raise error("stopped")

    monkeypatch.setattr(Image.Image, "save", fail_later)
    with pytest.raises(seen_as):
        write_demo(target, **TINY)
    assert len(seen) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_identities", 1),
        ("test_identities", 0),
        ("pictures", 3),
        ("pictures", 4.0),
        ("cameras", 1),
        ("infrared_cameras", 3),
        ("infrared_cameras", -1),
        ("difficulty", 2.1),
        ("difficulty", float("nan")),
        ("difficulty", "hard"),
        ("seed", -1),
        ("seed", True),
    ],
)
def test_bad_arguments_are_refused_by_name(tmp_path, name, value):
    with pytest.raises(ValueError, match=name):
        write_demo(tmp_path / "demo", **{**TINY, name: value})
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(ValueError, match="folder"):
        write_demo(tmp_path, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
