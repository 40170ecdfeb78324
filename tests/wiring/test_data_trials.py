"""`data.trial`: a model for each of RegDB's divisions, and none scored on another's people."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from running import ended, environment, kill_when, reid, results

import reidcore
from reidcore.api import Row
from reidcore.cli.main import main
from tests.archives import regdb_lists
from tests.protocol_runs import TEST_ENTRY, by_loop, draw, run_text, scores

PEOPLE = range(1, 9)
ENTRY = '{ read = "core.regdb", root = "RegDB", counts = "any" }'


def regdb(root: Path, trials: int = 3) -> dict[int, list[Row]]:
    """An archive with eight people, three pictures of each in each modality; rows of each trial's
    test people."""
    files = {
        (kind, person): [
            f"{kind}/{person}/male_back_{kind[0].lower()}_{person * 10 + n:05d}_{person}.bmp"
            for n in range(3)
        ]
        for kind in ("Visible", "Thermal")
        for person in PEOPLE
    }
    draw([root / file for names in files.values() for file in names])
    tests: dict[int, list[Row]] = {}
    for trial in range(1, trials + 1):
        lines: dict[str, list[str]] = {}
        tests[trial] = []
        for (kind, person), names in files.items():
            split, label = ("test", "train")[(person + trial) % 4 < 2], person
            listed = lines.setdefault(f"{split}_{kind.lower()}", [])
            listed += [f"{name} {label}" for name in names]
            if split == "test":
                modality = "visible" if kind == "Visible" else "infrared"
                tests[trial] += [
                    Row(str(root / name), str(label), split="test", modality=modality)
                    for name in names
                ]
        regdb_lists(root, trial, lines)
    return tests


def text(more: str = "", test: str = ENTRY) -> str:
    """A run that trains on RegDB and is scored on it."""
    found = run_text(test, more=more)
    start, end = found.index("train = {"), found.index("test = [")
    return f"{found[:start]}train = {ENTRY}\n{found[end:]}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_DATA", raising=False)
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    return tmp_path


def command(*words: object, code: int = 0) -> None:
    assert main([str(word) for word in words]) == code


def test_a_model_for_each_trial(here: Path, capsys):
    """[repeat] over data.trial trains on each trial's people and scores on its test people, in both
    directions; the mean is over models. A model is not scored on another trial's people."""
    tests = regdb(here / "RegDB")
    (here / "run.toml").write_text(text('\n[repeat]\n"data.trial" = [1, 2, 3]\n'))
    command("run", "run.toml", "--out", "out")
    printed = capsys.readouterr().out
    assert "repeat 2 of 3: data.trial=2" in printed and "mean and deviation of 3" in printed
    names = ["regdb/visible-to-infrared", "regdb/infrared-to-visible"]
    every = {name: [] for name in names}
    for trial, rows in tests.items():
        folder = here / "out" / str(trial - 1)
        loaded, found = reidcore.load(folder), scores(folder)
        assert list(found) == names and not (folder / "draws.json").exists()
        for name in names:
            query, gallery = (
                [row for row in rows if row.modality == kind]
                for kind in name.removeprefix("regdb/").split("-to-")
            )
            expected = by_loop(loaded.distances(query, gallery), query, gallery)
            plain = found[name]["main"]["plain"]
            assert {key: plain[key] for key in expected} == pytest.approx(expected, abs=2e-6)
            every[name].append(plain["mAP"])
        lock = json.loads((folder / "lock.json").read_text())
        assert lock["training"]["trials"] == {"core.regdb": [trial]}
    summary = scores(here / "out")
    for name, values in every.items():
        found = summary[name]["main"]["plain"]["mAP"]
        assert found["values"] == values
        assert found["mean"] == pytest.approx(statistics.fmean(values))
        assert found["deviation"] == pytest.approx(statistics.stdev(values))

    command("eval", "out/1", "-o", "again.json")
    assert json.loads(Path("again.json").read_text()) == scores("out/1")
    capsys.readouterr()
    command("eval", "out/1", "--set", "data.trial=3", code=2)
    said = capsys.readouterr().err
    assert "[data] test 'regdb': is trial 3 of core.regdb, but the model is trained on tr" in said
    assert "trained on trial 2, among whose people are some of those to test with" in said
    Path("other.toml").write_text(
        f"format = 1\n[data]\ntest = [{ENTRY.replace(' }', ', trial = 2 }')}]\n"
    )
    command("eval", "out/0", "other.toml", code=2)
    assert "trial is 2, but data.trial is 1; leave one of them away" in capsys.readouterr().err
    command("eval", "out/1", "other.toml")


def test_a_killed_repeat_goes_on(here: Path):
    """Killed in the second trial, the same command ends with the same bytes."""
    regdb(here / "RegDB", 2)
    (here / "run.toml").write_text(text('\n[repeat]\n"data.trial" = [1, 2]\n'))
    env = environment(here / "cache")
    reid(env, here, "run", "run.toml", "--out", "whole", "--set", "train.epochs=3")
    words = ["run", "run.toml", "--out", "killed", "--resume", "--set", "train.epochs=3"]
    kill_when(env, here, words, lambda said: ended(2)(said.partition("repeat 2")[2]))
    assert not (here / "killed" / "scores.json").exists()
    reid(env, here, *words)
    for trial in ("0", "1"):
        assert results(here / "killed" / trial) == results(here / "whole" / trial)
    assert scores(here / "killed") == scores(here / "whole")


@pytest.mark.parametrize(
    ("changes", "words", "says"),
    [
        ([], ["data.trial=11"], "expected a number at most 10, got 11 at .trial"),
        ([], ["data.trial=0"], "[data]: expected a number at least 1, got 0 at .trial"),
        (
            [('counts = "any" }', 'counts = "any", trial = 2 }')],
            ["data.trial=1"],
            "trial is 2, but data.trial is 1; leave one of them away",
        ),
        (
            [("test = [{ read", "test = [{ trial = 2, read")],
            [],
            "test 'regdb': is trial 2 of core.regdb, but the model is trained on trial 1, among",
        ),
    ],
)
def test_trials_that_do_not_fit_are_told(here: Path, capsys, changes, words, says):
    """A trial out of range, two that disagree, and training and test of different trials."""
    regdb(here / "RegDB", 2)
    run = text()
    for old, new in changes:
        run = run.replace(old, new)
    (here / "run.toml").write_text(run)
    sets = [word for item in words for word in ("--set", item)]
    command("check", "--no-dry", "run.toml", *sets, code=2)
    assert says in capsys.readouterr().err


def test_a_trial_that_no_reader_takes_is_told(here: Path, capsys):
    """data.trial would do nothing without a reader that has the setting."""
    (here / "run.toml").write_text(run_text(TEST_ENTRY))
    command("check", "--no-dry", "run.toml", "--set", "data.trial=2", code=2)
    assert (
        "--set data.trial=2: [data]: trial is for readers that have a setting trial, and none has: "
        "core.demo"
    ) in capsys.readouterr().err


def test_a_model_of_another_data_set_may_be_scored_on_any_trial(here: Path):
    """Only a model that was trained on a trial is bound to it; further data sets are not."""
    regdb(here / "RegDB", 2)
    (here / "run.toml").write_text(run_text(TEST_ENTRY))
    command("run", "run.toml", "--out", "out")
    Path("other.toml").write_text(f"format = 1\n[data]\ntest = [{ENTRY}]\n")
    for trial in (1, 2):
        command("eval", "out", "other.toml", "--set", f"data.trial={trial}", "-o", f"{trial}.json")
    assert Path("1.json").read_text() != Path("2.json").read_text()
    Path("run.toml").write_text(text())
    command("run", "run.toml", "--out", "mine", "--set", "data.trial=2")
    Path("other.toml").write_text(f"format = 1\n[data]\ntest = [{TEST_ENTRY}]\n")
    command("eval", "mine", "other.toml")
