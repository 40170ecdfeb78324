"""The plugin's run files: each is wired, and those of the paper follow its recipe."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from reidcore.cli import main
from reidcore.model import build_model
from reidcore.packaged import find_packaged, packaged_runs
from reidcore.plan import Plan
from reidcore.plugins import Plugins
from reidcore.runfile import parse_runfile
from reidcore.wiring import make_plan

NAMES = ("demo", "market-r152", "market")


@pytest.fixture(autouse=True)
def folders(tmp_path_factory, monkeypatch):
    """No data, no weights, and the demo drawn into this session."""
    data = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("REID_DATA", str(data))
    monkeypatch.setenv("REID_WEIGHTS", str(data))
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def plan_of(name: str) -> Plan:
    text = find_packaged(f"qaconv:{name}", Plugins()).text
    run = parse_runfile(text, Path(f"{name}.toml"), ["backbone.weights="])
    return make_plan(run, Plugins(), allow_missing=True)


def test_these_are_the_run_files():
    assert tuple(run.name for run in packaged_runs(Plugins(), "qaconv")) == NAMES
    for run in packaged_runs(Plugins(), "qaconv"):
        assert run.summary, f"{run.name} has no summary"


@pytest.mark.parametrize("name", NAMES)
def test_each_is_wired(name, capsys):
    assert main(["check", "--no-dry", f"qaconv:{name}"]) == 0
    assert "ok: keys and wiring" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "backbone"), [("market", 8_543_296), ("market-r152", 43_179_072)])
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


def test_the_deeper_network_changes_nothing_else():
    tables = [
        tomllib.loads(find_packaged(f"qaconv:{name}", Plugins()).text)
        for name in ("market", "market-r152")
    ]
    for table in tables:
        del table["name"], table["backbone"]["depth"]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("name", ["demo", "market", "market-r152"])
def test_there_are_four_rankings_in_one_run(name):
    """Plain, re-ranked, re-ranked and lifted, and lifted alone."""
    chains = [tuple(ranking.post) for ranking in plan_of(name).rankings]
    assert chains == [("rerank", "tlift"), ("tlift",)]


def small(*more: str) -> list[str]:
    """The demo with few pictures, as arguments."""
    few = ("train_identities=8", "test_identities=6", "pictures=8")
    sets = [f"data.{role}.{one}" for role in ("train", "test.0") for one in few]
    return [word for one in (*sets, *more) for word in ("--set", one)]


def test_the_demo_runs(tmp_path, capsys):
    """Every stage of both rankings has its scores, and lifting changes the order of pictures."""
    out = tmp_path / "run"
    assert main(["run", "qaconv:demo", "--out", str(out), *small("train.epochs=1")]) == 0
    scores = json.loads((out / "scores.json").read_text())["demo"]
    assert list(scores["reranked"]) == ["plain", "rerank", "rerank+tlift"]
    assert list(scores["lifted"]) == ["plain", "tlift"]
    for ranking, before, after in (
        ("reranked", "plain", "rerank"),
        ("reranked", "rerank", "rerank+tlift"),
        ("lifted", "plain", "tlift"),
    ):
        assert scores[ranking][before]["mAP"] != scores[ranking][after]["mAP"]


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
