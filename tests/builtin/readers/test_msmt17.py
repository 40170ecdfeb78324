"""The reader of MSMT17, on trees in the layout of the archives of both versions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from archives import plan, write

from reidcore.api import Row
from reidcore.builtin.readers.msmt17 import MSMT17
from reidcore.cli.main import main
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError
from reidcore.testing import iter_checks

FOLDERS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
LINES = {
    "train": [
        "0000/0000_000_01_0303morning_0008_0.jpg 0",
        "0000/0000_045_12_0303morning_0006_2.jpg 0",
        "0952/0952_003_01_0114afternoon_0398_0_ex.jpg 952",
    ],
    "val": ["0000/0000_032_09_0303morning_0029_0.jpg 0"],
    "query": ["0000/0000_000_01_0303morning_0015_0.jpg 0"],
    "gallery": [
        "0000/0000_031_15_0303morning_0033_1.jpg 0",
        "0003/0003_019_05_0303morning_0040_0.jpg 3",
    ],
}


def put(root: Path, version: str, lines: Mapping[str, list[str]] = LINES) -> Path:
    """The archive of a version: its lists, and the pictures that they name."""
    train, test = FOLDERS[version]
    folders: dict[str, list[str]] = {}
    for split, listed in lines.items():
        for line in listed:
            inner, name = line.split()[0].split("/")
            above = train if split in ("train", "val") else test
            folders.setdefault(f"{above}/{inner}", []).append(name)
    write(root, folders)
    for split, listed in lines.items():
        (root / f"list_{split}.txt").write_text("".join(f"{line}\n" for line in listed))
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    # Digits and underscores above the pictures must not be taken for theirs.
    return put(tmp_path / "7_c1_03_9" / "MSMT17_V1", "V1")


def any_rows(root: Path) -> list[Row]:
    return MSMT17(counts="any").rows(root)


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_rows_say_what_the_lists_say(tmp_path: Path, version: str):
    """Identity, camera, split and path are those of the lists, in their order; test identities
    are others than training identities of the same number; pictures that no list names are left
    out."""
    root = put(tmp_path / "7_c1_03_9" / f"MSMT17_{version}", version)
    train, test = FOLDERS[version]
    (root / train / "0000" / "0000_099_02_0303noon_0001_0.jpg").touch()
    rows = any_rows(root)
    assert [(row.pid, row.camera, row.split, row.path) for row in rows] == [
        (pid, camera, split, f"{root}/{path}")
        for pid, camera, split, path in (
            ("0", "1", "train", f"{train}/0000/0000_000_01_0303morning_0008_0.jpg"),
            ("0", "12", "train", f"{train}/0000/0000_045_12_0303morning_0006_2.jpg"),
            ("952", "1", "train", f"{train}/0952/0952_003_01_0114afternoon_0398_0_ex.jpg"),
            ("0", "9", "val", f"{train}/0000/0000_032_09_0303morning_0029_0.jpg"),
            ("test0", "1", "query", f"{test}/0000/0000_000_01_0303morning_0015_0.jpg"),
            ("test0", "15", "gallery", f"{test}/0000/0000_031_15_0303morning_0033_1.jpg"),
            ("test3", "5", "gallery", f"{test}/0003/0003_019_05_0303morning_0040_0.jpg"),
        )
    ]
    assert all(Path(row.path).is_file() and row.time is None for row in rows)
    assert [row.listed for row in rows[1:4]] == [
        "list_train.txt line 2",
        "list_train.txt line 3",
        "list_val.txt line 1",
    ]


def test_lists_as_other_systems_write_them(small: Path):
    """Line ends of Windows, a byte order mark and empty lines change nothing but line numbers."""
    before = any_rows(small)
    text = "\ufeff" + "\r\n\r\n".join(LINES["train"]) + "\r\n\r\n"
    (small / "list_train.txt").write_bytes(text.encode())
    after = any_rows(small)
    assert [(row.pid, row.path) for row in after] == [(row.pid, row.path) for row in before]
    assert after[2].listed == "list_train.txt line 5"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the published lengths of lists and numbers of identities.

    All people share one folder of pictures: 126,441 files would take half a minute to make.
    """
    root = tmp_path_factory.mktemp("data") / "MSMT17_V1"
    shots = [f"0000_{n:03d}_{n % 15 + 1:02d}_0303morning_{n:04d}_0.jpg" for n in range(40)]
    assert shots[8] == "0000_008_09_0303morning_0008_0.jpg"
    write(root, {"train": [], "test": [], "shots": shots})
    for folder, people in (("train", 1041), ("test", 3060)):
        for pid in range(people):
            (root / folder / f"{pid:04d}").symlink_to("../shots")
    for split, people, start, count in (
        ("train", 1041, 0, 30248),
        ("val", 1041, 30248, 2373),
        ("query", 3060, 0, 11659),
        ("gallery", 3060, 11659, 82161),
    ):
        lines = [
            f"{number % people:04d}/{shots[number // people]} {number % people}\n"
            for number in range(start, start + count)
        ]
        (root / f"list_{split}.txt").write_text("".join(lines))
    return root


def test_the_published_data_set_is_what_is_declared(whole: Path, monkeypatch: pytest.MonkeyPatch):
    """Identities, cameras, columns and counts are those that the reader states."""
    monkeypatch.setenv("REID_DATA", str(whole.parent))
    (check,) = [check for check in iter_checks("core") if "msmt17: facts fit" in str(check)]
    check()
    assert MSMT17().facts().identities == 1041
    assert dict(MSMT17(counts="any").facts().counts) == {}


def test_training_can_take_everything(whole: Path):
    """All splits hold the published numbers of pictures and identities, training and validation
    lists together those that the literature trains on."""
    found = plan(MSMT17(), whole, "train", "val", "query", "gallery")
    rows = found.loaded[0].rows
    assert (len(rows), found.identities, found.cameras) == (126441, 4101, 15)
    assert found.train_columns == {"camera"}
    usual = [row.pid for row in rows if row.split in ("train", "val")]
    assert (len(usual), len(set(usual))) == (32621, 1041)


def test_other_lists_than_the_published_are_refused(whole: Path):
    """A shorter list, and a person missing from one or new in one, are errors with list, found and
    expected; on request they are accepted."""
    texts = {file: file.read_text() for file in whole.glob("list_*.txt")}
    query, val = whole / "list_query.txt", whole / "list_val.txt"
    query.write_text(texts[query].replace("_0.jpg 3059\n", "_0.jpg 3058\n"))
    val.write_text(texts[val].replace(" 7\n", " 1041\n").partition("\n")[2])
    try:
        with pytest.raises(DataError) as caught:
            MSMT17().rows(whole)
        assert len(any_rows(whole)) == 126440
        for file in texts:
            file.write_text(texts[file].replace(" 7\n", " 8\n") if file != val else texts[val])
        with pytest.raises(DataError) as uneven:
            MSMT17().rows(whole)
    finally:
        for file, text in texts.items():
            file.write_text(text)
    for part in (
        f"{whole} is not the whole of MSMT17",
        "list_val.txt has 2,372 pictures, expected 2,373",
        "list_train.txt with list_val.txt has 1,042 identities, expected 1,041",
        "list_query.txt has 3,059 identities, expected 3,060",
        'counts = "any"',
    ):
        assert part in str(caught.value)
    assert "gallery" not in str(caught.value)
    assert str(uneven.value).startswith(
        f"{whole} is not the whole of MSMT17: list_train.txt has 1,040 identities, expected 1,041; "
        "list_query.txt has 3,059 identities, expected 3,060; list_gallery.txt has 3,059 "
        "identities, expected 3,060; list_query.txt with list_gallery.txt has 3,059 identities, "
        "expected 3,060. Extract"
    )


def test_half_an_archive_is_refused(small: Path):
    """Pictures that a list names and that are not there are counted, the first with list and line,
    whatever counts are asked for."""
    (small / "test" / "0003" / "0003_019_05_0303morning_0040_0.jpg").unlink()
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        f"1 listed picture is not there; first {small}/test/0003/"
        "0003_019_05_0303morning_0040_0.jpg (list_gallery.txt line 2). Extract the archive again; "
        "its lists and pictures must be of one version"
    )
    shutil.rmtree(small / "train" / "0952")
    shutil.rmtree(small / "train" / "0000")
    (small / "train" / "0000").touch()
    with pytest.raises(DataError, match=r"^5 listed pictures are not .*\(list_train.txt line 1\)"):
        any_rows(small)


def test_versions_do_not_mix(small: Path):
    """Both versions in one folder, and halves of both, are refused with what to do."""
    for folder in ("mask_train_v2", "mask_test_v2"):
        (small / folder).mkdir()
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert f"holds both versions of MSMT17, {small}/train and {small}/mask_train_v2" in str(
        caught.value
    )
    shutil.rmtree(small / "test")
    (small / "mask_train_v2").rmdir()
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        f"{small} is not MSMT17: it has no folder test; root must hold list_train.txt, "
        "list_val.txt, list_query.txt, list_gallery.txt, and the folders train, test (V1) or "
        "mask_train_v2, mask_test_v2 (V2)"
    )
    shutil.rmtree(small / "train")
    with pytest.raises(DataError, match="it has no folder mask_train_v2; root"):
        any_rows(small)


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_a_folder_too_deep_or_too_high_is_told(tmp_path: Path, version: str):
    """Where a folder next to root fits, the message names it."""
    root = put(tmp_path / "msmt17" / f"MSMT17_{version}", version)
    for wrong in (*(root / folder for folder in FOLDERS[version]), root.parent):
        with pytest.raises(DataError, match=r"it has no folder train, test and no file list_") as c:
            any_rows(wrong)
        assert str(c.value).endswith(f"{root} has all of them; set root to it")


def test_what_is_missing_is_told(small: Path):
    """A list that is missing or empty, and a file in place of root, are refused by name."""
    (small / "list_val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"list_val\.txt lists nothing"):
        any_rows(small)
    (small / "list_val.txt").unlink()
    with pytest.raises(DataError, match=r"it has no file list_val\.txt; root must hold list_tr"):
        any_rows(small)
    archive = small.parent / "MSMT17_V1.tar.gz"
    archive.touch()
    with pytest.raises(DataError, match=r"gz is no folder; extract the archive"):
        any_rows(archive)


@pytest.mark.parametrize(
    "line",
    [
        "0000/0000_000_01_0303morning_0008_0.jpg",  # no identity
        "0000/0000_000_01_0303morning_0008_0.jpg -1",
        "0000/0000_000_01_0303morning_0008_0.jpg 0 1",
        "0000/0000_000_01_0303morning_0008_0.jpg,0",
        "0000/0000_000_16_0303morning_0008_0.jpg 0",  # there are cameras 1 to 15
        "0000/0000_000_00_0303morning_0008_0.jpg 0",
        "0002_c1s1_000451_03.jpg 2",  # Market-1501's
        "0000/0000_000_01_0303morning_0008_0.jpg\0 0",
        "<html>404</html>",
    ],
)
def test_a_strange_line_is_told(small: Path, line: str):
    """A line that is no picture of MSMT17 with its identity is refused with file and number."""
    file = small / "list_query.txt"
    with file.open("a") as appended:
        appended.write(f"\n{line}\n")
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        f"1 line of {file} not such as '0000/0000_000_01_0303morning_0008_0.jpg 0'; first line 3: "
        f"{line!r}"
    )


def test_a_damaged_list_is_told(small: Path):
    """A list of arbitrary bytes is refused, and shown in part only."""
    (small / "list_train.txt").write_bytes(bytes(range(128, 256)) * 9)
    with pytest.raises(DataError, match=r"1 line of .*list_train\.txt not such") as caught:
        any_rows(small)
    assert len(str(caught.value)) < 400 + len(str(small))


def test_a_picture_has_one_line_and_one_identity(small: Path):
    """A picture that a list has twice, or that has another identity in another list, is refused;
    one in two lists with one identity is taken for both."""
    first = LINES["train"][0]
    (small / "list_val.txt").write_text(f"{first}\n")
    assert [row.split for row in any_rows(small) if row.path.endswith("_0008_0.jpg")] == [
        "train",
        "val",
    ]
    (small / "list_val.txt").write_text(f"{first}0\n".replace(" 00", " 10"))
    with pytest.raises(
        DataError, match=r"list_val.txt line 1 of .*has identity 10, but 0 in list_train.txt line 1"
    ):
        any_rows(small)
    (small / "list_val.txt").write_text(f"{LINES['val'][0]}\n")
    (small / "list_train.txt").write_text("\n".join([*LINES["train"], first]))
    with pytest.raises(DataError, match=r"train.txt line 4 of .*0008_0.jpg is listed already in l"):
        any_rows(small)


def test_splits_choose_pictures(small: Path):
    """Training takes list_train alone unless more is named; a test takes query and gallery."""
    assert plan(MSMT17(counts="any"), small).loaded[0].counts == {"train": 3}
    assert plan(MSMT17(counts="any"), small, "train", "val").loaded[0].counts == {
        "train": 3,
        "val": 1,
    }
    test = plan(MSMT17(counts="any"), small, role="test")
    assert test.loaded[0].counts == {"query": 1, "gallery": 2}


def test_absent_data_are_assumed_as_published(tmp_path: Path):
    """Without the folder a check stands on the published figures of the splits in question; a run
    is refused with the path that was tried."""
    root = tmp_path / "MSMT17_V1"
    found = plan(MSMT17(), root, "train", "val", allow_missing=True)
    assert found.identities == 1041 and found.cameras == 15
    assert found.train_columns == {"camera"}
    assert found.loaded[0].counts == {"train": 30248, "val": 2373}
    with pytest.raises(DataError, match=r"data not found at .*MSMT17_V1"):
        plan(MSMT17(), root)


def test_a_reader_writes_a_manifest(small: Path, capsys: pytest.CaptureFixture[str]):
    """`reid data index --read` lists what the reader finds, and nothing where lists are too short
    for the published data set."""
    output = small / "msmt17.csv"
    command = ["data", "index", str(small), "--read", "core.msmt17", "-o", str(output)]
    assert main(command) == 4
    assert "list_train.txt has 3 pictures, expected 30,248" in capsys.readouterr().err
    assert not output.exists()
    assert main([*command, "--set", "counts=any"]) == 0
    assert [(r.path, r.pid, r.camera, r.split) for r in read_manifest(output)] == [
        (r.path, r.pid, r.camera, r.split) for r in any_rows(small)
    ]
