"""The plugin's run files: each is wired, and those of the paper follow its recipe."""

from __future__ import annotations

import csv
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from reidcore.cli.main import main
from reidcore.data.manifest import write_manifest
from reidcore.model.building import build_model
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import packaged_runs
from reidcore.training.dry_run import dry_run
from reidcore.wiring.plan import Plan
from tests.packaged import few_pictures, packaged_plan, packaged_table

CROSS = ("duke-to-market", "market-to-duke", "msmt17-to-both")
DEEP = tuple(f"{name}-r152" for name in CROSS)
FAR = ("duke-to-cuhk03-msmt17", "market-to-cuhk03-msmt17", "msmt17-to-cuhk03")
FAR_DEEP = tuple(f"{name}-r152" for name in FAR)
LOSSES = ("loss-arcface", "loss-center", "loss-memory", "loss-softmax")
BACK = tuple(f"{name}-from-duke" for name in LOSSES)
SMALL_LOSSES = tuple(f"market-small-{name.removeprefix('loss-')}" for name in LOSSES)
SMALL = (
    "ward",
    "ward-softmax",
    "best-small",
    "best-small-mobilenet",
    "best-small-unseen",
    "market-small",
    "market-distilled",
    "market-lifted",
)
SMALL += SMALL_LOSSES
NAMES = ("demo", "market", *CROSS, *DEEP, *FAR, *FAR_DEEP, *LOSSES, *BACK, *SMALL)
SETS = {
    "market": "core.market1501",
    "duke": "core.dukemtmc",
    "msmt17": "core.msmt17",
    "cuhk03": "core.cuhk03_np",
}

pytestmark = pytest.mark.usefixtures("no_data", "session_cache")
table_of = partial(packaged_table, "qaconv")


def plan_of(name: str, *sets: str) -> Plan:
    return packaged_plan("qaconv", name, "backbone.weights=", *sets)


def test_these_are_the_run_files():
    assert sorted(run.name for run in packaged_runs(Plugins(), "qaconv")) == sorted(NAMES)
    for run in packaged_runs(Plugins(), "qaconv"):
        assert run.summary, f"{run.name} has no summary"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SMALL])
def test_each_is_wired(name, capsys):
    assert main(["check", "--no-dry", f"qaconv:{name}"]) == 0
    assert "ok: keys and wiring" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "backbone"), [("market-to-duke", 8_543_296), ("market-to-duke-r152", 43_179_072)]
)
def test_the_network_has_the_published_size(name, backbone):
    """A ResNet up to layer3, a 3x3 convolution with its norm, and 389 numbers of the matcher, on
    maps of 24 x 8 locations."""
    plan = plan_of(name)
    assert plan.given.feature("local.map").shape == (128, 24, 8)
    model = build_model(plan, 0)
    sizes = {
        role: sum(parameter.numel() for parameter in part.parameters())
        for role, part in model.parts()
    }
    assert sizes["backbone"] == backbone
    assert sizes["head.local"] == 1_179_904
    assert sizes["matcher.pairs"] == 389
    assert sizes["loss.memory"] == 0


@pytest.mark.parametrize("name", [*CROSS, *DEEP])
def test_the_published_runs_differ_in_data_and_depth_alone(name):
    """Depth as the name says, train and test sets as the name says, all else as on one data set."""
    table, base = table_of(name), table_of("market")
    assert table.pop("name") == f"qaconv-{name}" and base.pop("name")
    assert table["backbone"].pop("depth") == (152 if name in DEEP else 50)
    del base["backbone"]["depth"]
    source, target = name.removesuffix("-r152").split("-to-")
    train, tests = table["data"].pop("train"), table["data"].pop("test")
    del base["data"]["train"], base["data"]["test"]
    assert train["read"] == SETS[source]
    wanted = ["duke", "market"] if target == "both" else [target]
    assert [test["read"] for test in tests] == [SETS[one] for one in wanted]
    assert table == base


def test_from_msmt17_all_of_its_pictures_are_trained_on():
    assert table_of("msmt17-to-both")["data"]["train"]["splits"] == [
        "train",
        "val",
        "query",
        "gallery",
    ]


@pytest.mark.parametrize("name", [*FAR, *FAR_DEEP])
def test_table_4_is_table_3_on_other_targets_without_times(name):
    """As the paper's other runs but for the targets, on whose pictures nothing is lifted."""
    source, _, targets = name.removesuffix("-r152").partition("-to-")
    whole = {"msmt17": "msmt17-to-both", "market": "market-to-duke", "duke": "duke-to-market"}
    table = table_of(name)
    base = table_of(whole[source] + ("-r152" if name in FAR_DEEP else ""))
    assert [one["read"] for one in table["data"].pop("test")] == [
        SETS[target] for target in targets.split("-")
    ]
    for key in ("name", "post", "ranking"):
        base.pop(key)
    assert table.pop("name") == f"qaconv-{name}" and not table.keys() & {"post", "ranking"}
    del base["data"]["test"]
    assert table == base


@pytest.mark.parametrize(
    ("names", "whole", "margin"),
    [(LOSSES, "market-to-duke-r152", 0.5), (BACK, "duke-to-market-r152", 0.2)],
)
def test_the_compared_losses_differ_in_the_loss_alone(names, whole, margin):
    """All but names and losses is the same, and training is that of QAConv; the Arc loss has the
    margin that the paper found best on the source."""
    tables = [table_of(name) for name in names]
    assert tables[0]["loss"][0]["margin"] == margin
    uses = [[loss["use"] for loss in table.pop("loss")] for table in tables]
    assert uses == [
        ["core.arcface"],
        ["core.softmax", "core.center"],
        ["qaconv.vectors"],
        ["core.softmax"],
    ]
    for table in tables:
        del table["name"]
        assert table == tables[0]
    qaconv = table_of(whole)
    for key in ("data", "train", "optim"):
        assert tables[0][key] == qaconv[key]
    assert tables[0]["backbone"].pop("last_stride") == 2
    assert tables[0]["backbone"] == qaconv["backbone"]


def test_the_demo_has_four_rankings_in_one_run():
    """Plain, re-ranked, re-ranked and lifted, and lifted alone."""
    chains = [tuple(ranking.post) for ranking in plan_of("demo").rankings]
    assert chains == [("rerank", "tlift"), ("tlift",)]


@pytest.mark.parametrize("name", ["market", *CROSS, *DEEP])
def test_the_paper_lifts_sigmoid_z(name):
    """Beside the demo's rankings there is one that undoes what the matcher divides logits by."""
    plan = plan_of(name)
    chains = [tuple(ranking.post) for ranking in plan.rankings]
    assert chains == [("rerank", "tlift"), ("tlift_z",), ("tlift",)]
    sharpness = {one.part.name: getattr(one.config, "sharpness", None) for one in plan.posts}
    (matcher,) = plan.matchers
    assert sharpness == {"rerank": None, "tlift": 1, "tlift_z": matcher.config.score_scale}


def test_the_small_run_has_the_recipe_of_the_paper():
    """As on all of Market-1501, but for the network, the pictures' size, a fifth of epochs, how the
    ranking `lifted` weighs time, and identities not seen yet."""
    small, whole = table_of("market-small"), table_of("market")
    assert small["loss"][0].pop("unseen") == "left_out" and "unseen" not in whole["loss"][0]
    odds = next(post for post in small["post"] if post["name"] == "tlift_odds")
    small["post"].remove(odds)
    lifted = next(one for one in small["ranking"] if one["name"] == "lifted")
    lifted["post"] = ["tlift"]
    for key in ("name", "backbone", "train"):
        del small[key], whole[key]
    for key in ("train", "test", "image"):
        del small["data"][key], whole["data"][key]
    assert (small["optim"].pop("steps")["at"], whole["optim"].pop("steps")["at"]) == ([8], [40])
    assert small == whole


@pytest.mark.parametrize("name", ["best-small", "best-small-mobilenet", "best-small-unseen"])
def test_the_best_small_runs_need_no_times(name):
    """WARD has none, and is scored by every ranking, too."""
    table = table_of(name)
    assert [test["name"] for test in table["data"]["test"]] == ["market", "ward"]
    assert [post["use"] for post in table["post"]] == ["core.rerank"]


def test_the_best_small_runs_differ_in_network_and_size_alone():
    """And in what reads the global branch: the OSNet has one of its own, and one that knew persons
    before, of which it keeps a share."""
    osnet, mobilenet = table_of("best-small"), table_of("best-small-mobilenet")
    assert osnet["train"].pop("start_share") == {"backbone": 0.1}
    assert osnet["data"].pop("image") != mobilenet["data"].pop("image")
    for key in ("data", "train", "post", "eval"):
        assert osnet[key] == mobilenet[key]
    assert osnet["matcher"][0] == mobilenet["matcher"][0]
    assert osnet["loss"][2:] == mobilenet["loss"][2:]


def test_the_run_for_unseen_cameras_differs_in_training_and_views_alone():
    own, unseen = table_of("best-small"), table_of("best-small-unseen")
    jitter = unseen["data"]["augment"].pop(1)
    assert jitter["use"] == "core.jitter"
    assert own["loss"].pop()["use"] == "qaconv.triplet"
    assert own["train"]["start_share"]["backbone"] < unseen["train"]["start_share"]["backbone"]
    for key in ("name", "train", "optim"):
        del own[key], unseen[key]
    del own["eval"]
    assert own == unseen


def test_the_distilled_run_learns_from_the_best_one():
    """Its teacher is where that run is left, sees the same pictures, and teaches both losses."""
    student, teacher = table_of("market-distilled"), table_of("best-small-mobilenet")
    losses = [loss for loss in student["loss"] if loss["use"].startswith("core.distill_")]
    assert {loss["teacher"] for loss in losses} == {f"runs/{teacher['name']}"} and len(losses) == 2
    for key in ("train", "image"):
        assert student["data"][key] == teacher["data"][key]
    assert student["data"]["test"][0] == {"manifest": teacher["data"]["test"][0]["manifest"]}


def test_a_memory_without_zeros_is_tried_before_training():
    """It compares with nothing in the first step; the dry run goes on to what the second does."""
    plan = plan_of("demo", "loss.memory.unseen=left_out", *few_pictures()[1::2])
    assert dry_run(plan, build_model(plan, 0)) == []


@pytest.mark.parametrize("name", SMALL_LOSSES)
def test_small_rows_of_other_losses_have_the_same_recipe(name):
    """Pictures, batches, optimizer and epochs are those of market-small; head, matcher and loss
    those of table 1, but for identities that a memory has not seen yet."""
    small, row = table_of("market-small"), table_of(name)
    if name == "market-small-memory":
        assert row["loss"][0].pop("unseen") == small["loss"][0]["unseen"]
    paper = table_of(name.replace("market-small", "loss"))
    for kind in ("head", "matcher", "loss"):
        assert row.pop(kind) == paper[kind]
        del small[kind]
    for key in ("name", "post", "ranking"):
        del small[key]
    assert row.pop("name") == f"qaconv-{name}"
    assert row["data"].pop("test")[0]["manifest"] == small["data"].pop("test")[0]["manifest"]
    assert row == small


def test_the_demo_runs(tmp_path, monkeypatch):
    """Every stage of both rankings has its scores, and lifting changes the order of pictures. The
    README's files score it again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_DATA", str(tmp_path))
    out = tmp_path / "run"
    assert main(["run", "qaconv:demo", "--out", str(out), *few_pictures("train.epochs=1")]) == 0
    scores = json.loads((out / "scores.json").read_text())["demo"]
    assert list(scores["reranked"]) == ["plain", "rerank", "rerank+tlift"]
    assert list(scores["lifted"]) == ["plain", "tlift"]
    for ranking, before, after in (
        ("reranked", "plain", "rerank"),
        ("reranked", "rerank", "rerank+tlift"),
        ("lifted", "plain", "tlift"),
    ):
        assert scores[ranking][before]["mAP"] != scores[ranking][after]["mAP"]
    readme = Path(__file__).parents[1].joinpath("README.md").read_text()

    def evaluated(word: str) -> dict[str, Any]:
        """The scores of the run by the README's file in which this word stands."""
        (text,) = (
            one for one in re.findall(r"```toml\n(.*?)```", readme, re.DOTALL) if word in one
        )
        Path(f"{word}.toml").write_text(text)
        assert main(["eval", str(out), f"{word}.toml", "-o", f"{word}.json"]) == 0
        return json.loads(Path(f"{word}.json").read_text())

    # A test set without times, as table 4 has them, on which nothing can be lifted.
    (test,) = plan_of("demo", *few_pictures()[1::2]).data.test
    rows = [attrs.evolve(row, time=None) for row in test.rows or () if row.split != "train"]
    write_manifest(Path("other.csv"), rows)
    assert list(evaluated("other.csv")["other"]["reranked"]) == ["plain", "rerank"]
    # The paper's other way to use times, of the section TFusion.
    fused = evaluated("tfusion")["demo"]["fused"]
    assert fused["rerank"] == scores["reranked"]["rerank"]
    assert fused["rerank+tfusion"]["mAP"] != fused["rerank"]["mAP"]


def test_a_trained_run_draws_by_another_rule(tmp_path, monkeypatch, session_cache):
    """`reid explain --set` chooses what lines weigh: the contribution, or the paper's cosine."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "qaconv:demo", "--out", "run", *few_pictures("train.epochs=0")]) == 0
    one, other = sorted(Path(os.environ["REID_CACHE"]).rglob("*.jpg"))[:2]
    Path("plain.toml").write_text('format = 1\n[[ranking]]\nname = "plain"\nmatcher = "pairs"\n')
    where = ("plain.toml", "--query", str(one), "--gallery", str(other))
    for name, sets, column, scale in (
        ("contribution", (), "contribution", 200),
        ("cosine", ("--set", "matcher.pairs.drawn=cosine"), "cosine", 1),
    ):
        assert main(["explain", "run", *where, *sets, "-o", name]) == 0
        (found,) = Path(name).glob("*to_gallery*.csv")
        lines = list(csv.DictReader(found.open()))
        weights = [float(line["weight"]) for line in lines]
        assert weights == pytest.approx([scale * float(line[column]) for line in lines], rel=1e-4)


MIXED = """
format = 1
name = "mixed"

[data]
train = { read = "core.demo", train_identities = 6, test_identities = 5, pictures = 8 }
test = [{ read = "core.demo", train_identities = 6, test_identities = 5, pictures = 8 }]
image = [64, 32]
batch = { use = "core.identities", ids = 4, per_id = 2 }

[backbone]
use = "core.osnet"
width = 0.25

[[head]]
name = "local"
use = "qaconv.local"
source = "backbone.layer4"
channels = 0

[[matcher]]
name = "pairs"
use = "qaconv.matcher"
feature = "local.map"
head = "shared"

[[matcher]]
name = "look"
use = "core.euclidean"
features = ["backbone.fc"]

[[loss]]
name = "memory"
use = "qaconv.memory"
feature = "local.map"
matcher = "pairs"

[[loss]]
name = "id"
use = "core.softmax"
features = ["backbone.fc"]

[[post]]
name = "tlift"
use = "qaconv.tlift"

[[ranking]]
name = "lifted"
matcher = "look"
scale = "logistic"
post = ["tlift"]

[[ranking]]
name = "all"
matcher = "pairs"
post = ["tlift"]

[[ranking]]
name = "quick"
matcher = "pairs"
shortlist = { by = "look", top = 8 }
post = ["tlift"]

[train]
epochs = 1

[optim]
lr = 1e-3
"""
"""QAConv on an OSNet, TLift behind a calibrated vector matcher, and both on a shortlist."""


def test_parts_mix_in_a_run_file(tmp_path, monkeypatch, capsys):
    """Everything is scored; with a shortlist of the whole gallery, as without one."""
    monkeypatch.chdir(tmp_path)
    Path("mixed.toml").write_text(MIXED)
    assert main(["run", "mixed.toml", "--out", "run"]) == 0
    said = re.search(r"ranking quick, 8 of (\d+) gallery pictures", capsys.readouterr().out)
    scores = json.loads(Path("run/scores.json").read_text())["demo"]
    assert list(scores) == ["lifted", "all", "quick"]
    for stages in scores.values():
        assert list(stages) == ["plain", "tlift"]
        assert stages["plain"]["mAP"] != stages["tlift"]["mAP"]
    assert scores["quick"]["plain"] != scores["all"]["plain"]
    whole = f"ranking.quick.shortlist.top={said[1]}"
    assert main(["eval", "run", "--set", whole, "-o", "again.json"]) == 0
    again = json.loads(Path("again.json").read_text())["demo"]
    assert again["quick"] == again["all"] == scores["all"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_learns(tmp_path):
    """Trained from scratch, the matcher finds people three times as well as untrained."""
    found = []
    for name, sets in (("untrained", ["--set", "train.epochs=0"]), ("trained", [])):
        out = tmp_path / name
        assert main(["run", "qaconv:demo", "--out", str(out), *sets]) == 0
        scores = json.loads((out / "scores.json").read_text())["demo"]
        found.append(scores["reranked"]["plain"]["mAP"])
    assert found[1] > 3 * found[0]
