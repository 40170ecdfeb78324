"""`reidcore.tools`, the door for commands of plugins, used as a command would."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from running import TINY

from reidcore import tools
from reidcore.cli.main import main
from reidcore.errors import DataError, UsageError

SETS = ["train.device=cpu", "train.epochs=2"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The current folder, with a run that `train` has trained."""
    folder = tmp_path_factory.mktemp("tools")
    (folder / "tiny.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        scores = tools.train("tiny.toml", "run", SETS)
        assert scores == json.loads((folder / "run" / "scores.json").read_text())
        yield folder


@pytest.mark.parametrize("name", tools.__all__)
def test_every_name_is_there(name):
    assert getattr(tools, name) is not None


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = tools.nonsense


def test_importing_it_is_quick(tmp_path):
    """Neither torch nor what reads run files is imported before it is used."""
    code = (
        "import sys, reidcore.tools as t\n"
        "assert not {'torch', 'numpy', 'PIL', 'cattrs', 'rich'} & set(sys.modules)\n"
        "t.Search\nassert 'torch' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_is_that_of_the_command(work):
    """`reid run` ends with the same weights; `resume` finds the run finished."""
    sets = [word for one in SETS for word in ("--set", one)]
    assert main(["run", "tiny.toml", "--out", "twin", *sets]) == 0
    weights = [(work / run / "weights.safetensors").read_bytes() for run in ("run", "twin")]
    assert weights[0] == weights[1]
    with pytest.raises(UsageError, match="already holds a finished run"):
        tools.train("tiny.toml", "run", SETS)
    scores = tools.train("tiny.toml", "run", SETS, resume=True)
    assert scores == json.loads((work / "run" / "scores.json").read_text())


def test_a_plan_has_the_settings_and_pictures_of_a_run(work):
    """Without its test set nothing of that is looked at; what is wrong is told as by `reid run`."""
    absent = 'data.test={manifest="absent.csv"}'
    plan = tools.plan_run("tiny.toml", [absent, "data.test=[]", "optim.lr=0.5"])
    settings = tools.settings_of(plan.resolved())
    assert (settings["optim.lr"], settings["loss.triplet.weight"]) == (0.5, 1.0)
    assert len({row.pid for row in plan.data.training_rows()}) == 4 and not plan.data.test
    with pytest.raises(UsageError, match="did you mean 'lr'"):
        tools.plan_run("tiny.toml", ["optim.lrr=1", "data.test=[]"])
    with pytest.raises(DataError, match=r"manifest not found at .*absent\.csv"):
        tools.plan_run("tiny.toml", [absent])


def test_pictures_are_divided_and_written(work):
    """`draw_splits` and `write_manifest` make what a run file can name in place of its data."""
    rows = tools.plan_run("tiny.toml", ["data.test=[]"]).data.training_rows()
    drawn = tools.draw_splits(rows, 0.5, 1).rows
    tools.write_manifest(work / "half.csv", [row for row in drawn if row.split == "train"])
    table = {"data": {"train": {}}}
    assert tools.set_value(table, "data.train.manifest", "half.csv") == (
        "data",
        "train",
        "manifest",
    )
    half = tools.plan_run(
        "tiny.toml",
        [
            f"data.train={tools.toml_value(table['data']['train'])}",
            "data.test=[]",
            "data.batch.ids=2",
        ],
    )
    assert half.data.identities == 2


def test_repeats_are_refused(work):
    (work / "repeats.toml").write_text(TINY + "\n[repeat]\n'train.seed' = [0, 1]\n")
    with pytest.raises(UsageError, match=r"repeats\.toml: train each run of \[repeat\]"):
        tools.train("repeats.toml", "repeats")
    assert not (work / "repeats").exists()


def test_an_evaluation_with_a_watcher(work):
    """Every pair is seen once, with what counts, and watching changes no score."""
    evaluation = tools.open_evaluation("run", sets=["eval.batch=16"])
    seen = []
    scores = evaluation.scores(evaluation.load_model("cpu"), tools.Silent(), seen.append)
    assert scores == json.loads((work / "run" / "scores.json").read_text())
    (rows,) = evaluation.test_sets.values()
    pairs = sum(one.distances.numel() for one in seen)
    splits = [row.split for row in rows]
    assert pairs == splits.count("query") * splits.count("gallery")
    first = seen[0]
    assert first.place == ("demo", "main", "plain") and first.trial.number == 0
    found = tools.count_queries(first.distances, first.judged, "gallery", "step")
    assert found.ap.mean().item() == pytest.approx(scores["demo"]["main"]["plain"]["mAP"], abs=1e-6)


def test_one_ranking_of_an_evaluation(work):
    """It alone is scored; another name is refused with the nearest."""
    assert tools.open_evaluation("run", ranking="main").plan.rankings[0].name == "main"
    with pytest.raises(UsageError, match="no ranking 'mian', did you mean 'main'"):
        tools.open_evaluation("run", ranking="mian")


def test_chosen_pairs_are_explained_as_ranked_ones_are(work):
    """The same pair by `explain` and by `explain_pairs` gives the same heat, and can be drawn."""
    run = tools.load("run", device="cpu")
    (rows,) = tools.open_evaluation("run").test_sets.values()
    query, gallery = rows[0], rows[-1]
    (ranked,) = run.explain([query], [gallery], top=1)
    pair = tools.Explained(1, query, 1, gallery, ranked.distance, {})
    (chosen,) = run.explain_pairs([pair])
    assert list(chosen.found) == list(ranked.found)
    for name, heat in chosen.found.items():
        assert torch.equal(*(torch.as_tensor(one.found[name].values) for one in (chosen, ranked)))
        assert tools.draw_explanation(chosen, name, heat).height > 100


def test_what_a_run_folder_says(work):
    """Record, settings, scores and a row of a comparison, without opening the model."""
    record = tools.read_record(work / "run")
    assert record["finished"] and tools.settings_of(record["resolved"])["train.epochs"] == 2
    scores = tools.scores_of(work / "run")
    stored = json.loads((work / "run" / "scores.json").read_text())["demo"]["main"]["plain"]
    assert scores["demo", "main", "plain"]["mAP"].mean == stored["mAP"]
    (row,) = tools.make_comparison([tools.read_results(work / "run")])
    assert (row.run, row.place) == ("run", ("demo", "main", "plain"))
    assert tools.repeats_of(work / "run") == []
