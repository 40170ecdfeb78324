"""The plugin's run files, its command, and its parts beside those of other plugins."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from reid_msinet.count import main as count
from reid_msinet.genotypes import chosen_genotype
from reidcore.api import Given
from reidcore.cli.main import main
from reidcore.model.building import build_model
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import packaged_runs
from reidcore.runfiles.parse import parse_runfile
from reidcore.training.dry_run import dry_run
from reidcore.wiring.make_plan import make_plan
from tests.packaged import packaged_plan, packaged_table

SETS = ("market", "msmt17", "veri", "vehicleid")
PAIRS = ("msmt17-to-market", "market-to-msmt17", "veri-to-vehicleid")
SCRATCH = tuple(f"{name}-scratch" for name in SETS)
ARCHITECTURES = tuple(
    f"msmt17-{name}" for name in ("none", "gate", "attention", "exchange", "random")
)
ALIGNED = tuple(f"{name}-sam" for name in (*SETS, *PAIRS))
LITERAL = ("msmt17-scratch-paper", "msmt17-to-market-sam-paper")
SEARCHES = (
    "search-msmt17",
    "search-veri",
    "search-msmt17-paper",
    "search-msmt17-code",
    "search-msmt17-tcm-overlap",
    "search-msmt17-ce-overlap",
)
OTHERS = tuple(
    f"{network}-{name}"
    for network in ("osnet", "resnet50")
    for name in (*SETS, *SCRATCH, "msmt17-to-market", "veri-to-vehicleid")
)
OTHERS += ("osnet-veri-sam", "osnet-veri-to-vehicleid-sam")
PAPER = (*SETS, *SCRATCH, *PAIRS, *ARCHITECTURES, *ALIGNED, *LITERAL)
WARD = ("ward", "ward-sam", "ward-osnet", "ward-osnet-sam")
BESIDE = ("market-small-osnet-scratch", "market-small-resnet50-scratch")
MARKET = (*(name.replace("ward", "market-small") for name in WARD), *BESIDE)
SMALL = ("demo", "search-demo", "search-ward", "search-market-small", *WARD, *MARKET)

pytestmark = pytest.mark.usefixtures("no_data")
table_of = partial(packaged_table, "msinet")
plan_of = partial(packaged_plan, "msinet")


@pytest.mark.parametrize("name", BESIDE)
def test_the_small_networks_from_scratch_share_pictures_and_budget(name):
    one, other = table_of("market-small"), table_of(name)
    for table in (one, other):
        for key in ("name", "backbone", "head", "matcher", "loss"):
            del table[key]
    assert one == other


@pytest.mark.parametrize("name", ["market-small", "market-small-osnet"])
def test_small_rows_differ_in_alignment_alone(name):
    plain, aligned = table_of(name), table_of(f"{name}-sam")
    (loss,) = (one for one in aligned["loss"] if one["use"] == "msinet.sam")
    aligned["loss"].remove(loss)
    assert (plain.pop("name"), aligned.pop("name")) == (f"msinet-{name}", f"msinet-{name}-sam")
    assert plain == aligned


def test_these_are_the_run_files():
    found = packaged_runs(Plugins(), "msinet")
    assert sorted(run.name for run in found) == sorted((*PAPER, *OTHERS, *SEARCHES, *SMALL))
    for run in found:
        assert run.summary, f"{run.name} has no summary"


@pytest.mark.parametrize("name", [*PAPER, *OTHERS, *SEARCHES])
def test_each_is_wired(name, capsys):
    assert main(["check", "--no-dry", f"msinet:{name}"]) == 0
    assert "ok: keys and wiring" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*PAPER, *SEARCHES])
def test_the_recipe_is_the_published(name):
    """Picture sizes, batches, augmentation, SGD with warm-up and steps, epochs, smoothing, unit
    triplets and the weight of alignment; only readings of the text differ, where they are named."""
    table = table_of(name)
    vehicle = name.startswith(("ve", "search-ve"))
    across, search, literal = "-to-" in name, name.startswith("search"), name in LITERAL
    assert table["data"]["image"] == [256, 256 if vehicle else 128]
    assert table["data"]["batch"] == {"use": "core.identities", "ids": 16, "per_id": 4}
    last = {"use": "core.erase", "p": 0.5, "fill": [152, 144, 129]}
    if across:
        last = {
            "use": "core.jitter",
            "p": 1.0,
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.3,
            "hue": 0.0,
        }
    assert table["data"]["augment"] == [
        {"use": "core.flip"},
        {"use": "core.pad_crop", "pad": 10},
        last,
    ]
    assert table["train"] == {"epochs": 250 if across else 350}
    optim = {"kind": "sgd", "lr": 0.025 if search else 0.065, "momentum": 0.9, "weight_decay": 5e-4}
    optim["steps"] = {"at": [150, 225, 300], "by": 0.1}
    assert table["optim"] == {**optim, "warmup": {"epochs": 11, "start": 0.01}}
    assert ("weights" in table["backbone"]) == (name in (*SETS, *PAIRS, *ALIGNED, LITERAL[1]))
    for loss in table.get("loss", []):
        assert loss.get("weight") == (2.0 if loss["use"] == "msinet.sam" else None)
        plain = literal and not across
        if loss["use"] == "core.softmax":
            assert loss["bias"] and loss.get("smoothing") == (None if plain else 0.1)
        if loss["use"] == "core.triplet":
            assert loss.get("metric") == (None if plain else "unit")
    aligned = [loss["name"] for loss in table.get("loss", []) if loss["use"] == "msinet.sam"]
    assert aligned == (["align"] if "sam" in name else [])


def test_erased_places_have_the_authors_colour():
    """Their constants are in the space of normalised pixels."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = (0.4914, 0.4822, 0.4465)
    colour = [round(255 * (m + d * c)) for m, d, c in zip(mean, deviation, theirs, strict=True)]
    assert table_of("market-scratch")["data"]["augment"][2]["fill"] == colour


def test_presets_of_the_search_differ_in_what_they_are_named_for():
    """Unit length, the order of steps, the memories' start and alpha's schedule, and whose pictures
    validate."""
    base = table_of("search-msmt17")["procedure"]
    changed = {
        name: table_of(name)["procedure"].items() - base.items()
        for name in SEARCHES
        if "paper" not in name and "code" not in name
    }
    assert base == {"use": "msinet.search", "feature": "pool.vector"}
    halves = {("overlap", 1.0), ("train_only", 0.0)}
    assert changed["search-msmt17-tcm-overlap"] == halves
    assert changed["search-msmt17-ce-overlap"] == halves | {("loss", "softmax")}
    assert table_of("search-msmt17-paper")["procedure"] == {**base, "normalize": "none"}
    assert table_of("search-msmt17-code")["procedure"] == {
        **base,
        "order": "code",
        "memory_init": "zeros",
        "alpha_steps": [150, 225, 350],
    }


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_trained_alike(name):
    """Pictures, batches, epochs and rates are those of MSINet's file, losses its first two."""
    network, _, base = name.partition("-")
    table, own = table_of(name), table_of(base)
    assert (
        table["backbone"].pop("use") == {"osnet": "core.osnet", "resnet50": "core.resnet"}[network]
    )
    assert ("weights" in table["backbone"]) == ("weights" in own["backbone"])
    for key in ("data", "train", "optim", "eval"):
        assert table[key] == own[key]
    losses = [loss for loss in own["loss"] if not loss["name"].startswith("part_")]
    for loss in losses:
        if loss["use"] == "msinet.sam":
            loss["source"] = "backbone.layer4"
    assert table["loss"] == losses


@pytest.mark.parametrize(("network", "millions"), [("osnet", 2.2), ("resnet50", 23.5)])
def test_other_networks_have_the_published_size(network, millions):
    """Table 2 says 2.2 million, and about 24 with what is behind a ResNet-50's trunk."""
    model = build_model(plan_of(f"{network}-market-scratch"), 0)
    size = sum(
        value.numel()
        for role, part in model.parts()
        for value in part.parameters()
        if role == "backbone"
    )
    assert round(size / 1e6, 1) == millions


def test_architectures_differ_in_their_genotype_alone():
    tables = [table_of(name) for name in ("msmt17-scratch", *ARCHITECTURES)]
    for table in tables:
        chosen_genotype(table["backbone"].pop("genotype"), Given((256, 128)))
        table.pop("name")
        table.pop("repeat", None)
        assert table == tables[0]


def test_the_command_prints_the_published_counts(capsys):
    """Parameters and MACs of the whole network, of its stages, with attention, for retrieval alone,
    for vehicles, with CDNet's neck, and of the supernet."""
    assert count([]) == 0
    shown = capsys.readouterr().out
    for number in ("2,328,035", "2,393,699", "1,998,819", "1,949,539", "1129.1", "378,496"):
        assert number in shown
    stages = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[2:11]}
    macs = {
        "stem": "77.1",
        "cell1": "194.0",
        "cell2": "210.8",
        "down1": "134.2",
        "cell3": "173.4",
        "cell4": "116.8",
        "down2": "75.5",
        "cell5": "80.9",
        "cell6": "59.9",
    }
    for stage, found in macs.items():
        assert stages[stage][-1] == found, stage
    assert stages["cell3"] == ["384x32x16", "307,303", "173.4"]
    for arguments, number in (
        (["--image", "256", "256"], "2257.9"),
        (["--neck", "cdnet"], "2,394,979"),
        (["--supernet"], "1047.9"),
        (["gate"], "2,337,672"),
        (["attention"], "2,321,612"),
    ):
        assert count(arguments) == 0
        assert number in capsys.readouterr().out
    assert count(["GGG"]) == 2
    assert "expected 12 letters" in capsys.readouterr().err


MIXED = {
    "qaconv": """
[[head]]
name = "local"
use = "qaconv.local"
source = "backbone.cell4"
channels = 16

[[matcher]]
name = "pairs"
use = "qaconv.matcher"
feature = "local.map"

[[loss]]
name = "memory"
use = "qaconv.memory"
feature = "local.map"
matcher = "pairs"
""",
    "ipad": """
[[head]]
name = "own"
use = "ipad.self_guided"
source = "backbone.cell6"
channels = 16

[[matcher]]
name = "look"
use = "core.euclidean"
features = ["own.vector"]
unit = "merged"

[[loss]]
name = "triplet"
use = "core.triplet"
feature = "own.vector"
""",
    "airnet": """
[[head]]
name = "pool"
use = "airnet.pool"
i = "backbone.cell6"

[[matcher]]
name = "look"
use = "core.cosine"
features = ["pool.i"]

[[loss]]
name = "triplet"
use = "core.triplet"
feature = "pool.i"
""",
}
"""Heads, matchers and losses of other plugins on an MSINet's maps."""


@pytest.mark.parametrize("other", MIXED)
def test_parts_of_other_plugins_stand_on_its_maps(other):
    """From a run file alone, with spatial alignment beside them: wired and run dry."""
    text = f"""
format = 1
[data]
train = {{ read = "core.market1501", root = "none" }}
image = [64, 32]
batch = {{ use = "core.identities", ids = 4, per_id = 2 }}
[backbone]
use = "msinet.net"
channels = [16, 64, 96, 128]
{MIXED[other]}
[[loss]]
name = "align"
use = "msinet.sam"
source = "backbone.cell6"
[train]
epochs = 1
[optim]
lr = 0.01
"""
    plan = make_plan(parse_runfile(text, Path("mixed.toml")), Plugins(), allow_missing=True)
    dry_run(plan, build_model(plan, 0))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_learns(tmp_path, monkeypatch, tmp_path_factory):
    """Trained from scratch it finds people three times as well as untrained."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    found = []
    for name, sets in (("untrained", ["--set", "train.epochs=0"]), ("trained", [])):
        out = tmp_path / name
        assert main(["run", "msinet:demo", "--out", str(out), *sets]) == 0
        scores = json.loads((out / "scores.json").read_text())["demo"]
        found.append(scores["main"]["plain"]["mAP"])
    assert found[1] > 3 * found[0]
