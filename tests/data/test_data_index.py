"""`reid data index`: patterns, what is listed, and the drawn split."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from own_pictures import picture, reid

from reidcore.api import Row
from reidcore.data.check import unmatched_queries
from reidcore.data.index import compile_pattern, index_folder
from reidcore.data.manifest import manifest_hash, read_manifest
from reidcore.data.splits import draw_splits
from reidcore.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REID_DATA", raising=False)


def street(folder: Path, identities: int = 6, cameras: int = 2, shots: int = 2) -> Path:
    numbers = itertools.product(range(identities), range(cameras), range(shots))
    for seed, (pid, camera, shot) in enumerate(numbers):
        picture(folder / f"{pid:04}_c{camera}_{shot}.png", seed)
    return folder


PATTERN = "{pid}_c{camera}_*.png"


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        ("{pid}_c{camera}_*.jpg", "7_c2_x_y.jpg", {"pid": "7", "camera": "2"}),
        ("{pid}_c{camera}_*.jpg", "car_0006_c2_.jpg", {"pid": "car_0006", "camera": "2"}),
        ("{pid}_c{camera}_*.jpg", "_c2_x.jpg", None),
        ("{pid}_c{camera}_*.jpg", "7_c2_x.JPG", None),
        ("{pid}_c{camera}_*.jpg", "sub/7_c2_x.jpg", None),
        ("{pid}?.jpg", "ab.jpg", {"pid": "a"}),
        ("{pid}/*", "Ann Lee/1.jpg", {"pid": "Ann Lee"}),
        ("{pid}/*", "a/b/1.jpg", None),
        ("**/{pid}.jpg", "a/b/1.jpg", {"pid": "1"}),
        ("**/{pid}.jpg", "1.jpg", {"pid": "1"}),
        ("{pid}/{pid}_*.jpg", "7/7_1.jpg", {"pid": "7"}),
        ("{pid}/{pid}_*.jpg", "7/8_1.jpg", None),
        ("{pid}_t{time}.jpg", "7_t12.50.jpg", {"pid": "7", "time": "12.50"}),
        ("{pid}_t{time}.jpg", "7_tnoon.jpg", None),
        ("./{modality}/{pid}(1).jpg", "ir/7(1).jpg", {"modality": "ir", "pid": "7"}),
    ],
)
def test_patterns(pattern: str, path: str, fields: dict[str, str] | None) -> None:
    """A pattern reads its fields from a path, or leaves it."""
    match = compile_pattern(pattern)(path)
    assert (match and match.groupdict()) == fields


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{id}_*.jpg", "unknown field {id}, did you mean 'pid'?"),
        ("{pid}_{cam}.jpg", "unknown field {cam}"),
        ("{pid}_{cam}.jpg", "Fields: {pid}, {camera}, {time}, {modality}, {split}"),
        ("c{camera}_*.jpg", "has no {pid}"),
        ("", "has no {pid}"),
        ("{pid_*.jpg", "has a '{' without its other half"),
        ("{pid}}.jpg", "has a '}' without its other half"),
    ],
)
def test_wrong_patterns(tmp_path: Path, pattern: str, expected: str) -> None:
    """A pattern that cannot work is refused before the folder is read."""
    with pytest.raises(UsageError) as caught:
        reid("index", tmp_path / "nowhere", "--pattern", pattern)
    assert expected in str(caught.value)


def test_one_folder_per_identity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a pattern, folders are identities, and every picture trains."""
    for name in ["Ann Lee/2.jpg", "Ann Lee/10.jpg", "Ünal/1.png"]:
        picture(tmp_path / name)
    (tmp_path / "Ünal" / "notes.txt").write_text("x")
    picture(tmp_path / "Ünal" / ".hidden.jpg")
    picture(tmp_path / "stray.jpg")
    assert reid("index", tmp_path) == 0
    assert (tmp_path / "manifest.csv").read_text(encoding="utf-8") == (
        "path,pid,split\n"
        "Ann Lee/2.jpg,Ann Lee,train\n"
        "Ann Lee/10.jpg,Ann Lee,train\n"
        "Ünal/1.png,Ünal,train\n"
    )
    said = capsys.readouterr().out
    assert "left out: 1 picture that did not fit '{pid}/*': stray.jpg" in said
    assert "left out: 1 file without a picture's ending" in said
    assert "every picture is 'train'; --split" in said
    assert f"wrote {tmp_path}/manifest.csv" in said


def test_all_fields_reach_the_manifest(tmp_path: Path) -> None:
    """Camera, time, modality and split come from the names, the output lies where it is told."""
    picture(tmp_path / "set" / "query" / "ir" / "7_c2_t1.50.png")
    out = tmp_path / "out.csv"
    pattern = "{split}/{modality}/{pid}_c{camera}_t{time}.png"
    assert reid("index", tmp_path / "set", "-o", out, "--pattern", pattern) == 0
    assert out.read_text() == (
        "path,pid,camera,split,time,modality\nset/query/ir/7_c2_t1.50.png,7,2,query,1.5,ir\n"
    )


def test_unmatched_pictures_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first three names that do not fit are shown, the rest is counted."""
    street(tmp_path, identities=1)
    for i in range(5):
        picture(tmp_path / f"odd{i}.png")
    reid("index", tmp_path, "--pattern", PATTERN)
    assert "5 pictures that did not fit" in (said := capsys.readouterr().out)
    assert "odd0.png, odd1.png, odd2.png and 2 more" in said


def test_nothing_fits(tmp_path: Path) -> None:
    """A pattern that fits nothing, and an unsuitable default, are refused with what was found."""
    street(tmp_path, identities=1)
    with pytest.raises(UsageError) as caught:
        reid("index", tmp_path)
    assert "none of the 4 pictures" in str(caught.value)
    assert "0000_c0_0.png, 0000_c0_1.png, 0000_c1_0.png and 1 more" in str(caught.value)
    assert "--pattern" in str(caught.value)
    with pytest.raises(UsageError, match=r"\{time\} takes numbers only"):
        reid("index", tmp_path, "--pattern", "{pid}_c{time}x_*.png")
    assert not (tmp_path / "manifest.csv").exists()


def test_no_folder_and_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing folder is named by its absolute path, an empty one by the endings looked for."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"'people' not found at {tmp_path}/people$"):
        reid("index", "people")
    monkeypatch.setenv("REID_DATA", "/sets")
    with pytest.raises(DataError, match=f"{tmp_path}/people, nor .* at /sets/people"):
        reid("index", "people")
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(DataError, match=r"no pictures under .*: 1 files.*\.jpeg, \.jpg"):
        reid("index", tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        reid("index", tmp_path / "note.txt")


def test_folder_is_also_found_under_reid_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that the current folder lacks is looked up under REID_DATA."""
    street(tmp_path / "sets" / "people", identities=1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("REID_DATA", str(tmp_path / "sets"))
    reid("index", "people", "--pattern", PATTERN)
    assert (tmp_path / "sets" / "people" / "manifest.csv").exists()


def test_unknown_split_in_a_name(tmp_path: Path) -> None:
    """A folder that is no split is refused with the nearest one."""
    picture(tmp_path / "galery" / "1_x.png")
    with pytest.raises(UsageError, match=r"galery/1_x.png .*'galery', did you mean 'gallery'\?"):
        reid("index", tmp_path, "--pattern", "{split}/{pid}_*.png")


def test_existing_manifest_is_kept(tmp_path: Path) -> None:
    """A manifest is only replaced with --force."""
    street(tmp_path, identities=1)
    (tmp_path / "manifest.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"manifest\.csv exists already.*--force"):
        reid("index", tmp_path, "--pattern", PATTERN)
    assert (tmp_path / "manifest.csv").read_text() == "mine"
    assert reid("index", tmp_path, "--pattern", PATTERN, "--force") == 0
    assert len(read_manifest(tmp_path / "manifest.csv")) == 4


def test_split_is_drawn_or_read(tmp_path: Path) -> None:
    """--split and {split} exclude each other, and a fraction beyond 0 to 1 is a usage error."""
    street(tmp_path, identities=1)
    with pytest.raises(UsageError, match=r"--split draws .* \{split\}"):
        reid("index", tmp_path, "--pattern", "{split}_c{pid}_*.png", "--split", "0.5")
    for fraction in ("1.5", "nan", "half"):
        with pytest.raises(SystemExit) as caught:
            reid("index", tmp_path, "--split", fraction)
        assert caught.value.code == 2


def test_the_splits_of_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list without splits gets those that its folder would get, in a file of its own; it is left
    as it is."""
    street(tmp_path / "shots", identities=4)
    reid("index", tmp_path / "shots", "--pattern", PATTERN, "--split", "0.5")
    expected = (tmp_path / "shots" / "manifest.csv").read_text()
    lines = [line.rsplit(",", 1)[0] for line in expected.splitlines()]
    mine = tmp_path / "shots" / "mine.csv"
    mine.write_text("\n".join(lines))
    reid("index", mine, "--split", "0.5", "-o", tmp_path / "shots" / "new.csv")
    assert (tmp_path / "shots" / "new.csv").read_text() == expected
    capsys.readouterr()
    for options in ([], ["--split", "0.5"], ["--split", "0.5", "-o", mine, "--force"]):
        with pytest.raises(UsageError, match=r"mine\.csv(?! exists)"):
            reid("index", mine, *options)
    assert mine.read_text() == "\n".join(lines)
    with pytest.raises(UsageError, match=r"is a list already\. To draw train"):
        reid("index", mine, "--pattern", PATTERN, "-o", tmp_path / "n.csv", "--split", "0.5")


def test_links_are_followed_once(tmp_path: Path) -> None:
    """Linked folders are read, a link to a folder above is not followed forever."""
    street(tmp_path / "disk", identities=1, cameras=1, shots=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "set")
    index = index_folder(tmp_path / "set", "**/" + PATTERN)
    assert [row.listed for row in index.rows] == ["linked/0000_c0_0.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_name_that_is_no_text(tmp_path: Path) -> None:
    """A file name that no manifest could hold is refused by name."""
    (tmp_path / os.fsdecode(b"k\xf6ln.jpg")).write_bytes(b"x")
    with pytest.raises(DataError, match=r"k\\udcf6ln.jpg.* not UTF-8"):
        index_folder(tmp_path, "{pid}.jpg")


def sightings(*pictures: Sequence[int]) -> list[Row]:
    """Rows of identities, each given as its numbers of pictures by camera."""
    return [
        Row(f"/set/{pid}_c{camera}_{shot}.jpg", str(pid), str(camera))
        for pid, counts in enumerate(pictures)
        for camera, count in enumerate(counts)
        for shot in range(count)
    ]


def splits(rows: Sequence[Row]) -> dict[str, str]:
    return {row.path: row.split for row in rows}


def test_identities_do_not_cross_the_split() -> None:
    """The stated fraction of the identities trains, and none of them is tested."""
    drawn = draw_splits(sightings(*[(2, 3)] * 40), 0.3).rows
    train = {row.pid for row in drawn if row.split == "train"}
    assert len(train) == 12
    assert {row.pid for row in drawn if row.split != "train"} == {
        str(pid) for pid in range(40)
    } - train
    assert {row.split for row in drawn} == {"train", "query", "gallery"}


def test_draw_depends_on_seed_alone() -> None:
    """The order of the files and their place do not change the draw; the seed does."""
    rows = sightings(*[(2, 3)] * 30)
    drawn = splits(draw_splits(rows, 0.5, 1).rows)
    shuffled = random.Random(0).sample(rows, len(rows))
    assert splits(draw_splits(shuffled, 0.5, 1).rows) == drawn
    assert splits(draw_splits(rows, 0.5, 2).rows) != drawn
    moved = [Row(row.path.replace("/set", "/b/a"), row.pid, row.camera) for row in rows]
    assert [row.split for row in draw_splits(moved, 0.5, 1).rows] == list(drawn.values())


def test_draw_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Python's hash seed has no influence, so the manifest is reproducible byte by byte."""
    street(tmp_path / "set", identities=8)
    code = (
        "import sys; from pathlib import Path; from reidcore.data.index import *\n"
        "from reidcore.data.manifest import manifest_hash\n"
        "from reidcore.data.splits import draw_splits\n"
        "rows = index_folder(Path(sys.argv[1]), sys.argv[2]).rows\n"
        "print(manifest_hash(draw_splits(rows, 0.5, 3).rows))"
    )
    rows = index_folder(tmp_path / "set", PATTERN).rows
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "set"), PATTERN],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == manifest_hash(draw_splits(rows, 0.5, 3).rows)


def test_a_further_identity_moves_at_most_one() -> None:
    """Growing a data set keeps nearly all identities on their side."""
    before = {
        row.pid: row.split == "train" for row in draw_splits(sightings(*[(1, 1)] * 60), 0.5).rows
    }
    after = {
        row.pid: row.split == "train" for row in draw_splits(sightings(*[(1, 1)] * 61), 0.5).rows
    }
    assert sum(before[pid] != after[pid] for pid in before) <= 1


@pytest.mark.parametrize(
    ("pictures", "queries"),
    [
        ((3,), 0),
        ((1, 1), 1),
        ((2, 1), 1),
        ((5, 1), 1),
        ((2, 2), 2),
        ((1, 1, 1), 2),
        ((4, 1, 1), 2),
        ((2, 2, 1), 3),
        ((0, 3), 0),
    ],
)
def test_every_query_has_a_match(pictures: tuple[int, ...], queries: int) -> None:
    """Each camera gives a query as far as other cameras still show the identity afterwards."""
    for seed in range(20):
        drawn = draw_splits(sightings(pictures), 0, seed)
        counts = Counter(row.split for row in drawn.rows)
        assert counts["query"] == queries
        assert counts["gallery"] == sum(pictures) - queries
        cameras = [row.camera for row in drawn.rows if row.split == "query"]
        assert len(set(cameras)) == queries
        assert unmatched_queries(drawn.rows) == []
        assert drawn.without_query == ([] if queries else ["0"])


def test_queries_are_drawn_evenly() -> None:
    """Over many identities, first and last pictures and cameras are queries about as often."""
    drawn = draw_splits(sightings(*[(2, 1, 1)] * 300), 0).rows
    shots: dict[str, Counter[str]] = defaultdict(Counter)
    for row in drawn:
        if row.split == "query":
            shots[row.camera][row.path[-5]] += 1
    assert 110 < shots["0"]["0"] < 190
    assert 110 < shots["1"]["0"] < 190
    assert shots["0"]["0"] + shots["0"]["1"] == 300
    assert shots["1"]["0"] + shots["2"]["0"] == 300


def test_without_cameras_one_query_each() -> None:
    """Where no camera is known, an identity of two pictures gives one query, of one none."""
    rows = [
        Row(f"/set/{pid}_{i}.jpg", pid)
        for pid, n in (("a", 1), ("b", 2), ("c", 5))
        for i in range(n)
    ]
    drawn = draw_splits(rows, 0)
    assert Counter(row.pid for row in drawn.rows if row.split == "query") == {"b": 1, "c": 1}
    assert drawn.without_query == ["a"]
    assert unmatched_queries(drawn.rows) == []


@pytest.mark.parametrize(
    ("identities", "fraction", "train"),
    [(4, 0.0, 0), (4, 1.0, 4), (4, 0.01, 1), (4, 0.99, 3), (1, 0.5, 1), (5, 0.5, 3), (3, 0.5, 2)],
)
def test_ends_of_the_fraction(identities: int, fraction: float, train: int) -> None:
    """Only 0 and 1 leave a side without identities."""
    drawn = draw_splits(sightings(*[(2, 2)] * identities), fraction).rows
    assert len({row.pid for row in drawn if row.split == "train"}) == train


def test_index_and_check_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A split that `index` draws passes `check`, and identities without a query are told."""
    street(tmp_path, identities=5)
    picture(tmp_path / "0009_c0_0.png", 900)
    picture(tmp_path / "0009_c0_1.png", 901)
    assert reid("index", tmp_path, "--pattern", PATTERN, "--split", "0") == 0
    said = capsys.readouterr().out
    assert "1 test identity with only one camera (gallery, no query): 0009" in said
    assert said.splitlines()[1].split() == ["query", "10", "5", "2"]
    assert said.splitlines()[2].split() == ["gallery", "12", "6", "2"]
    assert reid("check", tmp_path) == 0
    said = capsys.readouterr().out
    assert "warning: 1 identity seen by one camera only\n  0009\n" in said
    assert "no errors" in said
