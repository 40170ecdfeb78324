"""The plugin's run files, and its parts mixed with the core's and QAConv's in run files alone."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from reidcore.cli.main import main
from reidcore.model.building import build_model
from reidcore.modules import Batch, Images
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import packaged_runs
from tests.packaged import packaged_plan, packaged_table

ROWS = {
    "row1-baseline": {"a1": "layer4a"},
    "row2-attention": {"i": "layer4a"},
    "row3-context": {"m": "layer4a"},
    "row4-two-context": {"a1": "layer4a", "m": "layer4i"},
    "row5-two-attention": {"a1": "layer4a", "i": "layer4i"},
    "row6-three-context": {"a1": "layer4a", "a2": "layer4i", "m": "layer4i"},
    "row7-airnet": {"a1": "layer4a", "a2": "layer4i", "i": "layer4i"},
}
"""Table 3: {vector: the map it is pooled from}."""
RESNET = ("market", "cuhk03-labeled", "cuhk03-detected", "msmt17", "duke")
NAMES = ("demo", *RESNET, *ROWS)
SMALL_ROWS = tuple(f"market-small-{row}" for row in ROWS)
SMALL = [
    "backbone.weights=",
    "backbone.depth=18",
    "backbone.width=0.125",
    "data.image=[64, 32]",
    'data.train={ read = "core.demo", train_identities = 4, test_identities = 3, pictures = 8 }',
    "data.batch.ids=4",
    "repeat={}",
]

pytestmark = pytest.mark.usefixtures("no_data", "session_cache")
table_of = partial(packaged_table, "airnet")
plan_of = partial(packaged_plan, "airnet")


def sizes_of(name: str) -> dict[str, int]:
    model = build_model(plan_of(name, "backbone.weights="), 0)
    return {
        role: sum(parameter.numel() for parameter in part.parameters())
        for role, part in model.parts()
    }


def test_small_rows_differ_as_the_paper_s_do():
    """Heads, matchers and losses are those of table 3's rows; all else is the same in all rows."""
    tables = {row: table_of(f"market-small-{row}") for row in ROWS}
    for row, table in tables.items():
        for kind in ("head", "matcher", "loss"):
            assert table.pop(kind) == table_of(row)[kind]
        assert table.pop("name") == f"airnet-market-small-{row}"
    first, *others = tables.values()
    assert all(other == first for other in others)


def test_these_are_the_run_files():
    found = packaged_runs(Plugins(), "airnet")
    assert sorted(run.name for run in found) == sorted((*NAMES, *SMALL_ROWS))
    for run in found:
        assert run.summary, f"{run.name} has no summary"


@pytest.mark.parametrize("name", NAMES)
def test_each_is_wired(name, capsys):
    assert main(["check", "--no-dry", f"airnet:{name}"]) == 0
    assert "ok: keys and wiring" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_passes_a_dry_run(name, capsys):
    assert main(["check", f"airnet:{name}"]) == 0
    assert "ok: keys, wiring and dry run" in capsys.readouterr().out


def test_airnet_has_the_published_size():
    """42 million without classifiers (table 2): two last stages and W_v, W_u; the three norms and
    Market-1501's classifiers come on top, and with a ResNet-50 the two context blocks."""
    sizes = sizes_of("row7-airnet")
    assert sizes["backbone"] == 38_472_768
    norms = 3 * 2 * 2048
    assert sizes["backbone"] + sizes["head.pool"] - norms == 42_669_120
    assert sum(sizes.values()) == 47_295_552
    assert sizes_of("market")["backbone"] == 38_472_768 + 33_889 + 133_313


def test_the_rows_are_table_3():
    """They differ in head, matcher and losses alone, and these follow from the vectors: each is
    classified behind its norm, has a triplet before it, and is a third, half or whole of both."""
    base = None
    for name, maps in ROWS.items():
        table = table_of(name)
        assert table.pop("name") == f"airnet-{name}"
        (head,), (matcher,) = table.pop("head"), table.pop("matcher")
        expected = {vector: f"backbone.{stage}" for vector, stage in maps.items()}
        assert head == {"name": "pool", "use": "airnet.pool", **expected}
        assert matcher["features"] == [f"pool.{vector}_bn" for vector in maps]
        losses = table.pop("loss")
        assert [loss.get("features") or loss["feature"] for loss in losses] == [
            *([f"pool.{vector}_bn"] for vector in maps),
            *(f"pool.{vector}" for vector in maps),
        ]
        weights = [loss.get("weight", 1.0) for loss in losses]
        assert weights == pytest.approx([1 / len(maps)] * len(losses), abs=1e-15)
        base = base or table
        assert table == base
    assert base["backbone"]["norm"] == "ibn_a"


@pytest.mark.parametrize("name", RESNET)
def test_the_other_runs_differ_in_backbone_and_data(name):
    table, base = table_of(name), table_of("row7-airnet")
    for one in (table, base):
        del one["name"], one["data"]["train"], one["data"]["test"]
    assert table.pop("backbone") == {
        "use": "airnet.resnet",
        "depth": 50,
        "gc": ["layer2", "layer3"],
        "weights": "imagenet",
    }
    del base["backbone"]
    assert table == base


@pytest.mark.parametrize("name", ROWS)
def test_the_loss_is_equation_7(name):
    """The mean over the vectors of their cross-entropies and of their triplets; the descriptor is
    their concatenation behind the norms."""
    plan = plan_of(name, *SMALL)
    model = build_model(plan, 0).train()
    none = torch.zeros(8, dtype=torch.int64)
    batch = Batch(Images(torch.randn(8, 3, 64, 32), none, none), torch.tensor([0, 0, 1, 1] * 2))
    features = model(batch.images)
    total, terms = model.loss(features, batch)
    vectors = list(ROWS[name])
    means = [
        sum(float(terms[f"{kind}_{vector}"]) for vector in vectors) / len(vectors)
        for kind in ("id", "triplet")
    ]
    assert float(total.detach()) == pytest.approx(sum(means), rel=1e-6)
    template = model.matchers["look"].template(features)["vector"]
    expected = torch.cat([features[f"pool.{vector}_bn"] for vector in vectors], 1)
    assert torch.equal(template, expected)
    total.backward()
    without = {key for key, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {f"head_pool.norms.{vector}.bias" for vector in vectors}


def test_the_demo_runs(tmp_path):
    """All vectors together and each alone are ranked, and rank differently."""
    few = ("train_identities=8", "test_identities=6", "pictures=8")
    sets = [f"data.{role}.{one}" for role in ("train", "test.0") for one in few]
    sets += ["train.epochs=1", "backbone.width=0.125"]
    words = [word for one in sets for word in ("--set", one)]
    assert main(["run", "airnet:demo", "--out", str(tmp_path / "run"), *words]) == 0
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["demo"]
    assert list(scores) == ["all", "a1", "a2", "i"]
    assert len({stages["plain"]["mAP"] for stages in scores.values()}) == 4


HEAD = """
format = 1
name = "mixed"

[data]
train = { read = "core.demo", train_identities = 6, test_identities = 5, pictures = 8 }
test = [{ read = "core.demo", train_identities = 6, test_identities = 5, pictures = 8 }]
image = [64, 32]
batch = { use = "core.identities", ids = 4, per_id = 2 }

[[post]]
name = "rerank"
use = "core.rerank"
k1 = 6
k2 = 2

[train]
epochs = 1

[optim]
lr = 1e-3

[[matcher]]
name = "look"
use = "core.cosine"
features = ["pool.a1_bn", "pool.i_bn"]

[[loss]]
name = "id"
use = "core.softmax"
features = ["pool.i_bn"]
"""
OSNET = """
[backbone]
use = "core.osnet"
width = 0.25

[[head]]
name = "pool"
use = "airnet.pool"
a1 = "backbone.layer4"
i = "backbone.layer4"
m = "backbone.layer2"

[[loss]]
name = "other"
use = "core.triplet"
feature = "pool.m"
metric = "cosine"
"""
"""AIR-Net's pooling on an OSNet, of two of its maps."""
QACONV = """
[backbone]
use = "airnet.resnet"
depth = 18
width = 0.125

[[head]]
name = "pool"
use = "airnet.pool"
a1 = "backbone.layer4a"
i = "backbone.layer4i"

[[head]]
name = "local"
use = "qaconv.local"
source = "backbone.layer4i"
channels = 16

[[matcher]]
name = "pairs"
use = "qaconv.matcher"
feature = "local.map"
head = "shared"

[[loss]]
name = "memory"
use = "qaconv.memory"
feature = "local.map"
matcher = "pairs"

[[ranking]]
name = "look"
matcher = "look"
post = ["rerank"]

[[ranking]]
name = "pairs"
matcher = "pairs"
post = ["rerank"]
"""
"""QAConv's matcher on the map of AIR-Net's second last stage."""


def run_mixed(parts: str) -> dict:
    Path("mixed.toml").write_text(HEAD + parts)
    assert main(["run", "mixed.toml", "--out", "run", "--set", "train.device=cpu"]) == 0
    return json.loads(Path("run/scores.json").read_text())["demo"]


def test_the_pooling_stands_on_an_osnet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores = run_mixed(OSNET)["main"]
    assert list(scores) == ["plain", "rerank"] and scores["plain"] != scores["rerank"]


def test_qaconv_matches_airnets_map(tmp_path, monkeypatch, capsys):
    """Both matchers are trained and re-ranked; each vector is found in its own branch alone."""
    monkeypatch.chdir(tmp_path)
    scores = run_mixed(QACONV)
    assert list(scores) == ["look", "pairs"]
    for stages in scores.values():
        assert list(stages) == ["plain", "rerank"] and stages["plain"] != stages["rerank"]
    drawn = next(Path(tmp_path.parent / "cache").glob("*/query"))
    command = ["explain", "run", "--query", str(drawn), "--gallery", str(drawn), "--top", "1"]
    command += ["--limit", "1", "--device", "cpu", "--losses"]
    vectors = ["--feature", "pool.a1", "--feature", "pool.i_bn"]
    both = ["--map", "backbone.layer4a", "--map", "backbone.layer4i"]
    assert main([*command, *vectors, *both, "-o", "why"]) == 0
    with open("why/index.csv", newline="") as file:
        found = {row["explanation"]: row["csv"] for row in csv.DictReader(file)}
    drawn_of = {name for name in found if name.startswith("gradcam.") and ".pool." in name}
    drawn_of |= {name for name in found if name.startswith("gradcam.pool.")}
    assert drawn_of == {
        "gradcam.pool.a1.backbone.layer4a",
        "gradcam.pool.i_bn.backbone.layer4i",
        "gradcam.id.pool.i_bn.backbone.layer4i",
    }
    assert "head.pool.i" in found
    values = [
        np.genfromtxt(Path("why", found[name]), delimiter=",", names=True)["value"]
        for name in sorted(drawn_of)
    ]
    assert all(one.max() > 0 for one in values) and not np.array_equal(values[0], values[2])
    capsys.readouterr()
    wrong = ["--feature", "pool.i_bn", "--map", "backbone.layer4a", "-o", "new"]
    assert main([*command, *wrong]) == 2
    said = capsys.readouterr().err
    assert "'pool.i_bn' depends on none of the maps backbone.layer4a" in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_learns(tmp_path):
    """Trained from scratch, every vector finds people four times as well as untrained."""
    found = []
    for name, sets in (("untrained", ["--set", "train.epochs=0"]), ("trained", [])):
        out = tmp_path / name
        assert main(["run", "airnet:demo", "--out", str(out), *sets]) == 0
        scores = json.loads((out / "scores.json").read_text())["demo"]
        found.append({ranking: stages["plain"]["mAP"] for ranking, stages in scores.items()})
    untrained, trained = found
    for ranking, score in trained.items():
        assert score > 4 * untrained[ranking]
