"""`reid compare`: which settings tell runs apart, their scores, and what cannot be compared."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
from pathlib import Path

import pytest
from running import TINY

from reidcore.cli.main import main
from reidcore.runfolder.comparison import differing_settings
from reidcore.runfolder.results import settings_of


def run(*arguments: object) -> None:
    assert main(["run", *map(str, arguments)]) == 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs `plain`, `wide` (another width and seed) and the repeats `seeds`."""
    folder = tmp_path_factory.mktemp("compare")
    short = TINY.replace("epochs = 6", "epochs = 1")
    (folder / "tiny.toml").write_text(short)
    (folder / "seeds.toml").write_text(short + '\n[repeat]\n"train.seed" = [0, 1, 2]\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        run("tiny.toml", "--out", "plain")
        wide = ["--set", "backbone.width=0.25", "--set", "train.seed=1", "--set", "data.workers=1"]
        run("tiny.toml", "--out", "wide", *wide)
        run("seeds.toml", "--out", "seeds")
    return folder


@pytest.fixture
def here(runs, tmp_path, monkeypatch):
    """A copy of the runs, as the current folder."""
    copied = tmp_path / "runs"
    shutil.copytree(runs, copied, ignore=shutil.ignore_patterns("cache", "*.safetensors"))
    monkeypatch.chdir(copied)
    return copied


def compare(capsys, *arguments: object, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["compare", *map(str, arguments)]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def scores_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "scores.json").read_text())["demo"]["main"]["plain"]


def test_runs_side_by_side(here, capsys):
    """Each run is a row with its scores in percent; the columns before them are the settings that
    differ, not those that are free; the better value of each column has a star."""
    out, _ = compare(capsys, "plain", "wide")
    header, *rows = (line.split() for line in out.splitlines())
    assert header[:3] == ["run", "train.seed", "backbone.width"]
    assert not {"data.workers", "name", "train.epochs"} & set(header)
    assert [row[:3] for row in rows] == [["plain", "0", "0.125"], ["wide", "1", "0.25"]]
    column = header.index("mAP") - 1  # "test set" is two words
    values = [scores_of(here / name)["mAP"] for name in ("plain", "wide")]
    best = max(values)
    expected = [f"{100 * value:.1f}{'*' * (value == best)}" for value in values]
    assert [row[column] for row in rows] == expected
    assert [row[-2] for row in rows] == ["1", "1"]


def test_repeats_are_one_row(here, capsys):
    """A folder of repeats has mean and deviation, or the median; JSON has all, as fractions."""
    values = [scores_of(here / "seeds" / str(seed))["mAP"] for seed in range(3)]
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    out, _ = compare(capsys, "plain", "seeds")
    assert f"{100 * mean:.1f} ± {100 * deviation:.1f}" in out.splitlines()[2]
    assert "[0, 1, 2]" in out
    out, _ = compare(capsys, "seeds", "--median")
    assert f" {100 * statistics.median(values):.1f} " in out and "±" not in out
    out, _ = compare(capsys, "seeds", "plain", "--json")
    repeated, single = json.loads(out)
    assert repeated["scores"]["mAP"] == {
        "mean": pytest.approx(mean),
        "deviation": pytest.approx(deviation),
        "median": statistics.median(values),
        "values": values,
    }
    assert (repeated["repeats"], single["repeats"]) == (3, 0)
    assert single["scores"]["mAP"] == scores_of(here / "plain")["mAP"]
    assert single["settings"] == {"train.seed": 0}


def test_scores_of_fewer_repeats_are_unfinished(here, capsys, tmp_path):
    """Where further repeats were begun, the means are not theirs."""
    longer = shutil.copytree(here / "seeds", tmp_path / "longer")
    shutil.copytree(longer / "2", longer / "3")
    assert main(["compare", str(longer)]) == 2
    assert f"the repeats in {longer} are unfinished" in capsys.readouterr().err


def test_the_csv_holds_fractions(here, capsys):
    """A line per row; deviation and median stand beside each mean."""
    compare(capsys, "wide", "seeds", "--csv", "all.csv")
    with open("all.csv", encoding="utf-8", newline="") as file:
        wide, seeds = csv.DictReader(file)
    found = scores_of(here / "wide")
    assert float(wide["rank-5"]) == found["rank-5"] and wide["backbone.width"] == "0.25"
    values = [scores_of(here / "seeds" / str(seed))["mAP"] for seed in range(3)]
    assert float(seeds["mAP median"]) == statistics.median(values)
    assert float(seeds["mAP deviation"]) == pytest.approx(statistics.stdev(values))
    Path("wide").rename("wi\rde")
    compare(capsys, "wi\rde", "plain", "--csv", "odd.csv")
    with open("odd.csv", encoding="utf-8", newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["wi\rde", "plain"]
    _, message = compare(capsys, "wide", "--csv", "no/folder.csv", code=2)
    assert "no/folder.csv: there is no folder" in message


def test_bad_folders_do_not_hide_the_others(here, capsys):
    """The good runs are shown; every other folder is named with its reason; the exit code is 4 if
    one is damaged, else 2."""
    (here / "empty").mkdir()
    lock = json.loads((here / "wide" / "lock.json").read_text())
    (here / "wide" / "lock.json").write_text(json.dumps({**lock, "finished": False}))
    (here / "seeds" / "scores.json").unlink()
    out, message = compare(capsys, "plain", "empty", "wide", "seeds", "none", code=2)
    assert out.splitlines()[1].startswith("plain ") and len(out.splitlines()) == 2
    reasons = message.splitlines()
    assert "empty is not a run folder" in reasons[0]
    assert "the run in wide is unfinished" in reasons[1] and "--resume" in reasons[1]
    assert "the repeats in seeds are unfinished" in reasons[2]
    assert "no run folder at" in reasons[3] and "none" in reasons[3]
    (here / "damaged").mkdir()
    shutil.copy(here / "plain" / "lock.json", here / "damaged")
    _, message = compare(capsys, "damaged", code=4)
    assert "scores.json is missing: the run in that folder has test sets" in message


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("scores.json", '{"demo": '),
        ("scores.json", '{"demo": 0.5}'),
        ("scores.json", '{"demo": {"main": {"plain": {"mAP": "high"}}}}'),
        ("scores.json", '{"demo": {"main": {"plain": {"mAP": {"mean": 0.5, "values": []}}}}}'),
        ("means.csv", "epoch,loss\n1,2.0\n"),
        ("lock.json", "[]"),
    ],
)
def test_damaged_files_are_named(here, capsys, file, text):
    """What cannot be read means code 4 and the file's name; the other run is shown."""
    (here / "wide" / file).write_text(text)
    out, message = compare(capsys, "wide", "plain", code=4)
    assert out.splitlines()[1].startswith("plain ")
    assert str(Path("wide") / file) in message and "damaged" in message


def test_one_test_set_or_ranking(here, capsys):
    """--test and --ranking choose rows; a name that no run has is refused with those that exist.
    The best values are marked within a test set only."""
    path = here / "wide" / "scores.json"
    scores = json.loads(path.read_text())
    better = {"other": {"main": {"plain": {**scores["demo"]["main"]["plain"], "mAP": 1.0}}}}
    path.write_text(json.dumps(scores | better))
    out, _ = compare(capsys, "plain", "wide")
    assert [line.split()[3] for line in out.splitlines()[1:]] == ["demo", "demo", "other"]
    assert "*" in out.splitlines()[1] + out.splitlines()[2] and "*" not in out.splitlines()[3]
    out, _ = compare(capsys, "plain", "wide", "--test", "other")
    assert len(out.splitlines()) == 2 and "100.0" in out
    _, message = compare(capsys, "plain", "wide", "--ranking", "mian", code=2)
    assert "--ranking mian: the runs have main" in message


def test_settings_are_chosen_by_patterns(here, capsys):
    """Of those that differ; one that all runs share is shown where it alone fits. JSON and CSV have
    the same."""
    out, _ = compare(capsys, "plain", "wide", "--settings", "backbone.*")
    assert out.split()[:4] == ["run", "backbone.width", "test", "set"]
    out, _ = compare(capsys, "plain", "wide", "--settings", "*.seed", "--settings", "*width")
    assert out.split()[:3] == ["run", "train.seed", "backbone.width"]
    out, _ = compare(capsys, "plain", "wide", "--settings", "train.epochs")
    header, *rows = (line.split() for line in out.splitlines())
    assert header[1] == "train.epochs" and [row[1] for row in rows] == ["1", "1"]
    out, _ = compare(capsys, "plain", "wide", "--json", "--settings", "*.se?d", "--csv", "c.csv")
    assert [row["settings"] for row in json.loads(out)] == [{"train.seed": 0}, {"train.seed": 1}]
    assert Path("c.csv").read_text().startswith("run,train.seed,test set,")


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("trian.seed", "did you mean 'train.seed'?"),
        ("bckbone.*", "did you mean 'backbone.*'?"),
        ("*.wdth", "did you mean '*.width'?"),
        ("zzz", "differ are train.seed, backbone.width"),
        ("", "fits no setting"),
        ("x" * 5000, "5000 characters"),
    ],
)
def test_a_pattern_that_fits_nothing_names_the_nearest(here, capsys, pattern, near):
    out, message = compare(capsys, "plain", "wide", "--settings", pattern, code=2)
    assert near in message and len(message) < 1000 and not out


def test_many_settings_are_noted(here, capsys, monkeypatch):
    """How to choose is told beside a wide table, not beside JSON."""
    monkeypatch.setattr("reidcore.cli.compare.MANY", 1)
    assert "note: 2 settings differ; --settings PATTERN" in compare(capsys, "plain", "wide")[1]
    for more in (["--json"], ["--settings", "*"]):
        assert compare(capsys, "plain", "wide", *more)[1] == ""


def test_settings_are_flattened_as_set_names_them():
    """Parts lose their prefix, entries of lists go by name or number, what is unset is left out."""
    table = {
        "train": {"seed": 0, "best": None},
        "parts": {"head.neck": {"use": "core.bnneck"}},
        "data": {"augment": [{"use": "core.flip"}], "image": [64, 32]},
        "ranking": [{"name": "main", "matcher": "look"}],
    }
    assert settings_of(table) == {
        "train.seed": 0,
        "head.neck.use": "core.bnneck",
        "data.augment.0.use": "core.flip",
        "data.image": [64, 32],
        "ranking.main.name": "main",
        "ranking.main.matcher": "look",
    }


def test_another_component_is_told_by_its_name():
    """Where a part differs in its component, the keys that only one has are left out; those that
    differ among runs of one component are not."""
    pool = {"h.use": "core.pool", "h.kind": "gem"}
    runs = [pool, {"h.use": "core.bnneck", "h.shift": True}, {"h.use": "core.bnneck"}]
    assert differing_settings(runs) == ["h.use"]
    assert differing_settings([*runs, {**pool, "h.kind": "max"}]) == ["h.use", "h.kind"]
    assert differing_settings([{"optim.steps.by": 0.1}, {}]) == ["optim.steps.by"]
