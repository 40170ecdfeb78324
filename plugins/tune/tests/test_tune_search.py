"""The search of `reid tune` with a stand-in for training, whose scores follow from the rate."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
import tomllib
from pathlib import Path

import pytest
from running import TINY

pytest.importorskip("reid_tune", reason="needs `uv run --all-groups`")
pytest.importorskip("optuna", reason="needs `uv run --all-groups`")

import reid_tune.trial
from reidcore.api import Row, how_to_install
from reidcore.cli.main import main
from reidcore.data.manifest import read_manifest, write_manifest
from reidcore.errors import DataError, ReidError
from reidcore.tools import write_json

EPOCHS = 4
LR = "optim.lr=1e-5..1e-1:log"
COLUMNS = "epoch,seconds"


class StandIn:
    """Trains in no time. calls: (trial's folder, first epoch) of every training. stop: what it
    raises, by (trial's folder, epoch), once."""

    def __init__(self):
        self.calls, self.stop = [], {}
        self.diverges_above = math.inf

    def __call__(self, file, folder, resume, check, reporter):
        table = tomllib.loads(Path(file).read_text())
        rate, epochs = table["optim"]["lr"], table["train"]["epochs"]
        assert resume == folder.is_dir()
        folder.mkdir(exist_ok=True)
        (folder / "resume.safetensors").write_text("weights")
        scored = folder / "scores-by-epoch.json"
        found = json.loads(scored.read_text()) if scored.exists() else []
        place = "/".join(folder.parts[-3:-1])
        self.calls.append((place, len(found)))
        for epoch in range(len(found), epochs):
            if (place, epoch) in self.stop:
                raise self.stop.pop((place, epoch))
            reporter.epoch_started(epoch, epochs, 0)
            if rate > self.diverges_above:
                raise ReidError("the loss became nan in epoch 1;\nlower optim.lr")
            value = (0.9 - 0.2 * abs(math.log10(rate) + 3)) * (epoch + 1) / epochs
            scores = {"mAP": value, "mINP": 1 - value, "rank-1": 0.5}
            stages = {"plain": {**scores, "mAP": 0.0}, "rerank": scores}
            found.append({"epoch": epoch + 1, "scores": {"held": {"main": stages}}})
            write_json(scored, found)
            rows = "\n".join(f"{n + 1},1.5" for n in range(epoch + 1))
            (folder / "means.csv").write_text(f"{COLUMNS}\n{rows}\n")
        return found[-1]["scores"]


@pytest.fixture
def stand_in(monkeypatch):
    made = StandIn()
    monkeypatch.setattr(reid_tune.trial, "train", made)
    return made


def pictures(name="", identities=8):
    """Rows of pictures that do not exist: nobody opens them."""
    return [
        Row(str(Path(f"p/{name}{pid}_{camera}_{number}.jpg").absolute()), str(pid), str(camera))
        for pid in range(identities)
        for camera in range(2)
        for number in range(2)
    ]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current folder with run files on a manifest; their test sets do not exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_DATA", raising=False)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing is killed here
    write_manifest(tmp_path / "people.csv", [_train(row) for row in pictures()])
    text = TINY[: TINY.index("train = {")] + 'train = { manifest = "people.csv" }\n'
    text += 'test = { manifest = "absent.csv" }\n' + TINY[TINY.index("image =") :]
    text = text.replace("epochs = 6", f"epochs = {EPOCHS}").replace("ids = 4", "ids = 2")
    (tmp_path / "tiny.toml").write_text(text)
    (tmp_path / "wide.toml").write_text(text.replace('"tiny"', '"wide"').replace("0.125", "0.25"))
    return tmp_path


def _train(row):
    return Row(row.path, row.pid, row.camera, "train")


def tune(*arguments, code=0):
    assert main(["tune", *map(str, arguments)]) == code


def table(path):
    """The lines of a CSV file without their seconds."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_the_best_trial_is_found(work, stand_in, capsys):
    """What is written has the settings of the best trial, whose last stage and epoch decide; bad
    trials are pruned, and the first trial has the file's own settings."""
    tune("tiny.toml", "--trials", 12, "--set-range", LR, "-o", "found.toml")
    rows = table("found.csv")
    assert [row["trial"] for row in rows] == [str(number) for number in range(12)]
    assert rows[0]["optim.lr"] == "0.001"
    finished = [row for row in rows if row["state"] == "finished"]
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert len(finished) + len(pruned) == 12 and pruned
    assert all(row["epochs"] == str(EPOCHS) for row in finished)
    assert all(1 <= int(row["epochs"]) < EPOCHS for row in pruned)
    assert all(int(row["trial"]) >= 5 for row in pruned)
    medians = sorted(float(row["mAP"]) for row in finished)
    assert float(rows[0]["mAP"]) == medians[-1] == pytest.approx(0.9)
    found = tomllib.loads(Path("found.toml").read_text())
    assert found["optim"]["lr"] == 1e-3 and found["name"] == "found"
    assert found["data"]["test"] == {"manifest": "absent.csv"}  # as it was, and never read
    header = Path("found.toml").read_text().split("format")[0]
    for words in ("Trial 0 of 12", "mAP 90.00", "No test set was read", "--trials 12", LR[9:]):
        assert words in header
    assert "2 of 8 training identities are held out" in header
    printed = capsys.readouterr().out
    assert "*90.0" in printed and "the file's own" in printed and "no test set is read" in printed
    assert not list(work.glob("found.study/**/*.safetensors"))


def test_the_trials_as_json(work, stand_in, capsys):
    """What is printed is JSON alone and says what the table of all trials does, settings with their
    types; a file of which no trial came to its end has no best one."""
    ranges = ("--set-range", LR, "--set-range", "optim.kind=adam,sgd")
    tune("tiny.toml", "--trials", 8, *ranges, "--json")
    printed = capsys.readouterr()
    assert "no test set is read" in printed.err and "wrote tiny-tuned.csv" in printed.err
    found = json.loads(printed.out)
    (file,) = found["files"]
    rows = table("tiny-tuned.csv")
    assert (found["score"], file["file"], file["found"]) == ("mAP", "tiny.toml", "tiny-tuned.toml")
    for row, trial in zip(rows, file["trials"], strict=True):
        assert row["trial"] == str(trial["trial"]) and row["state"] == trial["state"]
        assert float(row["mAP"]) == trial["score"] and int(row["epochs"]) == trial["epochs"]
        settings = {"optim.lr": float(row["optim.lr"]), "optim.kind": row["optim.kind"]}
        assert trial["settings"] == settings
    best = max(
        (one for one in file["trials"] if one["state"] == "finished"), key=lambda one: one["score"]
    )
    assert file["best"] == best["trial"]
    stand_in.diverges_above = 0
    tune("wide.toml", "--trials", 2, "--set-range", LR, "--json", code=1)
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert file["best"] is file["found"] is file["trials"][1]["score"] is None


def test_trials_have_nothing_of_the_test_set(work, stand_in):
    """The run file of a trial names the manifests of what is held out and none other."""
    tune("tiny.toml", "--trials", 1, "--set-range", LR, "--set", "train.best=mAP")
    folder = work / "tiny-tuned.study"
    made = tomllib.loads((folder / "tiny" / "000" / "trial.toml").read_text())
    (train,), (test,) = made["data"]["train"], made["data"]["test"]
    apart = [{row.pid for row in read_manifest(Path(one["manifest"]))} for one in (train, test)]
    assert not apart[0] & apart[1] and len(apart[0] | apart[1]) == 8
    assert "absent" not in (folder / "tiny" / "000" / "trial.toml").read_text()
    assert "best" not in made["train"] and made["eval"]["every"] == 1


def test_a_search_that_was_interrupted_goes_on(work, stand_in, capsys):
    """It ends as if it had not been: numbers, settings and scores; finished trials are not trained
    again, the interrupted one goes on where it was, and more trials can be added."""
    tune("tiny.toml", "--trials", 10, "--set-range", LR, "-o", "whole.toml")
    whole = list(stand_in.calls)
    stand_in.calls.clear()
    stand_in.stop = {("tiny/003", 2): KeyboardInterrupt, ("tiny/006", 0): OSError("disk")}
    command = ("tiny.toml", "--set-range", LR, "-o", "parts.toml")
    tune(*command, "--trials", 10, code=130)
    assert f"{work / 'parts.study'}; --resume goes on" in capsys.readouterr().out
    tune(*command, "--trials", 10, "--resume", code=1)
    tune(*command, "--trials", 7, "--resume")
    tune(*command, "--trials", 10, "--resume")
    assert table("parts.csv") == table("whole.csv")
    again = [("tiny/003", 2), ("tiny/006", 0)]
    assert sorted(stand_in.calls) == sorted([*whole, *again])
    assert (
        tomllib.loads(Path("parts.toml").read_text())["optim"]
        == (tomllib.loads(Path("whole.toml").read_text())["optim"])
    )


def test_what_a_kill_leaves_in_the_journal(work, stand_in, capsys):
    """Half a line and the lock of a process that is no more do not stand in the way; other damage
    is told."""
    command = ("tiny.toml", "--set-range", LR, "--trials")
    tune(*command, 1)
    journal = work / "tiny-tuned.study" / "journal.log"
    with open(journal, "a") as file:
        file.write('{"op_code": 5, "wor')
    (journal.parent / "journal.log.lock").symlink_to(journal)
    tune(*command, 2, "--resume")
    assert [row["state"] for row in table("tiny-tuned.csv")] == ["finished", "finished"]
    journal.write_text("{" + journal.read_text())
    tune(*command, 3, "--resume", code=4)
    assert f"{journal} is damaged" in capsys.readouterr().err


def test_two_files_have_equal_budgets(work, stand_in, capsys):
    """The same trials, draws and identities; a range that has a place in one file alone is said."""
    head = '\n[[head]]\nname = "mid"\nuse = "core.pool"\nsource = "backbone.layer3"\n'
    loss = '\n[[loss]]\nname = "more"\nuse = "core.softmax"\nfeatures = ["mid.vector"]\n'
    text = Path("wide.toml").read_text()
    Path("wide.toml").write_text(text.replace("\n[train]", f"{head}{loss}\n[train]"))
    ranges = ("--set-range", LR, "--set-range", "loss.more.weight=0..2")
    tune("tiny.toml", "wide.toml", "--trials", 6, *ranges, "-o", "a.toml", "-o", "b.toml")
    rows = table("a.csv")
    sides = [[row for row in rows if row["file"] == name] for name in ("tiny", "wide")]
    assert [len(side) for side in sides] == [6, 6]
    assert [row["optim.lr"] for row in sides[0][:5]] == [row["optim.lr"] for row in sides[1][:5]]
    assert {row["loss.more.weight"] for row in sides[0]} == {""}
    assert sides[1][0]["loss.more.weight"] == "1.0"
    trials = [next(work.glob(f"a.study/{name}/000/trial.toml")) for name in ("tiny", "wide")]
    data = [tomllib.loads(path.read_text())["data"] for path in trials]
    assert data[0]["train"] == data[1]["train"] and data[0]["test"] == data[1]["test"]
    assert stand_in.calls[:4] == [
        ("tiny/000", 0),
        ("wide/000", 0),
        ("tiny/001", 0),
        ("wide/001", 0),
    ]
    printed = capsys.readouterr().out
    assert "note: loss.more.weight has no place in tiny.toml" in printed
    assert "median mAP" in printed
    found = [tomllib.loads(Path(name).read_text()) for name in ("a.toml", "b.toml")]
    assert [one["name"] for one in found] == ["a", "b"]
    assert ["weight" in one["loss"][-1] for one in found] == [False, True]


def test_files_that_cannot_be_compared(work, stand_in, capsys):
    write_manifest(work / "others.csv", [_train(row) for row in pictures("x")])
    Path("wide.toml").write_text(Path("wide.toml").read_text().replace("people", "others"))
    tune("tiny.toml", "wide.toml", "--trials", 1, "--set-range", LR, code=2)
    assert "train on different pictures" in capsys.readouterr().err
    assert not list(work.glob("*.study"))


def test_trials_that_fail(work, stand_in, capsys):
    """A trial that diverges is told with the reason, counts as a trial and is never chosen."""
    stand_in.diverges_above = 1e-3
    tune("tiny.toml", "--trials", 6, "--set-range", LR)
    rows = table("tiny-tuned.csv")
    failed = [row for row in rows if row["state"] == "failed"]
    assert failed and all(float(row["optim.lr"]) > 1e-3 and not row["mAP"] for row in failed)
    assert "failed: the loss became nan in epoch 1; lower optim.lr" in capsys.readouterr().out
    assert tomllib.loads(Path("tiny-tuned.toml").read_text())["optim"]["lr"] <= 1e-3


def test_nothing_but_failures(work, stand_in, capsys):
    stand_in.diverges_above = 0
    tune("tiny.toml", "--trials", 2, "--set-range", LR, code=1)
    said = capsys.readouterr().err
    assert "tiny.toml: no trial came to its end; failed: the loss became nan" in said
    assert not Path("tiny-tuned.toml").exists() and len(table("tiny-tuned.csv")) == 2


def test_a_score_that_is_not_finite(work, monkeypatch, capsys):
    def train(file, folder, resume, check, reporter):
        return {"held": {"main": {"plain": {"mAP": math.nan}}}}

    monkeypatch.setattr(reid_tune.trial, "train", train)
    tune("tiny.toml", "--trials", 1, "--set-range", LR, code=1)
    assert "failed: mAP is nan" in capsys.readouterr().out


def test_what_stands_in_the_way_of_all_trials(work, stand_in, capsys):
    """Damaged pictures end the search, not one trial, which goes on once they are mended."""
    stand_in.stop = {("tiny/001", 1): DataError("p/0.jpg is damaged")}
    command = ("tiny.toml", "--trials", 3, "--set-range", LR)
    tune(*command, code=4)
    assert "p/0.jpg is damaged" in capsys.readouterr().err
    tune(*command, "--resume")
    assert [row["state"] for row in table("tiny-tuned.csv")] == ["finished"] * 3


def test_no_pruning(work, stand_in):
    tune("tiny.toml", "--trials", 12, "--set-range", LR, "--no-prune")
    assert {row["state"] for row in table("tiny-tuned.csv")} == {"finished"}


def test_another_score(work, stand_in):
    """The largest mINP, which the stand-in makes the least mAP."""
    tune("tiny.toml", "--trials", 5, "--set-range", LR, "--score", "mINP")
    rows = table("tiny-tuned.csv")
    best = max(rows, key=lambda row: float(row["mINP"]))
    found = tomllib.loads(Path("tiny-tuned.toml").read_text())
    assert found["optim"]["lr"] == float(best["optim.lr"]) != 1e-3


def test_a_study_of_other_settings_is_refused(work, stand_in, capsys):
    """With what differs; what does not change results may change."""
    command = ["tiny.toml", "--trials", 1, "--set-range", LR, "--resume"]
    tune(*command[:-1])
    text = Path("tiny.toml").read_text()
    changes = {
        "hold_out was 0.25, is 0.5": (["--hold-out", 0.5], text),
        "seed was 0, is 1": (["--seed", 1], text),
        'score was "mAP", is "rank-1"': (["--score", "rank-1"], text),
        "prune was true, is false": (["--no-prune"], text),
        "tiny.settings.backbone.width was 0.125, is 0.5": (["--set", "backbone.width=0.5"], text),
        "settings.loss.triplet.weight was 1.0, is 2.0": ([], text.replace(
            'feature = "neck.pooled"', 'feature = "neck.pooled"\nweight = 2'
        )),
    }  # fmt: skip
    for words, (more, changed) in changes.items():
        Path("tiny.toml").write_text(changed)
        tune(*command, *more, code=2)
        assert words in capsys.readouterr().err
    Path("tiny.toml").write_text(text)
    tune(*command[:-2], "optim.lr=1e-4..1e-1:log", "--resume", code=2)
    assert 'ranges.optim.lr was "1e-5..1e-1:log"' in capsys.readouterr().err
    write_manifest(work / "people.csv", [_train(row) for row in pictures(identities=9)])
    tune(*command, code=2)
    assert "pictures" in capsys.readouterr().err
    write_manifest(work / "people.csv", [_train(row) for row in pictures()])
    tune(*command, "--set", "data.workers=1", "--jobs", 1)


ERRORS = {
    "no such setting, did you mean 'optim.lr'": ["--set-range", "optim.lrr=1..2"],
    "expected a number at most 1, got 2.0": ["--set-range", "train.start_share.backbone=0..2"],
    "names the role 'head.nek', did you": ["--set-range", "train.start_share.head.nek=0..1"],
    "did you mean 'loss.triplet.weight'": ["--set-range", "loss.tripet.weight=1..2"],
    "--set-range optim.lr=-1..2: [optim]: expected a number above 0": [
        "--set-range",
        "optim.lr=-1..2",
    ],
    "did you mean 'adam'": ["--set-range", "optim.kind=sgd,adma"],
    "expected int, got float 2.0 at .ids": ["--set-range", "data.batch.ids=2.0..3.0"],
    "got int 19 at .depth; list the values that fit, with commas between": [
        "--set-range",
        "backbone.depth=18..50",
    ],
    "0 epochs train nothing": ["--set-range", "train.epochs=0..3"],
    "[data]: missing key 'train'": ["untrained.toml"],
    "has no score 'mAPP', did you mean 'mAP'?; there are mAP, mINP, rank-1, rank-5, rank-10": [
        "--score",
        "mAPP",
    ],
    "has no score 'rank-7'": ["--score", "rank-7"],
    "--trials must be at least 1, got 0": ["--trials", 0],
    "--jobs must be at least 1, got 0": ["--jobs", 0],
    "--seed must be at least 0, got -1": ["--seed", -1],
    "holds out 1 and leaves 7": ["--hold-out", 0.1],
    "tiny.toml does not fit what is left to train and to score": ["--set", "data.batch.ids=7"],
    "train.epochs is 0": ["--set", "train.epochs=0"],
    "holds no study to resume": ["--resume"],
    "there is no folder": ["-o", "no/where.toml"],
    "-o names 2 files to write for 1 run files": ["-o", "a.toml", "-o", "b.toml"],
    "-o people.csv: a run file's name ends with .toml": ["-o", "people.csv"],
    "people.csv exists already": ["-o", "people.toml"],  # where the table would be written
    "wide.toml exists already": ["-o", "wide.toml"],
    "tiny.toml is named twice": ["./tiny.toml"],
    "-o names a.toml twice": ["missing.toml", "-o", "./a.toml", "-o", "a.toml"],
    "no run file at": ["missing.toml"],
    "[repeat] of repeats.toml lists its values": ["repeats.toml"],
}


@pytest.mark.parametrize("words", ERRORS)
def test_errors(work, stand_in, capsys, words):
    """Each is a sentence with exit code 2, before anything is written."""
    repeats = Path("tiny.toml").read_text() + "\n[repeat]\n'optim.lr' = [0.1, 0.2]\n"
    Path("repeats.toml").write_text(repeats.replace('"tiny"', '"repeats"'))
    untrained = Path("tiny.toml").read_text().replace('train = { manifest = "people.csv" }\n', "")
    Path("untrained.toml").write_text(untrained.replace('"tiny"', '"untrained"'))
    more = ERRORS[words]
    known = ("tiny.toml", "missing.toml", "repeats.toml", "untrained.toml")
    files = [one for one in more if one in known]
    options = [one for one in more if one not in files]
    usual = [] if "--set-range" in more else ["--set-range", LR]
    tune("tiny.toml", *files, "--trials", 1, *usual, *options, code=2)
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and len(said) < 1000
    assert not stand_in.calls and not list(work.glob("*.study"))


def test_an_unset_key_is_tried_with_fractions(work, stand_in):
    """Where its setting takes them, though nothing in the file says so; others with integers."""
    ranges = ("--set-range", "optim.scale.backbone=1..9", "--set-range", "data.batch.per_id=2..3")
    tune("tiny.toml", "--trials", 4, *ranges)
    rows = table("tiny-tuned.csv")
    assert all("." in row["optim.scale.backbone"] for row in rows)
    assert {row["data.batch.per_id"] for row in rows} <= {"2", "3"}


def test_bad_fractions_and_folders(work, stand_in, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["tune", "tiny.toml", "--trials", "1", "--set-range", LR, "--hold-out", "1"])
    assert refused.value.code == 2
    assert "expected a fraction between 0 and 1, got '1'" in capsys.readouterr().err
    tune("tiny.toml", "--trials", 1, "--set-range", LR)
    tune("tiny.toml", "--trials", 1, "--set-range", LR, code=2)
    assert "already holds a study; go on with it by --resume" in capsys.readouterr().err


def test_without_optuna(work, stand_in, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    tune("tiny.toml", "--trials", 1, "--set-range", LR, code=2)
    said = capsys.readouterr().err
    assert "`reid tune` needs Optuna" in said and how_to_install("reid-plugin-tune") in said
