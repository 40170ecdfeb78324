"""The reader of VehicleID, on trees in the layout of the archive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from archives import plan, write

from reidcore.api import Row
from reidcore.builtin.readers.vehicleid import VehicleID
from reidcore.cli.main import main
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError
from reidcore.testing import iter_checks
from tests.archives import vehicleid_lists

LINES = {
    "train_list": ["0000001 1", "0000002 1", "0153256 7"],
    "test_list_800": ["0000010 3", "0000011 3"],
    "test_list_2400": ["0000010 3", "0000011 3", "0000012 10"],
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    names = {f"{line.split()[0]}.jpg" for listed in LINES.values() for line in listed}
    root = write(tmp_path / "7_c1" / "VehicleID_V1.0", {"image": names})
    return vehicleid_lists(root, LINES)


def any_rows(root: Path, **settings: int) -> list[Row]:
    return VehicleID(counts="any", **settings).rows(root)


def test_rows_say_what_the_lists_say(small: Path):
    """Identity, split and path are those of the training list and the chosen test list, in their
    order; pictures that neither names are left out, and no camera is stated."""
    expected = [
        ("train", "1", f"{small}/image/0000001.jpg", "train_list.txt line 1"),
        ("train", "1", f"{small}/image/0000002.jpg", "train_list.txt line 2"),
        ("train", "7", f"{small}/image/0153256.jpg", "train_list.txt line 3"),
        ("test", "3", f"{small}/image/0000010.jpg", "test_list_800.txt line 1"),
        ("test", "3", f"{small}/image/0000011.jpg", "test_list_800.txt line 2"),
    ]
    rows = any_rows(small)
    assert [(row.split, row.pid, row.path, row.listed) for row in rows] == expected
    assert all(Path(row.path).is_file() and row.camera == "" for row in rows)
    large = any_rows(small, test_list=2400)
    assert [row.pid for row in large if row.split == "test"] == ["3", "3", "10"]
    assert large[-1].listed == "test_list_2400.txt line 3"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the published numbers of vehicles, two pictures of each."""
    lines: dict[str, list[str]] = {}
    for name, vehicles in (("train_list", range(13164)), ("test_list_800", range(20000, 20800))):
        lines[name] = [f"{2 * pid + shot:07d} {pid}" for pid in vehicles for shot in (0, 1)]
    names = (f"{line.split()[0]}.jpg" for listed in lines.values() for line in listed)
    root = write(tmp_path_factory.mktemp("data") / "VehicleID_V1.0", {"image": names})
    return vehicleid_lists(root, lines)


def test_the_published_data_set_is_what_is_declared(whole: Path, monkeypatch: pytest.MonkeyPatch):
    """Identities and columns are those that the reader states, which states no cameras."""
    monkeypatch.setenv("REID_DATA", str(whole.parent))
    (check,) = [check for check in iter_checks("core") if "vehicleid: facts fit" in str(check)]
    check()
    found = plan(VehicleID(), whole, "train", "test")
    assert (found.identities, found.cameras) == (13164 + 800, 0)
    assert found.train_columns == set()


def test_other_numbers_of_vehicles_are_refused(whole: Path):
    """A vehicle less in a list is an error with list, found and expected, a picture less is none;
    on request all is accepted."""
    train = whole / "train_test_split" / "train_list.txt"
    text = train.read_text()
    train.write_text(text.replace("0000000 0\n", ""))
    assert len(VehicleID().rows(whole)) == 2 * 13964 - 1
    train.write_text(text.replace("0000000 0\n", "").replace("0000001 0\n", ""))
    with pytest.raises(DataError) as caught:
        VehicleID().rows(whole)
    assert str(caught.value).startswith(
        f"{whole} is not the whole of VehicleID: train_list.txt has 13,163 vehicles, expected "
        "13,164. Extract"
    )
    assert len(any_rows(whole)) == 2 * 13964 - 2
    train.write_text(text)
    vehicleid_lists(whole, {"test_list_1600": ["0040000 20000"]})
    with pytest.raises(DataError, match=r"test_list_1600.txt has 1 vehicles, expected 1,600"):
        VehicleID(test_list=1600).rows(whole)
    assert len(VehicleID().rows(whole)) == 2 * 13964


def test_half_an_archive_is_refused(small: Path):
    """Listed pictures that are not there are counted, the first with list and line."""
    (small / "image" / "0000011.jpg").unlink()
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        f"1 listed picture is not there; first {small}/image/0000011.jpg (test_list_800.txt line "
        "2). Extract the archive again"
    )
    for file in (small / "image").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"^5 listed pictures are not there; first .*0000001\.jpg"):
        any_rows(small)


def test_no_vehicle_is_in_train_and_test(small: Path):
    """A vehicle in both lists, and a picture twice in one or under two vehicles, is refused with
    both lines."""
    for lines, message in (
        (
            {"test_list_800": ["0000010 7"]},
            f"test_list_800.txt line 1 of {small}/train_test_split: vehicle 7 is in train_list.txt "
            "line 3 too; no vehicle may be in train and test",
        ),
        (
            {"train_list": ["0000001 1", "0000001 1"], "test_list_800": LINES["test_list_800"]},
            f"train_list.txt line 2 of {small}/train_test_split: 0000001 is listed already in line "
            "1",
        ),
        (
            {"train_list": ["0000001 1", "0000010 1"]},
            f"test_list_800.txt line 1 of {small}/train_test_split: 0000010 has identity 3, but 1 "
            "in train_list.txt line 2",
        ),
    ):
        vehicleid_lists(small, lines)
        with pytest.raises(DataError) as caught:
            any_rows(small)
        assert str(caught.value) == message


@pytest.mark.parametrize("line", ["0000003", "0000003.jpg 1", "image/0000003 1", "0000003 -1"])
def test_a_strange_line_is_told(small: Path, line: str):
    """A line that is no picture's number with its vehicle is refused with file and number."""
    vehicleid_lists(small, {"test_list_800": [*LINES["test_list_800"], line, line]})
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        f"2 lines of {small}/train_test_split/test_list_800.txt not such as '0000001 1'; first "
        f"line 3: {line!r}"
    )


def test_a_folder_too_deep_or_too_high_is_told(small: Path):
    """Where a folder next to root fits, the message names it."""
    for wrong in (small / "image", small.parent):
        with pytest.raises(
            DataError, match="is not VehicleID: it has no folder image an"
        ) as caught:
            any_rows(wrong)
        assert str(caught.value).endswith(f"{small} has all of them; set root to it")


def test_what_is_missing_is_told(small: Path):
    """A missing list or folder, and a file in place of root, are refused by name."""
    with pytest.raises(DataError) as caught:
        any_rows(small, test_list=13164)
    assert str(caught.value) == (
        f"{small} is not VehicleID: it has no file train_test_split/test_list_13164.txt; root must "
        "hold image, train_test_split/train_list.txt, train_test_split/test_list_13164.txt"
    )
    shutil.rmtree(small / "image")
    with pytest.raises(DataError, match="it has no folder image; root must hold image, train_tes"):
        any_rows(small)
    archive = small.parent / "VehicleID.zip"
    archive.touch()
    with pytest.raises(DataError, match=r"zip is no folder; extract the archive"):
        any_rows(archive)


def test_absent_data_are_assumed_as_published(tmp_path: Path):
    """Without the folder a check stands on the published number of vehicles; numbers of pictures
    are not assumed."""
    found = plan(VehicleID(), tmp_path / "VehicleID", allow_missing=True)
    assert (found.identities, found.cameras, found.train_columns) == (13164, 0, set())
    assert found.loaded[0].counts == {}


def test_a_reader_writes_a_manifest(small: Path, capsys: pytest.CaptureFixture[str]):
    """`reid data index --read` lists what the reader finds in an existing test list."""
    output = small / "vehicleid.csv"
    command = ["data", "index", str(small), "--read", "core.vehicleid", "-o", str(output)]
    assert main([*command, "--set", "test_list=900"]) == 2
    assert "test_list" in capsys.readouterr().err
    command += ["--set", "test_list=2400"]
    assert main(command) == 4
    assert "test_list_2400.txt has 2 vehicles, expected 2,400" in capsys.readouterr().err
    assert main([*command, "--set", "counts=any"]) == 0
    assert [(r.path, r.pid, r.split) for r in read_manifest(output)] == [
        (r.path, r.pid, r.split) for r in any_rows(small, test_list=2400)
    ]
