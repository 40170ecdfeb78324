"""The reader of RegDB, on trees in the layout of the archive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from archives import plan, write

from reidcore.api import Row
from reidcore.builtin.readers.regdb import RegDB
from reidcore.cli.main import main
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError
from reidcore.testing import iter_checks
from tests.archives import regdb_lists

LINES = {
    "train_visible": [
        "Visible/285/male_back_v_05528_285.bmp 0",
        "Visible/117/male_front_v_01486_117.bmp 1",
    ],
    "train_thermal": [
        "Thermal/285/male_back_t_05529_285.bmp 0",
        "Thermal/117/male_front_t_01487_117.bmp 1",
    ],
    "test_visible": ["Visible/20/female_front_v_03666_20.bmp 0"],
    "test_thermal": ["Thermal/20/female_front_t_03667_20.bmp 0"],
}
OTHER = {
    "train_visible": LINES["test_visible"],
    "train_thermal": LINES["test_thermal"],
    "test_visible": ["Visible/285/male_back_v_05528_285.bmp 0"],
    "test_thermal": ["Thermal/285/male_back_t_05529_285.bmp 0"],
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folders: dict[str, list[str]] = {}
    for listed in LINES.values():
        for line in listed:
            folder, _, name = line.split()[0].rpartition("/")
            folders.setdefault(folder, []).append(name)
    root = write(tmp_path / "Visible" / "20" / "RegDB", folders)
    return regdb_lists(regdb_lists(root, 1, LINES), 10, OTHER)


def any_rows(root: Path, trial: int = 1) -> list[Row]:
    return RegDB(trial=trial, counts="any").rows(root)


def test_rows_say_what_the_lists_say(small: Path):
    """Identity, modality, split and path are those of the trial's lists; test identities are
    others than training identities of the same number; no camera is stated."""
    rows = any_rows(small)
    assert [(row.split, row.pid, row.modality, row.path) for row in rows] == [
        (split, pid, modality, f"{small}/{path}")
        for split, pid, modality, path in (
            ("train", "0", "visible", "Visible/285/male_back_v_05528_285.bmp"),
            ("train", "1", "visible", "Visible/117/male_front_v_01486_117.bmp"),
            ("train", "0", "infrared", "Thermal/285/male_back_t_05529_285.bmp"),
            ("train", "1", "infrared", "Thermal/117/male_front_t_01487_117.bmp"),
            ("test", "test0", "visible", "Visible/20/female_front_v_03666_20.bmp"),
            ("test", "test0", "infrared", "Thermal/20/female_front_t_03667_20.bmp"),
        )
    ]
    assert all(Path(row.path).is_file() and row.camera == "" for row in rows)
    assert [row.listed for row in rows[1:3]] == [
        "train_visible_1.txt line 2",
        "train_thermal_1.txt line 1",
    ]


def test_the_trial_chooses_the_lists(small: Path):
    """Another trial has other people in its splits; one without lists is told by their names."""
    assert [(row.split, Path(row.path).parent.name) for row in any_rows(small, 10)] == [
        ("train", "20"),
        ("train", "20"),
        ("test", "285"),
        ("test", "285"),
    ]
    with pytest.raises(DataError) as caught:
        any_rows(small, 2)
    assert str(caught.value).startswith(
        f"{small} is not RegDB: it has no file idx/train_visible_2.txt, idx/train_thermal_2.txt, "
        "idx/test_visible_2.txt, idx/test_thermal_2.txt; root must hold Visible, Thermal and idx/"
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the published people, pictures and lists, of the third trial."""
    folders: dict[str, list[str]] = {}
    lines: dict[str, list[str]] = {name: [] for name in LINES}
    for person in range(1, 413):
        split, label = ("train", "test")[person % 2], (person - 1) // 2
        for kind in ("Visible", "Thermal"):
            for number in range(10):
                name = f"male_back_{kind[0].lower()}_{person * 10 + number:05d}_{person}.bmp"
                folders.setdefault(f"{kind}/{person}", []).append(name)
                lines[f"{split}_{kind.lower()}"].append(f"{kind}/{person}/{name} {label}")
    return regdb_lists(write(tmp_path_factory.mktemp("data") / "RegDB", folders), 3, lines)


def test_the_published_data_set_is_what_is_declared(whole: Path, monkeypatch: pytest.MonkeyPatch):
    """Identities, modalities, columns and counts are those that the reader states."""
    regdb_lists(
        whole, 1, {name: (whole / f"idx/{name}_3.txt").read_text().split("\n") for name in LINES}
    )
    monkeypatch.setenv("REID_DATA", str(whole.parent))
    (check,) = [check for check in iter_checks("core") if "regdb: facts fit" in str(check)]
    check()
    facts = RegDB(trial=3).facts()
    assert (facts.identities, facts.counts) == (206, {"train": 4120, "test": 4120})
    found = plan(RegDB(trial=3), whole, "train", "test")
    assert (found.identities, found.cameras, found.modalities) == (412, 0, ("visible", "infrared"))


def test_other_lists_than_the_published_are_refused(whole: Path):
    """A list that is too short, has too few pictures of somebody, or people whom the other
    modality has not, is an error with list, found and expected; on request it is accepted."""
    file = whole / "idx" / "test_thermal_3.txt"
    text = file.read_text()
    file.write_text(text.partition("\n")[2])
    with pytest.raises(DataError) as caught:
        RegDB(trial=3).rows(whole)
    assert str(caught.value).startswith(
        f"{whole} is not the whole of RegDB: test_thermal_3.txt has 2,059 pictures, expected "
        "2,060; test_thermal_3.txt has 205 identities with 10 pictures, expected 206. "
    )
    assert len(any_rows(whole, 3)) == 2 * 4120 - 1
    file.write_text(text.replace(" 7\n", " 206\n"))
    with pytest.raises(DataError) as caught:
        RegDB(trial=3).rows(whole)
    assert (
        "RegDB: test_visible_3.txt with test_thermal_3.txt has 207 identities, expected 206. "
    ) in str(caught.value)
    file.write_text(text)
    assert len(RegDB(trial=3).rows(whole)) == 2 * 4120


def test_half_an_archive_is_refused(small: Path):
    """Listed pictures that are not there are counted, the first with list and line."""
    (small / "Thermal/117/male_front_t_01487_117.bmp").unlink()
    with pytest.raises(DataError) as caught:
        any_rows(small)
    assert str(caught.value) == (
        f"1 listed picture is not there; first {small}/Thermal/117/male_front_t_01487_117.bmp "
        "(train_thermal_1.txt line 2). Extract the archive again"
    )
    shutil.rmtree(small / "Visible" / "20")
    with pytest.raises(DataError, match=r"^2 listed pictures are not there"):
        any_rows(small)


def test_nobody_is_in_train_and_test(small: Path):
    """A person in both lists of a trial is refused with both lines; in other trials nothing
    follows from it."""
    regdb_lists(small, 10, {**OTHER, "test_thermal": LINES["test_thermal"]})
    with pytest.raises(DataError) as caught:
        any_rows(small, 10)
    assert str(caught.value).startswith(
        f"test_thermal_10.txt line 1 of {small}/idx: the person of folder 20 is in "
        "train_visible_10.txt line 1 too; "
    )
    assert any_rows(small)


def test_a_picture_has_one_line(small: Path):
    """A picture that a list has twice is refused, with both lines."""
    line = LINES["train_visible"][0]
    regdb_lists(small, 1, {**LINES, "train_visible": [*LINES["train_visible"], line]})
    with pytest.raises(
        DataError, match=r"train_visible_1.txt line 3 of .*_285.bmp is listed already in line 1$"
    ):
        any_rows(small)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("train_visible", "Thermal/285/male_back_t_05529_285.bmp 0"),  # of the other list
        ("train_thermal", "Visible/285/male_back_v_05528_285.bmp 0"),
        ("test_visible", "Visible/20/female_front_v_03666_20.bmp"),
        ("test_visible", "Visible/20/female_front_v_03666_20.jpg 0"),
        ("test_thermal", "20/female_front_t_03667_20.bmp 0"),
        ("test_thermal", "Thermal/../female_front_t_03667_20.bmp 0"),
        ("test_thermal", "Thermal/20/female_front_t_03667_20.bmp -1"),
    ],
)
def test_a_strange_line_is_told(small: Path, name: str, line: str):
    """A line that is no picture of the list's modality with its identity is refused with file and
    number."""
    regdb_lists(small, 1, {**LINES, name: [*LINES[name], "", line]})
    with pytest.raises(DataError) as caught:
        any_rows(small)
    example = {"visible": "Visible/285/male_back_v_", "thermal": "Thermal/285/male_back_t_"}
    assert str(caught.value) == (
        f"1 line of {small}/idx/{name}_1.txt not such as '{example[name.split('_')[1]]}"
        f"05528_285.bmp 0'; first line {len(LINES[name]) + 2}: {line!r}"
    )


def test_a_folder_too_deep_or_too_high_is_told(small: Path):
    """Where a folder next to root fits, the message names it."""
    for wrong in (small / "idx", small.parent):
        with pytest.raises(DataError, match="it has no folder Visible, Thermal and no f") as caught:
            any_rows(wrong)
        assert str(caught.value).endswith(f"{small} has all of them; set root to it")


def test_what_is_missing_is_told(small: Path):
    """A missing folder, an empty list, and a file in place of root are refused by name."""
    (small / "idx" / "test_visible_1.txt").write_text("")
    with pytest.raises(DataError, match=r"test_visible_1\.txt lists nothing"):
        any_rows(small)
    shutil.rmtree(small / "Thermal")
    with pytest.raises(DataError, match="it has no folder Thermal; root must hold Visible, Therm"):
        any_rows(small)
    archive = small.parent / "RegDB.zip"
    archive.touch()
    with pytest.raises(DataError, match=r"zip is no folder; extract the archive"):
        any_rows(archive)


def test_absent_data_are_assumed_as_published(tmp_path: Path):
    """Without the folder a check stands on the published figures."""
    found = plan(RegDB(), tmp_path / "RegDB", allow_missing=True)
    assert (found.identities, found.modalities) == (206, ("visible", "infrared"))
    assert found.train_columns == {"modality"}
    assert found.loaded[0].counts == {"train": 4120}


def test_a_reader_writes_a_manifest(small: Path, capsys: pytest.CaptureFixture[str]):
    """`reid data index --read` lists what the reader finds of a trial; there are ten."""
    output = small / "regdb.csv"
    command = ["data", "index", str(small), "--read", "core.regdb", "-o", str(output)]
    assert main([*command, "--set", "trial=11"]) == 2
    assert "trial" in capsys.readouterr().err
    command += ["--set", "trial=10"]
    assert main(command) == 4
    assert "train_visible_10.txt has 1 pictures, expected 2,060" in capsys.readouterr().err
    assert main([*command, "--set", "counts=any"]) == 0
    assert [(r.path, r.pid, r.split, r.modality) for r in read_manifest(output)] == [
        (r.path, r.pid, r.split, r.modality) for r in any_rows(small, 10)
    ]
