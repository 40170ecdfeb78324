"""The reader of VeRi-776, on trees in the layout of the archive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from archives import plan, write

from reidcore.api import Row
from reidcore.builtin.readers.veri776 import VeRi776
from reidcore.cli.main import main
from reidcore.data.check import unmatched_queries
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError
from reidcore.testing import iter_checks

TRAIN = ["0001_c001_00016450_0.jpg", "0001_c020_00016550_1.jpg"]
QUERY = ["0002_c002_00030600_0.jpg"]
GALLERY = ["0002_c002_00030600_0.jpg", "0002_c011_00078830_0.jpg", "0042_c004_00087105_0.jpg"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    # Digits and "_c" above the pictures must not be taken for theirs.
    folders = {"image_train": TRAIN, "image_query": QUERY, "image_test": GALLERY}
    root = write(tmp_path / "7_c019" / "VeRi", folders)
    for file in ("name_train.txt", "name_query.txt", "name_test.txt", "gt_index.txt"):
        (root / file).touch()
    return root


def any_rows(root: Path) -> list[Row]:
    return VeRi776(counts="any").rows(root)


def test_rows_say_what_the_names_say(small: Path):
    """Identity, camera, split and path of every picture, by name; files that are no pictures do
    not count."""
    (small / "image_query" / "Thumbs.db").touch()
    (small / "image_query" / "._0002_c002_00030600_0.jpg").touch()
    rows = any_rows(small)
    assert [(row.pid, row.camera, row.split, Path(row.path).name) for row in rows] == [
        ("0001", "1", "train", "0001_c001_00016450_0.jpg"),
        ("0001", "20", "train", "0001_c020_00016550_1.jpg"),
        ("0002", "2", "query", "0002_c002_00030600_0.jpg"),
        ("0002", "2", "gallery", "0002_c002_00030600_0.jpg"),
        ("0002", "11", "gallery", "0002_c011_00078830_0.jpg"),
        ("0042", "4", "gallery", "0042_c004_00087105_0.jpg"),
    ]
    assert all(Path(row.path).is_absolute() and Path(row.path).is_file() for row in rows)
    assert rows[3].listed == "image_test/0002_c002_00030600_0.jpg"
    assert {row.time for row in rows} == {None}


def test_a_query_does_not_match_its_own_copy(small: Path):
    """The copy of a query in the gallery has the query's camera, so that the usual rule drops it:
    with no other camera there is no match."""
    assert not unmatched_queries(any_rows(small))
    (small / "image_test" / "0002_c011_00078830_0.jpg").unlink()
    (found,) = unmatched_queries(any_rows(small))
    assert "only in its own camera '2'" in found.reason


def names(pids: Sequence[int], count: int) -> list[str]:
    return [
        f"{pids[number % len(pids)]:04d}_c{number % 20 + 1:03d}_{16450 + number:08d}_0.jpg"
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the published numbers of pictures and identities."""
    assert names([1], 1) == ["0001_c001_00016450_0.jpg"]
    train, test = range(1, 577), range(577, 777)
    folders = {
        "image_train": names(train, 37778),
        "image_query": names(test, 1678),
        "image_test": names(test, 11579),
    }
    return write(tmp_path_factory.mktemp("data") / "VeRi", folders)


def test_the_published_data_set_is_what_is_declared(whole: Path, monkeypatch: pytest.MonkeyPatch):
    """Identities, cameras, columns and counts are those that the reader states."""
    monkeypatch.setenv("REID_DATA", str(whole.parent))
    (check,) = [check for check in iter_checks("core") if "veri776: facts fit" in str(check)]
    check()
    assert VeRi776().facts().identities == 576
    found = plan(VeRi776(), whole, role="test")
    assert found.loaded[0].counts == {"query": 1678, "gallery": 11579}


def test_half_an_archive_is_refused(whole: Path):
    """A missing picture, and a gallery without the queries' pictures, are errors that tell both
    numbers or the first; on request they are accepted."""
    first = whole / "image_test" / "0577_c001_00016450_0.jpg"
    first.unlink()
    with pytest.raises(DataError) as caught:
        VeRi776().rows(whole)
    assert str(caught.value).startswith(
        f"{whole} is not the whole of VeRi-776: image_test has 11,578 pictures, expected 11,579. "
    )
    other = first.with_name("0577_c001_99999999_0.jpg")
    other.touch()
    with pytest.raises(DataError) as caught:
        VeRi776().rows(whole)
    assert str(caught.value).startswith(
        f"1 picture of {whole}/image_query not in image_test, which holds all of them as "
        f"published; first {first.name}. "
    )
    assert len(any_rows(whole)) == 37778 + 1678 + 11579
    other.rename(first)
    assert len(VeRi776().rows(whole)) == 37778 + 1678 + 11579


def test_a_folder_too_deep_or_too_high_is_told(small: Path):
    """Where a folder next to root fits, the message names it."""
    for wrong in (small / "image_test", small.parent):
        with pytest.raises(
            DataError, match="is not VeRi-776: it has no folder image_tra"
        ) as caught:
            any_rows(wrong)
        assert str(caught.value).endswith(f"{small} has all of them; set root to it")


def test_what_is_missing_is_told(small: Path):
    """A folder without pictures, a missing one, and a file in place of root are refused by name."""
    (small / "image_query" / QUERY[0]).unlink()
    with pytest.raises(DataError, match=r"image_query has no \.jpg pictures"):
        any_rows(small)
    (small / "image_query").rmdir()
    with pytest.raises(DataError, match="it has no folder image_query; root must hold image_train"):
        any_rows(small)
    archive = small.parent / "VeRi.zip"
    archive.touch()
    with pytest.raises(DataError, match=r"zip is no folder; extract the archive"):
        any_rows(archive)


@pytest.mark.parametrize(
    "name",
    [
        "0002_c1s1_000451_03.jpg",
        "-1_c001_00016450_0.jpg",
        "0001_c000_00016450_0.jpg",
        "0001_c021_00016450_0.jpg",
        "0001_c01_00016450_0.jpg",
    ],
)
def test_strange_names_are_told(small: Path, name: str):
    """Pictures whose names are not VeRi-776's, or of a camera it has not, are refused."""
    (small / "image_test" / name).touch()
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        "1 picture has a name other than VeRi-776's, such as 0001_c001_00016450_0.jpg; "
        f"first {small / 'image_test' / name}"
    )


def test_absent_data_are_assumed_as_published(tmp_path: Path):
    """Without the folder a check stands on the published figures."""
    found = plan(VeRi776(), tmp_path / "VeRi", allow_missing=True)
    assert found.identities == 576 and found.cameras == 20
    assert found.train_columns == {"camera"}
    assert found.loaded[0].counts == {"train": 37778}


def test_a_reader_writes_a_manifest(small: Path, capsys: pytest.CaptureFixture[str]):
    """`reid data index --read` lists what the reader finds."""
    output = small / "veri.csv"
    command = ["data", "index", str(small), "--read", "core.veri776", "-o", str(output)]
    assert main(command) == 4
    assert "image_train has 2 pictures, expected 37,778" in capsys.readouterr().err
    assert main([*command, "--set", "counts=any"]) == 0
    assert [(r.path, r.pid, r.camera, r.split) for r in read_manifest(output)] == [
        (r.path, r.pid, r.camera, r.split) for r in any_rows(small)
    ]
