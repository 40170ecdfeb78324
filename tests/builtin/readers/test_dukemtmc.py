"""The reader of DukeMTMC-reID, on trees in the layout of the archive."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, islice
from pathlib import Path

import pytest
from archives import plan, write
from oracles import oracle

from reidcore.api import Row
from reidcore.builtin.readers.dukemtmc import DukeMTMC
from reidcore.cli.main import main
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError
from reidcore.testing import iter_checks

FOLDER = "DukeMTMC-reID"

TRAIN = ["0005_c2_f0046985.jpg", "0005_c5_f0046985.jpg", "0010_c8_f0000000.jpg"]
QUERY = ["0001_c1_f0042586.jpg", "0012_c5_f0232212.jpg"]
GALLERY = [
    "0001_c2_f0235877.jpg",
    "0004_c6_f0063633.jpg",
    "0012_c3_f0000100.jpg",
    "0012_c4_f0000100.jpg",
    "7139_c7_f0120133.jpg",
]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    # Digits and "_c" above the pictures must not be taken for theirs.
    folders = {"bounding_box_train": TRAIN, "query": QUERY, "bounding_box_test": GALLERY}
    return write(tmp_path / "7_c1" / FOLDER, folders)


def any_rows(root: Path) -> list[Row]:
    return DukeMTMC(counts="any").rows(root)


def test_rows_say_what_the_names_say(small: Path):
    """Identity, camera, split and path of every picture, by name; files that are no pictures do
    not count."""
    for folder in ("query", "bounding_box_test"):
        (small / folder / "Thumbs.db").touch()
        (small / folder / "._0001_c1_f0042586.jpg").touch()
    rows = any_rows(small)
    assert [(row.pid, row.camera, row.split, Path(row.path).name) for row in rows] == [
        ("0005", "2", "train", "0005_c2_f0046985.jpg"),
        ("0005", "5", "train", "0005_c5_f0046985.jpg"),
        ("0010", "8", "train", "0010_c8_f0000000.jpg"),
        ("0001", "1", "query", "0001_c1_f0042586.jpg"),
        ("0012", "5", "query", "0012_c5_f0232212.jpg"),
        ("0001", "2", "gallery", "0001_c2_f0235877.jpg"),
        ("0004", "6", "gallery", "0004_c6_f0063633.jpg"),
        ("0012", "3", "gallery", "0012_c3_f0000100.jpg"),
        ("0012", "4", "gallery", "0012_c4_f0000100.jpg"),
        ("7139", "7", "gallery", "7139_c7_f0120133.jpg"),
    ]
    assert all(Path(row.path).is_absolute() and Path(row.path).is_file() for row in rows)
    assert rows[0].listed == "bounding_box_train/0005_c2_f0046985.jpg"
    assert {row.modality for row in rows} == {""}


def test_times_are_on_one_clock(small: Path):
    """Seconds are those of the frame plus the start of its camera, at 59.94 frames a second."""
    expected = {
        "0001_c1_f0042586.jpg": (42586 + 5542) / 59.94,
        "0005_c2_f0046985.jpg": (46985 + 3606) / 59.94,
        "0001_c2_f0235877.jpg": (235877 + 3606) / 59.94,
        "0012_c3_f0000100.jpg": (100 + 27243) / 59.94,
        "0012_c4_f0000100.jpg": (100 + 31181) / 59.94,
        "0005_c5_f0046985.jpg": 46985 / 59.94,
        "0012_c5_f0232212.jpg": 232212 / 59.94,
        "0004_c6_f0063633.jpg": (63633 + 22401) / 59.94,
        "7139_c7_f0120133.jpg": (120133 + 18967) / 59.94,
        "0010_c8_f0000000.jpg": 46765 / 59.94,
    }
    times = {Path(row.path).name: row.time for row in any_rows(small)}
    assert times == pytest.approx(expected, rel=1e-12)


@pytest.mark.oracle
def test_times_equal_the_published(tmp_path: Path):
    """Files, cameras and times equal those of QAConv's reader."""
    with oracle("qaconv/times_duke_synthetic") as vectors:
        tolerance = vectors.sidecar["suggested_tolerance"]["float64"]
        splits = {"query": "query", "gallery": "bounding_box_test"}
        files = {split: vectors.arrays[f"{split}_files"].tolist() for split in splits}
        folders = {folder: files[split] for split, folder in splits.items()}
        rows = any_rows(write(tmp_path, {"bounding_box_train": TRAIN, **folders}))
        for split in splits:
            mine = [row for row in rows if row.split == split]
            assert [Path(row.path).name for row in mine] == files[split]
            vectors.compared.add(f"{split}_files")  # texts, which no number compares
            vectors.compare(f"{split}_cam", [int(row.camera) - 1 for row in mine])
            vectors.compare(f"{split}_time", [row.time for row in mine], rtol=tolerance)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the published numbers of pictures and identities."""

    def names(pids: Iterable[int], count: int, start: int) -> list[str]:
        return [
            f"{pid:04d}_c{number % 8 + 1}_f{start + number:07d}.jpg"
            for number, pid in enumerate(islice(cycle(pids), count))
        ]

    assert names([5], 2, 46985)[1] == "0005_c2_f0046986.jpg"
    people = range(1, 1 + 702 + 702 + 408)
    train, searched, distractors = people[:702], people[702:1404], people[1404:]
    folders = {
        "bounding_box_train": names(train, 16522, 0),
        "query": names(searched, 2228, 100000),
        "bounding_box_test": names([*searched, *distractors], 17661, 200000),
    }
    return write(tmp_path_factory.mktemp("data") / FOLDER, folders)


def test_the_published_data_set_is_what_is_declared(whole: Path, monkeypatch: pytest.MonkeyPatch):
    """Identities, cameras, columns and counts are those that the reader states."""
    monkeypatch.setenv("REID_DATA", str(whole.parent))
    (check,) = [check for check in iter_checks("core") if "dukemtmc: facts fit" in str(check)]
    check()
    assert DukeMTMC().facts().identities == 702
    found = plan(DukeMTMC(), whole, role="test")
    assert found.loaded[0].counts == {"query": 2228, "gallery": 17661}
    assert found.test_columns == {"camera", "time"}


def test_half_an_archive_is_refused(whole: Path):
    """A missing picture or identity is an error with folder, found and expected; on request it is
    accepted."""
    gone = whole / "bounding_box_train" / "0001_c1_f0000000.jpg"
    gone.unlink()
    person = sorted((whole / "bounding_box_test").glob("1812_*"))
    for file in person:
        file.rename(file.with_name(file.name.replace("1812", "1811")))
    try:
        with pytest.raises(DataError) as caught:
            DukeMTMC().rows(whole)
        assert len(any_rows(whole)) == 16521 + 2228 + 17661
    finally:
        gone.touch()
        for file in person:
            file.with_name(file.name.replace("1812", "1811")).rename(file)
    for part in (
        f"{whole} is not the whole of DukeMTMC-reID",
        "bounding_box_train has 16,521 pictures, expected 16,522",
        "bounding_box_test has 1,109 identities, expected 1,110",
        'counts = "any"',
    ):
        assert part in str(caught.value)
    assert "query" not in str(caught.value)
    assert len(DukeMTMC().rows(whole)) == 16522 + 2228 + 17661


def test_a_folder_too_deep_or_too_high_is_told(small: Path):
    """Where a folder next to root fits, the message names it."""
    for wrong in (small / "query", small.parent):
        with pytest.raises(DataError) as caught:
            any_rows(wrong)
        assert f"{wrong} is not DukeMTMC-reID: it has no folder bounding_box_train" in str(
            caught.value
        )
        assert str(caught.value).endswith(f"{small} has all of them; set root to it")


def test_what_is_missing_is_told(small: Path):
    """A missing folder, one without pictures, and a file in place of root are refused by name."""
    for file in (small / "query").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"query has no \.jpg pictures"):
        any_rows(small)
    (small / "query").rmdir()
    with pytest.raises(DataError, match="it has no folder query; root must hold bounding_box_tra"):
        any_rows(small)
    archive = small.parent / f"{FOLDER}.zip"
    archive.touch()
    with pytest.raises(DataError, match=r"zip is no folder; extract the archive"):
        any_rows(archive)


@pytest.mark.parametrize(
    "name",
    [
        "0002_c1s1_000451_03.jpg",  # Market-1501's
        "-1_c1_f0046985.jpg",  # no identity, which this data set has none of
        "0005_c9_f0046985.jpg",  # a camera without a clock
        "0005_c0_f0046985.jpg",
        "0005_c2_f0046985 (1).jpg",
    ],
)
def test_strange_names_are_told(small: Path, name: str):
    """Pictures whose names are not DukeMTMC-reID's are refused, with their number, the first, and
    a name that would fit."""
    (small / "query" / name).touch()
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        "1 picture has a name other than DukeMTMC-reID's, such as 0005_c2_f0046985.jpg; "
        f"first {small / 'query' / name}"
    )
    (small / "bounding_box_train" / "cat.jpg").touch()
    with pytest.raises(DataError, match=r"^2 pictures have names .* first .*cat\.jpg"):
        any_rows(small)


def test_absent_data_are_assumed_as_published(tmp_path: Path):
    """Without the folder a check stands on the published figures; a run is refused with the path
    that was tried."""
    found = plan(DukeMTMC(), tmp_path / FOLDER, allow_missing=True)
    assert found.identities == 702 and found.cameras == 8
    assert found.train_columns == {"camera", "time"}
    assert found.loaded[0].counts == {"train": 16522}
    with pytest.raises(DataError, match=f"data not found at .*{FOLDER}"):
        plan(DukeMTMC(), tmp_path / FOLDER)


def test_a_reader_writes_a_manifest(small: Path, capsys: pytest.CaptureFixture[str]):
    """`reid data index --read` lists what the reader finds, times included, and nothing where the
    archive is not whole."""
    output = small / "duke.csv"
    command = ["data", "index", str(small), "--read", "core.dukemtmc", "-o", str(output)]
    assert main(command) == 4
    assert "bounding_box_train has 3 pictures, expected 16,522" in capsys.readouterr().err
    assert not output.exists()
    assert main([*command, "--set", "counts=any"]) == 0
    assert [(r.path, r.pid, r.camera, r.split, r.time) for r in read_manifest(output)] == [
        (r.path, r.pid, r.camera, r.split, r.time) for r in any_rows(small)
    ]
