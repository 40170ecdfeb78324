"""The reader of CUHK03-NP, on trees in the layouts of its archive and of prepared copies."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from archives import plan, write

from reidcore.api import Row
from reidcore.builtin.readers.cuhk03_np import CUHK03NP
from reidcore.cli.main import main
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError
from reidcore.testing import iter_checks

TRAIN = ["0001_c1_1.png", "0001_c2_6.png"]
QUERY = ["0003_c1_22.png", "0003_c2_27.png"]
GALLERY = ["0003_c1_21.png", "0003_c1_23.png", "0003_c2_28.png"]
TREE = {"bounding_box_train": TRAIN, "query": QUERY, "bounding_box_test": GALLERY}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """The official archive: both kinds of boxes, each with three folders."""
    root = tmp_path / "7_c1" / "cuhk03-np"
    for boxes in ("detected", "labeled"):
        write(root / boxes, TREE)
    (root / "labeled" / "bounding_box_train" / "0002_c1_11.png").touch()
    return root


def any_rows(root: Path, boxes: str = "detected") -> list[Row]:
    return CUHK03NP(boxes=boxes, counts="any").rows(root)


def test_rows_say_what_the_names_say(official: Path):
    """Identity, view, split and path of every picture of the boxes in question, by name; files
    that are no pictures do not count."""
    (official / "detected" / "query" / "Thumbs.db").touch()
    (official / "detected" / "query" / "._0003_c1_22.png").touch()
    rows = any_rows(official)
    assert [(row.pid, row.camera, row.split, row.path) for row in rows] == [
        (pid, camera, split, str(official / "detected" / folder / name))
        for pid, camera, split, folder, name in (
            ("0001", "1", "train", "bounding_box_train", "0001_c1_1.png"),
            ("0001", "2", "train", "bounding_box_train", "0001_c2_6.png"),
            ("0003", "1", "query", "query", "0003_c1_22.png"),
            ("0003", "2", "query", "query", "0003_c2_27.png"),
            ("0003", "1", "gallery", "bounding_box_test", "0003_c1_21.png"),
            ("0003", "1", "gallery", "bounding_box_test", "0003_c1_23.png"),
            ("0003", "2", "gallery", "bounding_box_test", "0003_c2_28.png"),
        )
    ]
    assert all(Path(row.path).is_file() for row in rows)
    assert rows[0].listed == "detected/bounding_box_train/0001_c1_1.png"
    assert len(any_rows(official, "labeled")) == len(rows) + 1


def test_root_may_be_the_boxes_themselves(official: Path, tmp_path: Path):
    """A folder with the three folders themselves gives the same pictures as the archive; one that
    has the other boxes by its name is refused, with the one that fits."""
    rows = any_rows(official / "labeled", "labeled")
    assert [row.path for row in rows] == [row.path for row in any_rows(official, "labeled")]
    assert rows[0].listed == "bounding_box_train/0001_c1_1.png"
    with pytest.raises(DataError) as caught:
        any_rows(official / "labeled", "detected")
    assert str(caught.value) == (
        f"{official}/labeled is not CUHK03-NP, detected: it has no folder detected, but is labeled "
        f"by its name. {official} has all of them; set root to it"
    )
    prepared = write(tmp_path / "prepared" / "cuhk03_np_detected", TREE)
    write(tmp_path / "prepared" / "cuhk03_np_labeled", TREE)
    assert len(any_rows(prepared)) == 7
    for boxes in ("detected", "labeled"):
        with pytest.raises(DataError, match=f"/cuhk03_np_{boxes} has all of them; set root to it"):
            any_rows(tmp_path / "prepared", boxes)


def names(pids: Sequence[int], count: int, start: int = 0) -> list[str]:
    """Pictures of people in turn, every person's first two in the two views."""
    found = []
    for number in range(count):
        pid, shot = pids[number % len(pids)], start + number // len(pids)
        found.append(f"{pid:04d}_c{shot % 2 + 1}_{shot + 1}.png")
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detected boxes in a tree with the published numbers of pictures and identities."""
    assert names([3], 1, 21) == ["0003_c2_22.png"]
    train, test = range(1, 768), range(768, 1468)
    folders = {
        "detected/bounding_box_train": names(train, 7365),
        "detected/query": names(test, 1400),
        "detected/bounding_box_test": names(test, 5332, 2),
    }
    return write(tmp_path_factory.mktemp("data") / "cuhk03-np", folders)


def test_the_published_data_set_is_what_is_declared(whole: Path, monkeypatch: pytest.MonkeyPatch):
    """Identities, cameras, columns and counts are those that the reader states."""
    monkeypatch.setenv("REID_DATA", str(whole.parent))
    (check,) = [check for check in iter_checks("core") if "cuhk03_np: facts fit" in str(check)]
    check()
    facts = CUHK03NP(boxes="labeled").facts()
    assert (facts.identities, facts.counts) == (
        767,
        {"train": 7368, "query": 1400, "gallery": 5328},
    )


def test_half_an_archive_is_refused(whole: Path):
    """A missing picture, and a person with two queries in a view, are errors with folder, found
    and expected; on request they are accepted."""
    gone, moved = whole / "detected/bounding_box_test/0768_c1_3.png", whole / "detected/query"
    gone.unlink()
    with pytest.raises(DataError) as caught:
        CUHK03NP(boxes="detected").rows(whole)
    assert (
        f"{whole}/detected is not the whole of CUHK03-NP: bounding_box_test has 5,331 pictures, "
        in (str(caught.value))
    )
    assert len(any_rows(whole)) == 7365 + 1400 + 5331
    gone.touch()
    (moved / "0768_c1_1.png").rename(moved / "0768_c2_1.png")
    with pytest.raises(
        DataError, match="query has 1,399 pairs of identity and camera, expected 1,4"
    ):
        CUHK03NP(boxes="detected").rows(whole)
    (moved / "0768_c2_1.png").rename(moved / "0768_c1_1.png")
    assert len(CUHK03NP(boxes="detected").rows(whole)) == 14097


def test_the_other_boxes_are_told(tmp_path: Path):
    """A folder with as many pictures as the other boxes have is refused with what to set."""
    train, test = range(1, 768), range(768, 1468)
    root = write(
        tmp_path / "cuhk03",
        {
            "bounding_box_train": names(train, 7368),
            "query": names(test, 1400),
            "bounding_box_test": names(test, 5328, 2),
        },
    )
    with pytest.raises(
        DataError, match='as many pictures as the labeled boxes have; set boxes = "l'
    ):
        CUHK03NP(boxes="detected").rows(root)
    assert len(CUHK03NP(boxes="labeled").rows(root)) == 14096


def test_a_folder_too_deep_or_too_high_is_told(official: Path):
    """Where a folder next to root fits, the message names it."""
    for wrong, right in (
        (official.parent, official),
        (official / "detected" / "query", official / "detected"),
    ):
        with pytest.raises(DataError, match="it has no folder bounding_box_train") as caught:
            any_rows(wrong)
        assert str(caught.value).endswith(f"{right} has all of them; set root to it")


def test_what_is_missing_is_told(official: Path):
    """A missing folder, one without pictures, and a file in place of root are refused by name."""
    query = official / "detected" / "query"
    for file in query.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"detected/query has no \.png pictures"):
        any_rows(official)
    query.rmdir()
    with pytest.raises(
        DataError, match=r"it has no folder detected/query; root must hold bounding"
    ):
        any_rows(official)
    shutil.rmtree(official / "detected")
    with pytest.raises(
        DataError, match=r"bounding_box_test, by themselves or in a folder detected$"
    ):
        any_rows(official, "detected")  # labeled is no substitute
    archive = official.parent / "cuhk03-np.zip"
    archive.touch()
    with pytest.raises(DataError, match=r"zip is no folder; extract the archive"):
        any_rows(archive)


@pytest.mark.parametrize(
    "name", ["1_001_1_01.png", "-1_c1_22.png", "0003_c3_22.png", "0003_c1.png", "0003_c1_22 2.png"]
)
def test_strange_names_are_told(official: Path, name: str):
    """Pictures whose names are not CUHK03-NP's, such as those exported from the raw archive, are
    refused with the first and a name that would fit."""
    (official / "detected" / "query" / name).touch()
    with pytest.raises(DataError) as caught:
        any_rows(official)
    assert str(caught.value) == (
        "1 picture has a name other than CUHK03-NP's, such as 0003_c1_22.png; "
        f"first {official / 'detected' / 'query' / name}"
    )
    assert any_rows(official, "labeled")


def test_absent_data_are_assumed_as_published(tmp_path: Path):
    """Without the folder a check stands on the published figures of the boxes in question."""
    found = plan(CUHK03NP(boxes="labeled"), tmp_path / "none", role="test", allow_missing=True)
    assert found.loaded[0].counts == {"query": 1400, "gallery": 5328}
    assert found.test_columns == {"camera"}


def test_a_reader_writes_a_manifest(official: Path, capsys: pytest.CaptureFixture[str]):
    """`reid data index --read` lists what the reader finds, once it knows of which boxes."""
    output = official / "cuhk.csv"
    command = ["data", "index", str(official), "--read", "core.cuhk03_np", "-o", str(output)]
    assert main(command) == 2
    assert "boxes" in capsys.readouterr().err
    command += ["--set", "boxes=labeled"]
    assert main(command) == 4
    assert "bounding_box_train has 3 pictures, expected 7,368" in capsys.readouterr().err
    assert main([*command, "--set", "counts=any"]) == 0
    assert [(r.path, r.pid, r.camera, r.split) for r in read_manifest(output)] == [
        (r.path, r.pid, r.camera, r.split) for r in any_rows(official, "labeled")
    ]
