"""`reid tune` trains: searches in processes of their own that are killed, and what they find."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from running import TINY, environment, kill_when, reid

pytest.importorskip("reid_tune", reason="needs `uv run --all-groups`")
pytest.importorskip("optuna", reason="needs `uv run --all-groups`")

import optuna

from reidcore.builtin.readers.demo import Demo
from reidcore.cli.main import main
from reidcore.data.manifest import write_manifest

SEARCH = ["tiny.toml", "--set-range", "optim.lr=1e-4..1e-2:log", "--hold-out", "0.4"]


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    return environment(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The current folder with a run file and training pictures; there are no test pictures."""
    folder = tmp_path_factory.mktemp("tune")
    rows = Demo(train_identities=10, test_identities=2, pictures=8, cameras=2).rows(
        folder / "drawn"
    )
    write_manifest(folder / "people.csv", [row for row in rows if row.split == "train"])
    for split in ("query", "gallery"):
        shutil.rmtree(folder / "drawn" / split)
    text = TINY[: TINY.index("train = {")] + 'train = { manifest = "people.csv" }\n'
    text += 'test = { manifest = "absent.csv" }\n' + TINY[TINY.index("image =") :]
    (folder / "tiny.toml").write_text(text.replace("epochs = 6", "epochs = 3"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("REID_DATA", raising=False)
        yield folder


@pytest.fixture(scope="module")
def whole(work, env):
    """The trials of a search that nothing has disturbed, which wrote whole.toml."""
    reid(env, work, "tune", *SEARCH, "--trials", 3, "-o", "whole.toml")
    return table(work / "whole.csv")


def table(path):
    """The lines of a CSV file without their seconds."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_what_is_found_can_be_trained(work, env, whole):
    """It passes the check, and on the same identities it comes to the score of its trial."""
    assert main(["check", "whole.toml", "--no-dry", "--set", "data.test=[]"]) == 0
    data = [
        f'data.{role}={{manifest="{work}/whole.study/data-{name}.csv"}}'
        for role, name in (("train", "train"), ("test", "held-out"))
    ]
    sets = [word for one in data for word in ("--set", one)]
    reid(env, work, "run", "whole.toml", "--out", "again", *sets)
    (rankings,) = json.loads((work / "again" / "scores.json").read_text()).values()
    best = max(float(row["mAP"]) for row in whole if row["state"] == "finished")
    assert rankings["main"]["plain"]["mAP"] == best


def test_a_killed_search_goes_on(work, env, whole):
    """Killed inside a trial, it ends with the numbers of one that was not; finished trials are left
    alone, and the killed one goes on with its epochs."""
    study = work / "killed.study" / "tiny"
    command = ["tune", *SEARCH, "--trials", 3, "-o", "killed.toml"]
    kill_when(env, work, command, lambda _: (study / "001/run/means.csv").exists())
    finished = (study / "000/run/lock.json").stat().st_mtime_ns
    assert not (study / "002").exists() and not (work / "killed.toml").exists()
    said = reid(env, work, *command, "--resume").stdout
    assert "tiny 1, which goes on" in said and "tiny 0:" not in said
    assert table(work / "killed.csv") == whole
    assert (study / "000/run/lock.json").stat().st_mtime_ns == finished
    texts = [(work / f"{name}.toml").read_text() for name in ("whole", "killed")]
    one, other = (text.partition("format")[2].partition("[data]")[2] for text in texts)
    assert one == other


def test_two_trials_at_once(work, env, whole):
    """Each in a process of its own; the first draws and all scores are those of one at a time."""
    reid(env, work, "tune", *SEARCH, "--trials", 2, "--jobs", 2, "-o", "jobs.toml")
    assert table(work / "jobs.csv") == whole[:2]


@pytest.mark.slow
def test_processes_end_with_their_command(work, env):
    """Trials do not outlive a killed command, so that it can be resumed at once."""
    command = ["tune", *SEARCH, "--trials", 2, "--jobs", 2, "-o", "orphans.toml"]
    process = subprocess.Popen(
        [sys.executable, "-m", "reidcore", *map(str, command), "--set", "train.epochs=500"],
        env=env,
        cwd=work,
        stdout=subprocess.DEVNULL,
    )
    study = work / "orphans.study"
    try:
        while len(list(study.glob("tiny/*/run/means.csv"))) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        children = [int(one) for one in _children(process.pid)]
        assert len(children) == 2
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 10
    while any(_runs(one) for one in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_process_whose_command_ended_before_it_began(work, env, whole):
    """It ends as well, and its trial is not trained."""
    study = work / "late.study"
    shutil.copytree(work / "whole.study", study)
    shutil.rmtree(study / "tiny/000/run")
    ended = subprocess.Popen(["true"])
    ended.wait()
    command = [sys.executable, "-m", "reid_tune.worker", study, "tiny", "0", str(ended.pid)]
    assert subprocess.run(command, env=env, cwd=work, timeout=60).returncode == 1
    assert not (study / "tiny/000/run").exists()


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_another_command_in_the_same_study(work, whole, capsys):
    """Two commands never work in one study."""
    from reid_tune.study import held

    with held(work / "whole.study"):
        assert main(["tune", *SEARCH, "--trials", "5", "--resume", "-o", "whole.toml"]) == 2
    assert "another process is tuning in" in capsys.readouterr().err


def test_a_hopeless_trial_is_pruned(work, monkeypatch, capsys):
    """It stops after the epoch whose score was worse, and keeps no weights."""
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda trial: True)
    assert main(["tune", *SEARCH, "--trials", "1", "-o", "pruned.toml"]) == 1
    assert "no trial came to its end; pruned at mAP" in capsys.readouterr().err
    (row,) = table(work / "pruned.csv")
    assert (row["state"], row["epochs"]) == ("pruned", "1") and float(row["mAP"]) > 0
    run = work / "pruned.study" / "tiny" / "000" / "run"
    assert (run / "means.csv").exists() and not list(run.glob("*.safetensors"))


def test_a_trial_that_diverges_fails(work, capsys):
    options = ["--set-range", "optim.lr=1e20..1e25", "--trials", "1", "-o", "wild.toml"]
    assert main(["tune", "tiny.toml", "--hold-out", "0.4", *options]) == 1
    assert "failed: " in capsys.readouterr().err and not (work / "wild.toml").exists()
    (row,) = table(work / "wild.csv")
    assert row["state"] == "failed"
