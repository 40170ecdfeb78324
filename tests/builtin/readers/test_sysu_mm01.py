"""The reader of SYSU-MM01, on trees in the layout of the archive."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from archives import plan, write

from reidcore.api import Row
from reidcore.builtin.readers.sysu_mm01 import SYSUMM01
from reidcore.cli.main import main
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError
from reidcore.testing import iter_checks

PICTURES = {
    "cam1/0001": ["0001.jpg", "0002.jpg"],
    "cam3/0001": ["0001.jpg"],
    "cam5/0010": ["0001.jpg"],
    "cam2/0003": ["0001.jpg"],
    "cam6/0003": ["0020.jpg"],
    "cam4/0006": ["0001.jpg"],
    "cam6/0006": ["0001.jpg"],
    "cam1/0333": ["0001.jpg"],  # in no list
}


def put(root: Path, train: Iterable[int], val: Iterable[int], test: Iterable[int]) -> Path:
    """The lists of identities."""
    (root / "exp").mkdir()
    for split, pids in (("train", train), ("val", val), ("test", test)):
        (root / "exp" / f"{split}_id.txt").write_text(",".join(map(str, pids)) + "\n")
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = write(tmp_path / "cam3" / "SYSU-MM01", PICTURES)
    return put(root, [1, 10], [3], [6])


def any_rows(root: Path) -> list[Row]:
    return SYSUMM01(counts="any").rows(root)


def test_rows_say_what_folders_and_lists_say(small: Path):
    """Identity, camera, modality and path of every picture of the listed people, by split,
    identity and camera; other people and files that are no pictures do not count."""
    (small / "cam1" / "0001" / "Thumbs.db").touch()
    (small / "cam1" / "0001" / "._0001.jpg").touch()
    rows = any_rows(small)
    assert [(row.split, row.pid, row.camera, row.modality, row.path) for row in rows] == [
        (split, pid, camera, modality, f"{small}/cam{camera}/{pid}/{file}")
        for split, pid, camera, modality, file in (
            ("train", "0001", "1", "visible", "0001.jpg"),
            ("train", "0001", "1", "visible", "0002.jpg"),
            ("train", "0001", "3", "infrared", "0001.jpg"),
            ("train", "0010", "5", "visible", "0001.jpg"),
            ("val", "0003", "2", "visible", "0001.jpg"),
            ("val", "0003", "6", "infrared", "0020.jpg"),
            ("test", "0006", "4", "visible", "0001.jpg"),
            ("test", "0006", "6", "infrared", "0001.jpg"),
        )
    ]
    assert all(Path(row.path).is_file() for row in rows)
    assert rows[2].listed == "cam3/0001/0001.jpg"


def test_lists_as_other_systems_write_them(small: Path):
    """Blanks, a comma at the end, a byte order mark, line ends of Windows and any order of the
    identities change nothing."""
    before = any_rows(small)
    (small / "exp" / "train_id.txt").write_bytes("\ufeff10, 1,\r\n\r\n".encode())
    assert any_rows(small) == before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the published numbers of pictures and identities."""
    root = tmp_path_factory.mktemp("data") / "SYSU-MM01"
    splits = {"train": range(1, 297), "val": range(297, 396), "test": range(400, 496)}
    numbers = {
        # Of the test pictures, those of each camera are published too.
        "train": {1: 5071, 2: 5071, 4: 5071, 5: 5071, 3: 4964, 6: 4965},
        "val": {1: 494, 2: 493, 4: 494, 5: 493, 3: 990, 6: 990},
        "test": {1: 1374, 2: 1565, 4: 1918, 5: 1918, 3: 1883, 6: 1920},
    }
    folders: dict[str, list[str]] = {}
    for split, pids in splits.items():
        for camera, count in numbers[split].items():
            for number in range(count):
                folder = f"cam{camera}/{pids[number % len(pids)]:04d}"
                folders.setdefault(folder, []).append(f"{number // len(pids) + 1:04d}.jpg")
    write(root, folders)
    return put(root, *splits.values())


def test_the_published_data_set_is_what_is_declared(whole: Path, monkeypatch: pytest.MonkeyPatch):
    """Identities, cameras, modalities, columns and counts are those that the reader states; all
    queries of the protocol are there."""
    monkeypatch.setenv("REID_DATA", str(whole.parent))
    (check,) = [check for check in iter_checks("core") if "sysu_mm01: facts fit" in str(check)]
    check()
    facts = SYSUMM01().facts()
    assert (facts.identities, facts.counts["test"]) == (296, 6775 + 3803)
    found = plan(SYSUMM01(), whole, "train", "val")
    assert (found.identities, found.cameras, found.modalities) == (395, 6, ("visible", "infrared"))
    rows = found.loaded[0].rows
    assert Counter(row.modality for row in rows) == {"visible": 22258, "infrared": 11909}


def test_half_an_archive_is_refused(whole: Path):
    """A missing picture, and another number of people, are errors with place, found and expected;
    on request they are accepted."""
    gone, test = whole / "cam6" / "0400" / "0001.jpg", whole / "exp" / "test_id.txt"
    gone.unlink()
    text = test.read_text()
    test.write_text(text.replace("495", "494"))
    with pytest.raises(DataError) as caught:
        SYSUMM01().rows(whole)
    for part in (
        f"{whole} is not the whole of SYSU-MM01: exp/test_id.txt has 95 identities, expected 96; ",
        "split test has 3,763 infrared pictures, expected 3,803",
        'counts = "any"',
    ):
        assert part in str(caught.value)
    assert "train" not in str(caught.value)
    test.write_text(text)
    assert len(any_rows(whole)) == 22258 + 11909 + 6775 + 3802
    gone.touch()
    assert len(SYSUMM01().rows(whole)) == 22258 + 11909 + 6775 + 3803


def test_somebody_without_a_picture_is_told(small: Path):
    """Listed people of whom there is no picture in any camera are refused whatever counts are
    asked for: a list or a folder is not the archive's."""
    shutil.rmtree(small / "cam5" / "0010")
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value).startswith(
        f"1 of 2 identities in {small}/exp/train_id.txt have no picture in cam1 to cam6; first "
        "0010, whose folders would be cam1/0010 and so on. "
    )


def test_lists_share_nobody(small: Path):
    """An identity in two lists is refused with both."""
    (small / "exp" / "test_id.txt").write_text("6,10")
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert f"{small}/exp/test_id.txt lists identity 0010, which is in exp/train_id.txt too" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [("1,x,3", 1, "x"), ("1 2", 1, "1 2"), ("\n1,,2", 2, ""), ("-1", 1, "-1"), ("1;2", 1, "1;2")],
)
def test_a_strange_list_is_told(small: Path, text: str, line: int, found: str):
    """What is no identity in a list is refused with file and line."""
    (small / "exp" / "val_id.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        f"{small}/exp/val_id.txt line {line}: {found!r} is no identity; expected numbers with "
        "commas between them, such as 1,2,4"
    )


def test_a_damaged_list_is_told(small: Path):
    """A list without identities, or of arbitrary bytes, is refused by name."""
    (small / "exp" / "val_id.txt").write_text("\n")
    with pytest.raises(DataError, match=r"exp/val_id\.txt lists nobody"):
        any_rows(small)
    (small / "exp" / "val_id.txt").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r"exp/val_id\.txt line 1: .* is no identity"):
        any_rows(small)


def test_a_folder_too_deep_or_too_high_is_told(small: Path):
    """Where a folder next to root fits, the message names it."""
    for wrong in (small / "cam1", small.parent):
        with pytest.raises(DataError, match="is not SYSU-MM01: it has no folder cam1, c") as caught:
            any_rows(wrong)
        assert str(caught.value).endswith(f"{small} has all of them; set root to it")


def test_what_is_missing_is_told(small: Path):
    """A missing camera, a missing list, though its .mat twin is there, and a file in place of root
    are refused by name."""
    (small / "exp" / "val_id.txt").rename(small / "exp" / "val_id.mat")
    shutil.rmtree(small / "cam6")
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        f"{small} is not SYSU-MM01: it has no folder cam6 and no file exp/val_id.txt; root must "
        "hold cam1 to cam6 and exp/train_id.txt, exp/val_id.txt, exp/test_id.txt (their .mat twins "
        "are not read)"
    )
    archive = small.parent / "SYSU-MM01.zip"
    archive.touch()
    with pytest.raises(DataError, match=r"zip is no folder; extract the archive"):
        any_rows(archive)


def test_absent_data_are_assumed_as_published(tmp_path: Path):
    """Without the folder a check stands on the published figures of the splits in question."""
    found = plan(SYSUMM01(), tmp_path / "SYSU-MM01", "train", "val", allow_missing=True)
    assert (found.cameras, found.modalities) == (6, ("visible", "infrared"))
    assert found.train_columns == {"camera", "modality"}
    assert found.loaded[0].counts == {"train": 30213, "val": 3954}


def test_a_reader_writes_a_manifest(small: Path, capsys: pytest.CaptureFixture[str]):
    """`reid data index --read` lists what the reader finds, modalities included."""
    output = small / "sysu.csv"
    command = ["data", "index", str(small), "--read", "core.sysu_mm01", "-o", str(output)]
    assert main(command) == 4
    assert "exp/train_id.txt has 2 identities, expected 296" in capsys.readouterr().err
    assert main([*command, "--set", "counts=any"]) == 0
    assert [(r.path, r.pid, r.camera, r.split, r.modality) for r in read_manifest(output)] == [
        (r.path, r.pid, r.camera, r.split, r.modality) for r in any_rows(small)
    ]
