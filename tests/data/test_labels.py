"""Labels that are probably not what they seem are told by check, index and runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_pictures import picture, reid

from reidcore.cli.main import main
from reidcore.data.labels import is_junk, same_numbers
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["1", "2", "1.0"], [["1", "1.0"]]),
        (["01", "1", "3"], [["01", "1"]]),
        (["+1", "1e0", "1.", "10"], [["+1", "1.", "1e0"]]),
        (["-0", "0"], [["-0", "0"]]),
        (["c1", "c01", "c001"], [["c001", "c01", "c1"]]),
        (["a0", "a00"], [["a0", "a00"]]),
        (["1", "10", "100", "-1", "1.5", "c1", "c10", "c100", "a", "A", "x1y0", "x1y00"],
         [["x1y0", "x1y00"]]),
        (["9" * 400, "0" + "9" * 400], [["0" + "9" * 400, "9" * 400]]),
        (["9" * 40 + "1", "9" * 40 + "2"], []),
        (["1e999", "1e99999999", "nan", "inf", "٣", "3"], []),
        (["1", "\uff11", "\u200b1", "2"], [["1", "\uff11", "\u200b1"]]),
        (["gate\u00e9", "gatee\u0301", "gate"], [["gate\u00e9", "gatee\u0301"]]),
        (["gate 1", "gate\u00a01", "gate  1", "gate1"], [["gate 1", "gate\u00a01", "gate  1"]]),
    ],
)  # fmt: skip
def test_numbers_written_in_several_ways(names: list[str], found: list[list[str]]):
    """Groups hold what is equal as a number, whatever the way it is written."""
    assert [set(group) for group in same_numbers(names)] == [set(group) for group in found]


def test_junk_is_minus_one():
    """-1 in every way of writing it, and nothing else."""
    assert all(map(is_junk, ["-1", "-01", "-1.0"]))
    assert not any(map(is_junk, ["1", "-2", "x-1", "0", "0000", "nan"]))


def listed(folder: Path, text: str) -> Path:
    path = folder / "own.csv"
    path.write_text(text)
    for seed, line in enumerate(text.split()[1:]):
        if not (folder / line.split(",")[0]).exists():
            picture(folder / line.split(",")[0], seed)
    return path


ALIKE = """path,pid,camera,split
a.png,1,1,train
b.png,1,2,train
c.png,2,1,query
d.png,2,2.0,gallery
e.png,02,2,gallery
f.png,7,1,train
"""


def test_check_warns_of_equal_numbers(tmp_path: Path, capsys):
    """Cameras and identities that are equal as numbers are warnings of `data check`."""
    assert reid("check", listed(tmp_path, ALIKE)) == 0
    said = capsys.readouterr().out
    assert "warning: cameras written in several ways count as different: '2' = '2.0'" in said
    assert "warning: identities written in several ways count as different: '02' = '2'" in said


def test_check_tells_apart_what_looks_alike(tmp_path: Path, capsys):
    """Characters that cannot be told apart are shown by their codes."""
    text = ALIKE.replace("2.0", "\\u200b2")
    listed(tmp_path, text)
    (tmp_path / "own.csv").write_text(text.replace("\\u200b", "\u200b"))
    assert reid("check", tmp_path / "own.csv") == 0
    said = capsys.readouterr().out
    assert "cameras written in several ways count as different: '2' = '\\u200b2'" in said


RUN = """format = 1
name = "t"
[data]
train = { manifest = "own.csv" }
test = [{ manifest = "own.csv" }]
image = [32, 16]
batch = { use = "core.identities", ids = 2, per_id = 1 }
[backbone]
use = "core.resnet"
depth = 18
width = 0.0625
[[head]]
name = "neck"
use = "core.bnneck"
source = "backbone.layer4"
[[matcher]]
name = "look"
use = "core.cosine"
features = ["neck.bn"]
[[loss]]
name = "id"
use = "core.softmax"
features = ["neck.bn"]
[train]
epochs = 1
[optim]
kind = "adam"
lr = 1e-3
"""


@pytest.mark.parametrize("command", [("check", "run.toml"), ("run", "run.toml")])
def test_runs_note_doubtful_labels(command: tuple[str, ...], tmp_path: Path, monkeypatch, capsys):
    """A run says it before it trains, with the data set's name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_DATA", raising=False)
    listed(tmp_path, ALIKE + "g.png,-1,2,gallery\nh.png,02,1,query\n")
    (tmp_path / "run.toml").write_text(RUN)
    extra = ["--set", "train.epochs=0"] if command[0] == "run" else []
    assert main([*command, *extra]) == 0
    said = capsys.readouterr().out
    assert "[data] test 'own': cameras written in several ways" in said
    assert "[data] test 'own': identity '-1' is junk in Market-1501" in said


def test_index_leaves_out_junk_and_warns_of_distractors(tmp_path: Path, capsys):
    """-1 gets no row; 0000, which may be a person, is warned of, and so are equal numbers."""
    for pid in ("-1", "0000", "0001", "0002", "2"):
        for camera in (1, 2):
            (tmp_path / f"{pid}_c{camera}s1_000.jpg").touch()
    assert reid("index", tmp_path, "--pattern", "{pid}_c{camera}s*", "--split", "0") == 0
    said = capsys.readouterr().out
    assert "left out: 2 pictures of identity '-1'" in said
    assert "warning: identity '0000' stands for distractors" in said
    assert "warning: identities written in several ways count as different: '0002' = '2'" in said
    rows = read_manifest(tmp_path / "manifest.csv")
    assert {row.pid for row in rows} == {"0000", "0001", "0002", "2"}


def test_index_of_nothing_but_junk(tmp_path: Path):
    """Where nothing is left, that is said and no manifest is written."""
    (tmp_path / "-1_c1s1.jpg").touch()
    with pytest.raises(DataError, match="have the identity '-1'"):
        reid("index", tmp_path, "--pattern", "{pid}_*")
    assert not (tmp_path / "manifest.csv").exists()


def test_check_warns_of_junk(tmp_path: Path, capsys):
    """A manifest that has junk and distractors already is warned of."""
    text = "path,pid,split\na.png,-1,train\nb.png,0000,train\n"
    assert reid("check", listed(tmp_path, text)) == 0
    said = capsys.readouterr().out
    assert "warning: identity '-1' is junk" in said and "warning: identity '0000'" in said


@pytest.mark.parametrize(
    ("splits", "warned"),
    [
        (("query", "gallery"), True),
        (("test", "test"), True),
        (("train", "gallery"), False),
        (("gallery", "gallery"), False),
        (("query", "query"), False),
    ],
)
def test_copies_of_one_identity(splits: tuple[str, str], warned: bool, tmp_path: Path, capsys):
    """Equal files of one identity on both sides of a search are a warning."""
    text = "path,pid,split\na.png,1,{}\nb.png,1,{}\nc.png,1,query\nd.png,1,gallery\n"
    path = listed(tmp_path, text.format(*splits))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert reid("check", path) == 0
    said = capsys.readouterr().out
    assert ("warning: 1 identical file both as query and in the gallery" in said) == warned
    if warned:
        assert f"{tmp_path}/a.png (own.csv row 2, {splits[0]}) = {tmp_path}/b.png" in said


def test_one_file_on_both_sides_is_no_copy(tmp_path: Path, capsys):
    """A picture that is query and gallery is left out of its own list anyway."""
    text = "path,pid,split\na.png,1,query\na.png,1,gallery\nb.png,1,gallery\n"
    assert reid("check", listed(tmp_path, text)) == 0
    assert "identical" not in capsys.readouterr().out


LIFTED = (
    RUN
    + """
[[post]]
name = "tl"
use = "qaconv.tlift"
"""
)


@pytest.mark.parametrize("column", ["camera", "time"])
def test_rows_without_a_needed_column_are_named(column: str, tmp_path: Path, monkeypatch, capsys):
    """A column that some rows leave empty is not called absent: the rows are named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_DATA", raising=False)
    rows = [f"{name}.png,{pid},train,1,5" for name, pid in zip("abcd", "1122", strict=True)]
    rows += [f"q{n}.png,3,query,1,5" for n in range(3)]
    rows += [f"g{n}.png,3,gallery,{'1,' if column == 'time' else ',5'}" for n in range(5)]
    listed(tmp_path, "path,pid,split,camera,time\n" + "\n".join(rows) + "\n")
    (tmp_path / "run.toml").write_text(LIFTED)
    assert main(["check", "run.toml", "--set", 'eval.same_camera="keep"']) == 2
    said = capsys.readouterr()
    assert (
        f"needs the manifest column {column} in every row; 5 of 8 pictures of test 'own' have "
        "none: own.csv row 9, own.csv row 10, own.csv row 11 and 2 more" in said.out + said.err
    )


def test_a_run_notes_rows_without_a_camera(tmp_path: Path, monkeypatch, capsys):
    """A camera column that some rows leave empty is not called absent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_DATA", raising=False)
    listed(tmp_path, ALIKE.replace("e.png,02,2,", "e.png,2,,").replace("2.0", "2"))
    (tmp_path / "run.toml").write_text(RUN)
    assert main(["check", "run.toml"]) == 0
    said = capsys.readouterr().out
    assert "1 of 3 pictures of test 'own' has none: own.csv row 6; these are not dropped" in said
    assert "no camera column" not in said


def test_check_prints_names_of_any_kind(tmp_path: Path, capsys):
    """Names of thousands of characters, with line breaks and control characters, one on a line."""
    rows = ["path,pid,camera,split"]
    for seed, pid in enumerate(["9" * 5000, '"a\nb"', "\x1b[31mred"]):
        picture(tmp_path / f"{seed}.png", seed)
        rows.append(f"{seed}.png,{pid},1,query")
    (tmp_path / "own.csv").write_text("\n".join(rows) + "\n")
    assert reid("check", tmp_path / "own.csv") == 4
    said = capsys.readouterr().out
    assert "identity 'a\\nb' is not" in said.replace("\\\\", "\\") and "\x1b" not in said
    assert all(len(line) < 1000 for line in said.splitlines())
