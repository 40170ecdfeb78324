"""Runs whose evaluation fails are trained all the same, and go on from there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from running import TINY, environment, shared

from reidcore.cli.main import main

ENTRY = TINY[TINY.index("test = [") : TINY.index("image =")]
OTHER = '[{ manifest = "people/manifest.csv", name = "other" }]'


def command(*arguments: object, code: int = 0) -> None:
    assert main([str(argument) for argument in arguments]) == code


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a run of two epochs, `good`, and one whose last evaluation failed, `failed`."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.delenv("REID_DATA", raising=False)
        command("data", "demo", "people", *_sets("train_identities=4", "pictures=8", "cameras=2"))
        text = TINY.replace("epochs = 6", "epochs = 2").replace("every = 1", "every = 0")
        Path("good.toml").write_text(text)
        command("run", "good.toml", "--out", "good")
        shutil.copytree("people", "broken")
        for picture in Path("broken").rglob("*.jpg"):
            picture.write_bytes(b"no picture")
        for picture in Path("broken").rglob("*.png"):
            picture.write_bytes(b"no picture")
        broken = 'test = [{ manifest = "broken/manifest.csv" }]\n'
        Path("bad.toml").write_text(text.replace(ENTRY, broken))
        command("run", "bad.toml", "--out", "failed", code=4)
        yield folder


def _sets(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


@pytest.fixture
def failed(work, tmp_path):
    """A copy of the run whose evaluation failed."""
    return Path(shutil.copytree(work / "failed", tmp_path / "failed"))


def test_the_weights_are_those_of_the_whole_run(work, failed):
    """The procedure has come to its end, and nothing of the training differs."""
    name = "weights.safetensors"
    assert (failed / name).read_bytes() == (work / "good" / name).read_bytes()
    assert not json.loads((failed / "lock.json").read_text())["finished"]


def test_the_error_says_how_to_go_on(work, failed, capsys):
    """Resumed as it was, the run fails as before, with what can be done."""
    command("run", "bad.toml", "--out", failed, "--resume", code=4)
    message = capsys.readouterr().err
    assert "cannot be read" in message and "the training is complete" in message
    assert str(failed) in message and "--resume" in message and "reid eval" in message


def test_weights_are_kept_where_one_of_several_processes_fails(work, tmp_path, capsys):
    """One picture is broken, so one process fails and ends the other; the run goes on from there,
    and by another number of processes."""
    shutil.copytree("people", tmp_path / "one")
    manifest = tmp_path / "one" / "manifest.csv"
    gallery = next(line for line in manifest.read_text().splitlines() if "gallery" in line)
    (tmp_path / "one" / gallery.split(",")[0]).write_bytes(b"no picture")
    (tmp_path / "x.toml").write_text(Path("bad.toml").read_text().replace("broken/", "one/"))
    shutil.copytree("people", tmp_path / "people")
    change = ["--set", "train.epochs=1", "--out", "run", "--no-dry"]
    env = environment(work / "cache")
    done = shared(env, tmp_path, 2, "-m", "reidcore", "run", "x.toml", *change, code=4)
    assert "the training is complete" in done.stderr and "cannot be read" in done.stderr
    folder = tmp_path / "run"
    assert (folder / "weights.safetensors").exists()
    command("eval", folder, *_sets(f"data.test={OTHER}"), "-o", tmp_path / "scores.json")
    other = ["--set", f"data.test={OTHER}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        command("run", "x.toml", *change, "--resume", *other)
    assert json.loads((folder / "lock.json").read_text())["finished"]
    assert (folder / "scores.json").read_text() == (tmp_path / "scores.json").read_text()


def test_it_is_evaluated_ranked_and_reported(work, failed, capsys):
    """With the test set of the whole run, its scores come out."""
    pictures = sorted(Path("people").rglob("*.*g"))[:3]
    command("eval", failed, *_sets(f"data.test={OTHER}"), "-o", failed / "other.json")
    command("eval", "good", *_sets(f"data.test={OTHER}"), "-o", failed / "good.json")
    assert (failed / "other.json").read_text() == (failed / "good.json").read_text()
    command("rank", failed, "--query", pictures[0], "--gallery", "people")
    command("explain", failed, "--query", pictures[0], "--gallery", "people", "-o", failed / "why")
    command("report", failed, "-o", failed / "report.html")


def test_it_resumes_with_another_test_set(work, failed):
    """The run ends as one that had that test set from the start, and other settings are refused."""
    change = _sets(f"data.test={OTHER}")
    command("run", "bad.toml", "--out", failed, "--resume", *change, "--set", "optim.lr=1", code=2)
    command("run", "bad.toml", "--out", failed, "--resume", *change, "--set", "eval.ties=grouped")
    record = json.loads((failed / "lock.json").read_text())
    assert record["finished"] and record["resolved"]["eval"]["ties"] == "grouped"
    assert list(json.loads((failed / "scores.json").read_text())) == ["other"]
    assert not (failed / "resume.safetensors").exists()
    command("eval", failed, "-o", failed / "again.json")
    assert (failed / "again.json").read_text() == (failed / "scores.json").read_text()


def test_another_test_set_keeps_the_numbers_of_cameras(work, failed):
    """The network was trained by them; new cameras get further ones, as in `reid eval`."""

    def numbers() -> dict[str, int]:
        return json.loads((failed / "lock.json").read_text())["training"]["camera_numbers"]

    before = numbers()
    text = (work / "people" / "manifest.csv").read_text().splitlines()
    column = text[0].split(",").index("camera")
    lines = [text[0]]
    for line in text[1:]:
        cells = line.split(",")
        cells[column] = {"1": "gate", "2": "1"}.get(cells[column], cells[column])
        lines.append(",".join(cells))
    (work / "people" / "named.csv").write_text("\n".join(lines) + "\n")
    change = _sets('data.test=[{ manifest = "people/named.csv" }]')
    command("run", "bad.toml", "--out", failed, "--resume", *change)
    after = numbers()
    assert {name: after[name] for name in before} == before
    assert "gate" in after and len(set(after.values())) == len(after)


def test_a_run_that_is_not_trained_keeps_its_test_set(work, tmp_path, capsys, monkeypatch):
    """A failure before the last epoch stops a run, and its test set stays what it was."""
    every = _sets("eval.every=1")
    command("run", "bad.toml", "--out", tmp_path / "early", *every, code=4)
    assert "the training is complete" not in capsys.readouterr().err
    change = [*every, *_sets(f"data.test={OTHER}")]
    command("run", "bad.toml", "--out", tmp_path / "early", "--resume", *change, code=2)
    assert "data.test was" in capsys.readouterr().err


@pytest.mark.skipif(not os.supports_bytes_environ, reason="file names are Unicode here")
def test_a_folder_whose_name_is_not_unicode(work, tmp_path):
    """A run of its pictures ends as any other, and its queries can be compared."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(work / "people", folder)
    change = _sets('data.test=[{ manifest = "manifest.csv", name = "other" }]', "train.epochs=0")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("odd", "again"):
            command("run", work / "bad.toml", "--out", tmp_path / name, *change)
        command("compare", tmp_path / "odd", tmp_path / "again", "--paired")
    assert "caf\\udce9" in (tmp_path / "odd" / "queries.csv").read_text()
