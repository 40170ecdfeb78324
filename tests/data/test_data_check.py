"""`reid data check` on real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_pictures import picture, reid

from reidcore.data.check import Counts, check_rows, unmatched_queries
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REID_DATA", raising=False)


def listed(folder: Path, *lines: str, header: str = "path,pid,camera,split") -> Path:
    path = folder / "own.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_sound_data_passes(tmp_path: Path) -> None:
    """A sound data set gives its counts and no finding."""
    for seed, name in enumerate("abcd"):
        picture(tmp_path / f"{name}.png", seed)
    rows = read_manifest(
        listed(
            tmp_path, "a.png,1,1,train", "b.png,1,2,train", "c.png,2,1,query", "d.png,2,2,gallery"
        )
    )
    report = check_rows(rows)
    assert list(report.counts.items()) == [
        ("train", Counts(2, 1, 2)),
        ("query", Counts(1, 1, 1)),
        ("gallery", Counts(1, 1, 1)),
    ]
    found = (report.damaged, report.unmatched, report.one_camera, report.duplicates, report.overlap)
    assert not any(found)
    assert not report.failed


def test_damaged_pictures_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of damage is found and printed with file and row, and the exit code is 4."""
    jpeg = picture(tmp_path / "good one.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(jpeg[: len(jpeg) * 2 // 3])
    png = picture(tmp_path / "good.png", 1).read_bytes()
    (tmp_path / "half.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "zero.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "folder.jpg").mkdir()
    bad = {
        "half.jpg": "cannot be decoded: ",
        "half.png": "cannot be decoded: ",
        "zero.jpg": "is empty (zero bytes)",
        "page.jpg": "is not a picture",
        "folder.jpg": "is a folder",
        "gone.jpg": "is missing",
        "sub\\gone.jpg": "is missing; paths are written with '/'",
    }
    names = ["good one.jpg", "good.png", *bad]
    path = listed(tmp_path, *(f"{name},1,1,train" for name in names))
    assert reid("check", path) == 4
    said = capsys.readouterr().out
    assert "error: 7 pictures missing or damaged" in said
    for row, (name, reason) in enumerate(bad.items(), start=4):
        assert f"own.csv row {row}: {tmp_path}/{name} {reason}" in said
    assert "good" not in said
    assert "no errors" not in said


def test_fast_looks_at_sizes_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--fast finds missing and empty pictures without opening any."""
    (tmp_path / "text.jpg").write_text("x")
    (tmp_path / "copy.jpg").write_text("x")
    path = listed(tmp_path, "text.jpg,1,1,train", "copy.jpg,2,2,train")
    assert reid("check", path, "--fast") == 0
    (tmp_path / "zero.jpg").write_bytes(b"")
    path = listed(tmp_path, "text.jpg,1,1,train", "zero.jpg,1,1,train", "gone.jpg,1,1,train")
    assert reid("check", path, "--fast") == 4
    said = capsys.readouterr().out
    assert "zero.jpg is empty" in said
    assert "gone.jpg is missing" in said


def test_picture_in_two_rows_is_reported_once(tmp_path: Path) -> None:
    """A missing picture that is query and gallery is one finding, at its first row."""
    rows = read_manifest(listed(tmp_path, "a.png,1,1,query", "a.png,1,1,gallery"))
    assert [found.row.listed for found in check_rows(rows).damaged] == ["own.csv row 2"]


@pytest.mark.parametrize(
    ("gallery", "reason"),
    [
        (["2.png,2,2,gallery"], "identity '1' is not in the gallery"),
        (["1b.png,1,2,train"], "identity '1' is not in the gallery"),
        (["1b.png,1,1,gallery"], "identity '1' is in the gallery only in its own camera '1'"),
        (["q.png,1,1,gallery"], "only with this same picture"),
        (["1b.png,1,2,gallery"], None),
        (["1b.png,1,1,gallery", "1c.png,1,,gallery"], None),
    ],
)
def test_query_without_a_match(tmp_path: Path, gallery: list[str], reason: str | None) -> None:
    """A query that nothing can match is reported with the reason."""
    rows = read_manifest(listed(tmp_path, "q.png,1,1,query", *gallery))
    found = unmatched_queries(rows)
    if reason is None:
        assert found == []
    else:
        (finding,) = found
        assert finding.row.listed == "own.csv row 2"
        assert reason in finding.reason


def test_query_without_camera(tmp_path: Path) -> None:
    """Without cameras any other picture of the identity is a match."""
    head = "path,pid,split"
    rows = read_manifest(listed(tmp_path, "q.png,1,query", "g.png,1,gallery", header=head))
    assert unmatched_queries(rows) == []
    assert check_rows(rows).one_camera == []
    rows = read_manifest(listed(tmp_path, "q.png,1,query", "q.png,1,gallery", header=head))
    assert len(unmatched_queries(rows)) == 1


def test_unmatched_query_fails_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A query that can never match makes the command exit with 4."""
    picture(tmp_path / "q.png")
    assert reid("check", listed(tmp_path, "q.png,1,1,query")) == 4
    said = capsys.readouterr().out
    assert (
        "error: 1 query without a match\n  own.csv row 2: identity '1' is not in the gallery"
        in said
    )


def test_warnings_do_not_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One camera, identical files, overlapping identities and unused columns only warn."""
    for seed, name in enumerate("abcdef"):
        picture(tmp_path / f"{name}.png", seed)
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    path = listed(
        tmp_path,
        "a.png,10,1,train,0",
        "b.png,10,1,train,0",
        "copy.png,9,1,train,0",
        "c.png,7,1,train,0",
        "d.png,7,2,gallery,0",
        header="path,pid,camera,split,tme",
    )
    assert reid("check", path) == 0
    said = capsys.readouterr().out
    assert "warning: 1 identity in both train and test\n  7\n" in said
    assert "warning: 2 identities seen by one camera only\n  9\n  10\n" in said
    assert "warning: 1 identical file under several identities" in said
    assert f"{tmp_path}/a.png (own.csv row 2, 10) = {tmp_path}/copy.png (own.csv row 4, 9)" in said
    assert "tme, did you mean 'time'?" in said
    assert "no errors" in said


def test_identical_files_of_one_identity_are_fine(tmp_path: Path) -> None:
    """Identical frames of one person are no contradiction."""
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    rows = read_manifest(listed(tmp_path, "a.png,1,1,train", "b.png,1,2,train"))
    assert check_rows(rows).duplicates == []


def test_long_lists_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten findings of a kind are printed, all of them with --all."""
    path = listed(tmp_path, *(f"{i}.png,{i},1,train" for i in range(14)))
    assert reid("check", path) == 4
    said = capsys.readouterr().out
    assert said.count("is missing") == 10
    assert "and 4 more (--all lists them)" in said
    reid("check", path, "--all")
    said = capsys.readouterr().out
    assert said.count("is missing") == 14
    assert "more" not in said


def test_result_does_not_depend_on_threads(tmp_path: Path) -> None:
    """One thread and many give the same report, and the progress counts every picture."""
    lines = []
    for i in range(300):
        name = f"{i}.png"
        (tmp_path / name).write_bytes(b"x" * (i % 3))
        lines.append(f"{name},{i},1,train")
    rows = read_manifest(listed(tmp_path, *lines))
    steps: list[int] = []
    report = check_rows(rows, threads=1, advance=steps.append)
    assert check_rows(rows, threads=8) == report
    assert [found.row for found in report.damaged] == rows
    assert sum(steps) == 300


def test_folder_without_manifest(tmp_path: Path) -> None:
    """A folder that was not indexed yet says how to do it."""
    (tmp_path / "my set").mkdir()
    with pytest.raises(DataError, match=r"reid data index '.*my set'"):
        reid("check", tmp_path / "my set")
    with pytest.raises(DataError, match=f"not found at {tmp_path}/gone.csv"):
        reid("check", tmp_path / "gone.csv")


def test_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """`reid data` alone is a usage error that names what is missing."""
    with pytest.raises(SystemExit) as caught:
        reid()
    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_shared_manifests_pass() -> None:
    """The project's real data sets have the counts that their description states."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no pictures at {folder}")
    counts = check_rows(read_manifest(folder / "ward.csv"), decode=False)
    assert counts.counts == {
        "train": Counts(2114, 30, 3),
        "query": Counts(60, 20, 3),
        "gallery": Counts(1192, 20, 3),
    }
    assert not counts.failed


def test_one_camera_says_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data of one camera name the key that makes them usable, as a run does; others do not."""
    for seed, name in enumerate("abcd"):
        picture(tmp_path / f"{name}.png", seed)
    one = listed(tmp_path, "a.png,1,1,query", "b.png,1,1,gallery", "c.png,2,1,query")
    assert reid("check", one) == 4
    assert 'set eval.same_camera = "keep"' in capsys.readouterr().out
    two = listed(
        tmp_path, "a.png,1,1,query", "b.png,1,1,gallery", "c.png,2,1,query", "d.png,2,2,gallery"
    )
    assert reid("check", two) == 4
    assert "same_camera" not in capsys.readouterr().out
