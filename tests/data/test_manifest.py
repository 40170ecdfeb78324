"""Reading, writing and numbering manifests."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from reidcore.api import Row
from reidcore.contracts.rows import (
    camera_numbers,
    columns,
    label_names,
    modality_names,
    natural_key,
)
from reidcore.data.manifest import (
    find_data,
    manifest_hash,
    read_manifest,
    unused_columns,
    write_manifest,
)
from reidcore.errors import DataError, OutputError


def manifest(folder: Path, text: str | bytes, name: str = "own.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_all_columns_are_read(tmp_path: Path) -> None:
    """Every column is read in any order, paths become absolute, other columns are ignored."""
    path = manifest(
        tmp_path,
        "time,note,split,modality,path,camera,pid\n"
        "12.5,x,query,infrared,a/1.jpg,c2,0007\n"
        ",,gallery,,b.jpg,,car_1\n",
    )
    assert read_manifest(path) == [
        Row(f"{tmp_path}/a/1.jpg", "0007", "c2", "query", 12.5, "infrared", "own.csv row 2"),
        Row(f"{tmp_path}/b.jpg", "car_1", "", "gallery", None, "", "own.csv row 3"),
    ]


def test_optional_columns_may_be_absent(tmp_path: Path) -> None:
    """A manifest of path, pid and split alone is complete."""
    path = manifest(tmp_path, "path,pid,split\na.jpg,1,train\n")
    assert read_manifest(path) == [
        Row(f"{tmp_path}/a.jpg", "1", "", "train", listed="own.csv row 2")
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark(tmp_path: Path, end: str, mark: bytes) -> None:
    """Files of Windows, old Macs and Excel give the same rows and row numbers."""
    text = end.join(["path,pid,split", "a.jpg,1,train", "", "b.jpg,2,val"])
    rows = read_manifest(manifest(tmp_path, mark + text.encode()))
    assert [(row.pid, row.split, row.listed) for row in rows] == [
        ("1", "train", "own.csv row 2"),
        ("2", "val", "own.csv row 4"),
    ]


def test_names_are_kept_as_they_are(tmp_path: Path) -> None:
    """Blanks, commas, quotes, line breaks and other alphabets in names survive a round trip."""
    names = ["a b.jpg", "köln/猫 1.jpg", 'x,"y".jpg', "line\nbreak.jpg", " lead.jpg", "é.jpg"]
    names += ["carriage\rreturn.jpg", "both\r\n.jpg"]
    rows = [Row(str(tmp_path / name), f"пид {i}", "Tür, 1") for i, name in enumerate(names)]
    write_manifest(tmp_path / "m.csv", rows)
    back = read_manifest(tmp_path / "m.csv")
    assert [attrs.evolve(row, listed="") for row in back] == rows
    # The row behind the one that takes two lines.
    assert back[4].listed == "m.csv row 7"
    write_manifest(tmp_path / "index.csv", rows, for_index=True)
    stored = read_manifest(tmp_path / "index.csv", labelled=False)
    assert [row.path for row in stored] == [row.path for row in rows]


def test_blanks_around_cells_do_not_make_other_identities(tmp_path: Path) -> None:
    """Cells behind a comma and a blank are the same pid, camera and split."""
    path = manifest(tmp_path, "path, pid, camera, split\na.jpg, 3, 1, train\nb.jpg,3,1,train\n")
    first, second = read_manifest(path)
    assert (first.pid, first.camera, first.split) == (second.pid, second.camera, second.split)


def test_missing_file_names_the_place_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that is not there is reported by its absolute path."""
    monkeypatch.chdir(tmp_path)
    assert refusal(Path("sub/own.csv")) == f"manifest not found at {tmp_path}/sub/own.csv"
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "\n \n", b"\xef\xbb\xbf"])
def test_empty_file(tmp_path: Path, text: str | bytes) -> None:
    """An empty manifest is refused with the header that would fit."""
    assert "is empty; expected the header path,pid,camera,split" in refusal(
        manifest(tmp_path, text)
    )


def test_header_without_rows(tmp_path: Path) -> None:
    """A header alone is refused, as no run could use it."""
    assert "lists no pictures" in refusal(manifest(tmp_path, "path,pid,split\n"))


def test_missing_columns_are_listed(tmp_path: Path) -> None:
    """All missing columns are named, with what was found and the likely misspelling."""
    text = refusal(manifest(tmp_path, "Path,pid,splt\na.jpg,1,train\n"))
    assert "own.csv lacks path, split" in text
    assert "header has: Path, pid, splt" in text
    assert "'Path', did you mean 'path'?" in text
    assert "'splt', did you mean 'split'?" in text


def test_semicolons_are_named(tmp_path: Path) -> None:
    """A spreadsheet's semicolons are recognised as the cause of the missing columns."""
    text = refusal(manifest(tmp_path, "path;pid;split\na.jpg;1;train\n"))
    assert "separated by ';', expected commas" in text


def test_column_given_twice(tmp_path: Path) -> None:
    """Two columns of one name are refused, as either could be meant."""
    assert "column pid more than once" in refusal(
        manifest(tmp_path, "path,pid,pid,split\na.jpg,1,2,train\n")
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.jpg,1,2,quary,", "split 'quary', did you mean 'query'?"),
        ("a.jpg,1,2,Train,", "split 'Train', did you mean 'train'?"),
        ("a.jpg,1,2,,", "split '', expected one of train, val, query, gallery, test"),
        ("a.jpg,1,2,train,noon", "time 'noon', expected seconds"),
        ("a.jpg,1,2,train,nan", "time 'nan', expected seconds"),
        ("a.jpg,1,2,train,inf", "time 'inf', expected seconds"),
        ("a.jpg,1,2,train,-1e308", "time '-1e308', expected seconds"),
        (",1,2,train,", "path is empty"),
        ("a.jpg, ,2,train,", "pid is empty"),
        ("a.jpg,1", "2 cells, expected 5"),
        ("a,b.jpg,1,2,train,3", "6 cells, expected 5; quote a cell that has a comma"),
        ('"a.jpg,1,2,train,', "unexpected end of data"),
    ],
)
def test_faulty_cells(tmp_path: Path, line: str, expected: str) -> None:
    """A faulty cell is reported with file, row, column, what was found and what would fit."""
    path = manifest(tmp_path, f"path,pid,camera,split,time\nok.jpg,1,1,train,0\n{line}\n")
    text = refusal(path)
    assert str(path) in text
    assert "own.csv row 3: " + expected in text


def test_problems_are_reported_at_once(tmp_path: Path) -> None:
    """Ten problems are listed, the others are counted."""
    lines = "".join(f"{i}.jpg,1,nowhere\n" for i in range(13))
    text = refusal(manifest(tmp_path, "path,pid,split\n" + lines))
    assert "has 13 problems" in text
    assert text.count("'nowhere'") == 10
    assert "row 11:" in text
    assert "row 12:" not in text
    assert text.endswith("and 3 more")


def test_picture_with_two_identities(tmp_path: Path) -> None:
    """One picture cannot show two identities, however its path is written."""
    text = refusal(manifest(tmp_path, "path,pid,split\na.jpg,1,query\n./b/../a.jpg,2,gallery\n"))
    assert "row 3: path './b/../a.jpg' has pid '2', but pid '1' in row 2" in text


def test_picture_twice_in_one_split(tmp_path: Path) -> None:
    """A picture may stand in query and in gallery, but not twice in one of them."""
    text = "path,pid,split\na.jpg,1,query\na.jpg,1,gallery\n"
    assert len(read_manifest(manifest(tmp_path, text))) == 2
    assert "row 4: path 'a.jpg' is listed twice in split 'query', first in row 2" in refusal(
        manifest(tmp_path, text + "a.jpg,1,query\n")
    )


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """Damaged and differently encoded files are refused with the row."""
    head = "path,pid,split\r\na.jpg,1,train\r\n"
    latin = head.encode() + "kö.jpg,1,train".encode("latin-1")
    assert "own.csv row 3 has the byte 0xf6" in refusal(manifest(tmp_path, latin))
    assert "own.csv row 3 has the byte 0xf6" in refusal(manifest(tmp_path, b"\xef\xbb\xbf" + latin))
    assert "own.csv row 3 has a NUL byte" in refusal(manifest(tmp_path, head + "b.jpg,\0,train"))
    assert "is UTF-16" in refusal(manifest(tmp_path, head.encode("utf-16")))


def test_parent_folder_behind_a_link(tmp_path: Path) -> None:
    """ ".." in a path is the parent of the manifest's real folder, on reading and on writing."""
    real = tmp_path / "disk" / "set"
    real.mkdir(parents=True)
    picture = tmp_path / "disk" / "a.jpg"
    picture.write_bytes(b"x")
    link = tmp_path / "link"
    link.symlink_to(real)
    write_manifest(link / "m.csv", [Row(str(picture), "1")])
    assert "../a.jpg" in (link / "m.csv").read_text()
    (row,) = read_manifest(link / "m.csv")
    assert Path(row.path).read_bytes() == b"x"


def test_unused_columns_are_named(tmp_path: Path) -> None:
    """A misspelt optional column is ignored, but can be told."""
    path = manifest(tmp_path, "path,pid,split,Camara,weather\na.jpg,1,train,2,rain\n")
    assert unused_columns(path) == ["Camara, did you mean 'camera'?", "weather"]


def test_written_columns(tmp_path: Path) -> None:
    """Only columns that some row fills are written, whole times without a decimal point."""
    path = tmp_path / "m.csv"
    write_manifest(path, [Row(str(tmp_path / "sub" / "a.jpg"), "1")])
    assert path.read_bytes() == b"path,pid,split\nsub/a.jpg,1,train\n"
    rows = [Row(str(tmp_path / "a.jpg"), "1", time=0.1), Row(str(tmp_path / "b.jpg"), "1", time=3)]
    write_manifest(path, rows)
    assert path.read_bytes() == b"path,pid,split,time\na.jpg,1,train,0.1\nb.jpg,1,train,3\n"


def test_failed_write_keeps_the_old_manifest(tmp_path: Path) -> None:
    """A manifest that cannot be written leaves the old one and no other file behind."""
    path = tmp_path / "m.csv"
    write_manifest(path, [Row(str(tmp_path / "a.jpg"), "1")])
    old = path.read_bytes()
    with pytest.raises(DataError, match="not Unicode"):
        write_manifest(path, [Row(str(tmp_path / "b.jpg"), "2"), Row("/x/\udce9.jpg", "1")])
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["m.csv"]
    with pytest.raises(OutputError, match=r"cannot write .*nowhere"):
        write_manifest(tmp_path / "nowhere" / "m.csv", [])


def test_readers_see_the_old_manifest_or_the_new(tmp_path: Path) -> None:
    """Who has the old manifest open while it is replaced still reads it whole."""
    path = tmp_path / "m.csv"
    write_manifest(path, [Row(str(tmp_path / "a.jpg"), "1")])
    with path.open() as reader:
        write_manifest(path, [Row(str(tmp_path / "b.jpg"), "2")])
        assert reader.read() == "path,pid,split\na.jpg,1,train\n"
    assert "b.jpg" in path.read_text()


def test_written_manifest_has_the_usual_mode(tmp_path: Path) -> None:
    """A manifest is readable for whom the umask lets read, unlike temporary files."""
    (tmp_path / "plain").write_text("")
    write_manifest(tmp_path / "m.csv", [Row(str(tmp_path / "a.jpg"), "1")])
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "m.csv")]
    assert modes[0] == modes[1]


def test_hash_follows_the_content_only(tmp_path: Path) -> None:
    """The hash is that of a moved copy, and another one after any change or reordering."""
    text = "path,pid,camera,split,time\nx/a.jpg,1,1,train,2\nx/b.jpg,2,2,train,3\n"
    (tmp_path / "one").mkdir()
    rows = read_manifest(manifest(tmp_path / "one", text))
    shutil.copytree(tmp_path / "one", tmp_path / "deep" / "two")
    moved = read_manifest(tmp_path / "deep" / "two" / "own.csv")
    assert moved != rows
    assert manifest_hash(moved) == manifest_hash(rows)
    first, second = rows
    changes: list[dict[str, Any]] = [
        {"path": first.path.replace("a.jpg", "c.jpg")},
        {"pid": "3"},
        {"camera": "2"},
        {"split": "val"},
        {"time": None},
        {"modality": "visible"},
    ]
    others = [[attrs.evolve(first, **change), second] for change in changes]
    hashes = {manifest_hash(other) for other in [rows, rows[::-1], rows[:1], [], *others]}
    assert len(hashes) == 4 + len(changes)


def test_natural_order() -> None:
    """Numbers within names sort by value, and equal values still in one fixed order."""
    names = ["car_10", "car_2", "10", "9", "a", "02", "2", "car_2b", ""]
    expected = ["", "02", "2", "9", "10", "a", "car_2", "car_2b", "car_10"]
    assert sorted(names, key=natural_key) == expected
    assert sorted(names[::-1], key=natural_key) == expected
    long = ["x" + "9" * 5000, "x1" + "0" * 5000, "x02" + "0" * 5000]
    assert sorted(long[::-1], key=natural_key) == long


def test_label_names() -> None:
    """Each identity stands once, in natural order, as text."""
    assert label_names([Row("a", pid) for pid in ("10", "2", "10", "-1", "02")]) == [
        "02",
        "2",
        "10",
        "-1",
    ]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["3", "1", "1"], {"1": 1, "3": 3}),
        (["0", ""], {"": -1, "0": 0}),
        (["gate 10", "gate 2"], {"gate 2": 0, "gate 10": 1}),
        (["3", "1", "roof", ""], {"": -1, "1": 0, "3": 1, "roof": 2}),
        (["-1", "5"], {"5": 0, "-1": 1}),
        (["20240131120000", "5"], {"5": 0, "20240131120000": 1}),
        (["3000000000", "5"], {"5": 0, "3000000000": 1}),
        (["²", "5"], {"5": 0, "²": 1}),
        ([""], {"": -1}),
        ([], {}),
    ],
)
def test_camera_numbers(names: list[str], numbers: dict[str, int]) -> None:
    """Cameras that are all numbers keep them; otherwise they count from 0 in natural order."""
    rows = [Row("a", "1", name) for name in names]
    assert camera_numbers(rows) == numbers
    assert camera_numbers(rows[::-1]) == numbers


def test_modality_names() -> None:
    """Visible comes first and infrared second, whichever rows come first."""

    def of(*names: str) -> tuple[str, ...]:
        return modality_names([Row("a", "1", modality=name) for name in names])

    assert of("infrared", "visible", "") == ("visible", "infrared")
    assert of("thermal", "sketch", "infrared") == ("infrared", "sketch", "thermal")
    assert of("", "") == ("visible",)


def test_columns_are_those_every_row_fills() -> None:
    """One empty cell takes a column away; a time of zero is a time."""
    full = Row("a", "1", "c", "train", 0.0, "visible")
    assert columns([full, full]) == {"camera", "time", "modality"}
    assert columns([full, Row("b", "1", "c", "train", None, "")]) == {"camera"}
    assert columns([]) == frozenset()


def test_find_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative names lie under the variable's folder, else under the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_DATA", "/sets")
    monkeypatch.delenv("REID_WEIGHTS", raising=False)
    assert find_data("ward/own.csv") == Path("/sets/ward/own.csv")
    assert find_data("/else/own.csv") == Path("/else/own.csv")
    assert find_data("r50.pth", "REID_WEIGHTS") == tmp_path / "r50.pth"
    monkeypatch.setenv("REID_DATA", "")
    assert find_data("ward") == tmp_path / "ward"


def test_import_is_light() -> None:
    """Manifests and the data command are imported without torch, numpy, Pillow and rich."""
    code = (
        "import sys, reidcore.data.manifest, reidcore.cli.data, reidcore.data.index, "
        "reidcore.data.check\n"
        "print([n for n in ('torch', 'numpy', 'PIL', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("cell", "box"),
    [
        ("1 2 30 40", (1, 2, 30, 40)),
        ('"1,2,30,40"', (1, 2, 30, 40)),
        ('"[1.4, 2.5, 29.5, 40]"', (1, 3, 30, 40)),
        ("(-5; 2; 30; 40)", (-5, 2, 30, 40)),
        ("", None),
    ],
)
def test_boxes_are_read(cell: str, box: tuple[int, ...] | None, tmp_path: Path) -> None:
    """Boxes are read as detectors write them, and rounded to pixels."""
    path = tmp_path / "own.csv"
    path.write_text(f"path,pid,split,box\na.png,1,train,{cell}\n")
    (row,) = read_manifest(path)
    assert row.box == box
    write_manifest(tmp_path / "again.csv", [row])
    assert read_manifest(tmp_path / "again.csv")[0].box == box
    assert ("box" in (tmp_path / "again.csv").read_text()) == (box is not None)
    assert not unused_columns(path)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("1 2 30", "expected four numbers of pixels: left, top, right and bottom"),
        ("1 2 30 x", "expected four numbers"),
        ("1 2 nan 4", "expected four numbers"),
        ("1 2 inf 4", "expected four numbers"),
        ("9" * 5000 + " 2 3 4", "expected four numbers"),
        ("10 20 10 40", "is empty: expected left, top, right and bottom in pixels"),
        ("100 200 30 40", "is empty"),
        ("1 1 1.2 9", "is empty"),
    ],
)
def test_wrong_boxes_are_told(cell: str, said: str, tmp_path: Path) -> None:
    """A box that is none, or holds nothing, is a problem of its row."""
    path = tmp_path / "own.csv"
    path.write_text(f"path,pid,split,box\na.png,1,train,{cell}\n")
    with pytest.raises(DataError, match=rf"own\.csv row 2: .*box .*{said}") as error:
        read_manifest(path)
    assert len(str(error.value)) < 1000


def test_one_frame_has_many_boxes(tmp_path: Path) -> None:
    """Boxes of a frame may be of several identities; one box may not."""
    path = tmp_path / "own.csv"
    head = "path,pid,split,box\na.png,1,train,0 0 9 9\na.png,2,train,9 0 18 9\n"
    path.write_text(head)
    rows = read_manifest(path)
    assert [row.name for row in rows] == [
        f"{tmp_path}/a.png[0 0 9 9]", f"{tmp_path}/a.png[9 0 18 9]",
    ]  # fmt: skip
    plain = [attrs.evolve(row, box=None) for row in rows]
    assert manifest_hash(rows) != manifest_hash(plain)
    path.write_text(head + "a.png,3,train,0 0 9 9\n")
    with pytest.raises(DataError, match="with the box 0 0 9 9 has pid '3', but pid '1' in row 2"):
        read_manifest(path)
    path.write_text(head + "a.png,1,train,0 0 9 9\n")
    with pytest.raises(DataError, match="is listed twice in split 'train', first in row 2"):
        read_manifest(path)
