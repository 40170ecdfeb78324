"""The plugin's run files: each is wired, the paper's follow its recipe, and variants differ in what
the paper varies alone."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from reidcore.cli.main import main
from reidcore.model.building import build_model
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged, packaged_runs
from reidcore.runfiles.parse import parse_runfile
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan
from tests.packaged import packaged_plan, packaged_table

VARIANTS = ("duke-baseline", "duke-v1", "duke-v2", "duke", "duke-attention")
PERSONS = (*VARIANTS, "market", "cuhk03")
VEHICLES = ("veri", "vehicleid")
WARD = ("ward-baseline", "ward-v1", "ward-v2", "ward")
SMALL = (*(name.replace("ward", "market-small") for name in WARD), "market-small-attention")
NAMES = ("demo", *PERSONS, *VEHICLES, *WARD, *SMALL)
BRANCHES = {
    # losses, and matchers whose distances are added
    "baseline": (["id", "triplet"], ["global"]),
    "v1": (["id", "triplet", "mutual_triplet"], ["global", "mutual"]),
    "v2": (["id", "triplet", "self_id", "self_triplet"], ["global", "self"]),
    "": (
        ["id", "triplet", "self_id", "self_triplet", "mutual_triplet"],
        ["global", "self", "mutual"],
    ),
}
BRANCHES["attention"] = BRANCHES[""]
"""By the end of a run file's name."""

pytestmark = pytest.mark.usefixtures("no_data")
table_of = partial(packaged_table, "ipad")


def plan_of(name: str, *sets: str) -> Plan:
    return packaged_plan("ipad", name, "backbone.weights=", *sets)


@pytest.mark.parametrize("name", WARD)
def test_small_rows_differ_from_those_on_ward_in_pictures_and_epochs(name):
    small, ward = table_of(name.replace("ward", "market-small")), table_of(name)
    for table in (small, ward):
        del table["name"], table["data"]["train"], table["data"]["test"], table["train"]
    assert small == ward


def test_these_are_the_run_files():
    assert sorted(run.name for run in packaged_runs(Plugins(), "ipad")) == sorted(NAMES)
    for run in packaged_runs(Plugins(), "ipad"):
        assert run.summary, f"{run.name} has no summary"


@pytest.mark.parametrize("name", [*PERSONS, *VEHICLES])
def test_each_is_wired(name, capsys):
    assert main(["check", "--no-dry", f"ipad:{name}"]) == 0
    assert "ok: keys and wiring" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*PERSONS, *VEHICLES])
def test_the_recipe_is_the_papers(name):
    """Sections III-D and IV: picture sizes, batches, augmentation, Adam with two steps in 160
    epochs, label smoothing, one margin, both views, one width for self and one for pairs."""
    table = table_of(name)
    vehicle = name in VEHICLES
    assert table["data"]["image"] == ([256, 256] if vehicle else [256, 128])
    assert table["data"]["batch"] == {"use": "core.identities", "ids": 16, "per_id": 4}
    assert table["data"]["augment"] == [{"use": "core.flip"}, {"use": "core.pad_crop", "pad": 10}]
    assert table["train"] == {"epochs": 160}
    optim = {"kind": "adam", "lr": 3.5e-4, "weight_decay": 5e-4}
    assert table["optim"] == {**optim, "steps": {"at": [40, 70], "by": 0.1}}
    assert table["eval"] == {"views": ["plain", "flip"]}
    widths = {head["name"]: head["channels"] for head in table["head"] if "channels" in head}
    for head, width in widths.items():
        assert width == {"own": 512, "pair": 256 if vehicle else 128}[head]
    for loss in table["loss"]:
        assert "weight" not in loss and "margin" not in loss
        assert loss.get("smoothing") == (0.1 if loss["use"] == "core.softmax" else None)


@pytest.mark.parametrize("name", NAMES)
def test_branches_losses_and_distances_belong_together(name):
    data, _, variant = name.replace("market-small", "small").partition("-")
    losses, fused = BRANCHES[variant]
    table = table_of(name)
    assert [loss["name"] for loss in table["loss"]] == losses
    assert [matcher["name"] for matcher in table["matcher"]] == fused
    first, *alone = plan_of(name).rankings if data not in ("ward", "small") else [None]
    if first is not None and len(fused) > 1:
        assert first.fuse == dict.fromkeys(fused, 1.0)
        assert [ranking.matcher for ranking in alone] == fused


@pytest.mark.parametrize("group", [VARIANTS, WARD, SMALL])
def test_variants_share_all_but_their_branches(group):
    tables = [table_of(name) for name in group]
    for table in tables:
        for key in ("name", "head", "matcher", "ranking", "loss"):
            table.pop(key, None)
        assert table == tables[0]


def test_data_sets_share_all_but_data():
    tables = [table_of(name) for name in ("duke", "market", "cuhk03")]
    for table in tables:
        del table["name"], table["data"]["train"], table["data"]["test"]
        assert table == tables[0]


@pytest.mark.parametrize(
    ("sets", "trunk", "channels"),
    [
        ((), 23_508_032, 2048),
        (("backbone.depth=34",), 21_284_672, 512),
        (("backbone.attention=se",), 26_039_024, 2048),
        (("backbone={ use = 'core.vgg19_bn' }",), 20_035_392, 512),
        (("backbone={ use = 'core.mobilenet_v2' }",), 2_223_872, 1280),
    ],
)
def test_the_papers_backbones_need_one_setting(sets, trunk, channels):
    """Trunk sizes and maps of 16 x 8, from which kernels of 512 and 128 channels are cut."""
    text = find_packaged("ipad:duke", Plugins()).text
    none = [] if any("use" in one for one in sets) else ["backbone.weights="]
    run = parse_runfile(text, Path("duke.toml"), [*none, *sets])
    plan = make_plan(run, Plugins(), allow_missing=True)
    assert plan.given.feature("backbone.layer4").shape == (channels, 16, 8)
    sizes = {
        role: sum(value.numel() for value in part.parameters())
        for role, part in build_model(plan, 0).parts()
    }
    assert sizes["backbone"] == trunk
    hidden = channels // 16
    assert sizes["head.pair"] == (
        128 * channels + 2 * 128**2 + 6 * 128 + hidden * (channels + 1 + hidden + 1 + 128) + 128
    )


@pytest.mark.parametrize("name", [*PERSONS, *VEHICLES, *WARD])
def test_widths_are_related_to_the_map_as_in_the_paper(name):
    """Sections III-C and III-D: a quarter of the backbone's channels for the self-guided branch,
    and for pairs as many channels as there are locations, so that C_t, what the controller gives
    at each, is that too."""
    known = "{ read = 'core.market1501', root = 'none' }"  # whose counts need no list
    plan = plan_of(name, f"data.train={known}", f"data.test=[{known}]")
    channels, height, width = plan.given.feature("backbone.layer4").shape
    heads = table_of(name)["head"]
    widths = {head["name"]: head["channels"] for head in heads if "channels" in head}
    expected = {"own": channels // 4, "pair": height * width}
    assert widths == {name: expected[name] for name in widths}


def test_vehicleid_is_scored_by_its_protocol_on_three_lists():
    tests = plan_of("vehicleid").data.test
    assert [test.source.name for test in tests] == ["small", "medium", "large"]
    listed = table_of("vehicleid")["data"]["test"]
    assert [test["test_list"] for test in listed] == [800, 1600, 2400]
    assert {test.protocol.name for test in tests} == {"vehicleid"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_learns(tmp_path, monkeypatch, tmp_path_factory):
    """Trained from scratch, every branch finds people three times as well as untrained."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    found = []
    for name, sets in (("untrained", ["--set", "train.epochs=0"]), ("trained", [])):
        out = tmp_path / name
        assert main(["run", "ipad:demo", "--out", str(out), *sets]) == 0
        scores = json.loads((out / "scores.json").read_text())["demo"]
        found.append({ranking: stages["plain"]["mAP"] for ranking, stages in scores.items()})
    untrained, trained = found
    assert all(trained[ranking] > 3 * untrained[ranking] for ranking in trained)
