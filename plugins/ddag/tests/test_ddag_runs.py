"""The plugin's run files, what differs between them, and its parts in others' run files."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from running import ended, environment, evaluating, kill_when, left, reid, results, writing

from reid_ddag.plugin import SAMPLE
from reidcore.cli.main import main
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import packaged_runs
from tests.packaged import few_pictures, packaged_plan, packaged_table

STEPS = ("-baseline", "-parts", "-graph", "")
SYSU = tuple(f"sysu{preset}{step}" for preset in ("", "-paper") for step in STEPS)
RESIDUALS = ("sysu-parts-average", "sysu-parts-concat", "sysu-parts-identity")
NODES = {f"sysu-graph-of-{count}": count for count in (1, 2, 4)}
REGDB = ("regdb", "regdb-paper")
DEMOS = tuple(f"demo{step}" for step in STEPS)
NAMES = (*DEMOS, *SYSU, *RESIDUALS, *NODES, *REGDB)
SMALL = tuple(f"{name}{step}" for name in ("market-small", "market-small-osnet") for step in STEPS)

pytestmark = pytest.mark.usefixtures("no_data", "session_cache")


@pytest.mark.parametrize("step", STEPS)
def test_small_rows_differ_from_the_demo_in_pictures_and_width(step):
    small, demo = (packaged_table("ddag", f"{name}{step}") for name in ("market-small", "demo"))
    for table in (small, demo):
        del table["name"], table["data"]["train"], table["data"]["test"]
        del table["backbone"]["width"]
    assert small.pop("repeat") == {"train.seed": [0, 1, 2]}
    assert small["train"].pop("channels_last")
    assert small == demo


def test_these_are_the_run_files():
    assert sorted(run.name for run in packaged_runs(Plugins(), "ddag")) == sorted((*NAMES, *SMALL))
    for run in packaged_runs(Plugins(), "ddag"):
        assert run.summary, f"{run.name} has no summary"


@pytest.mark.parametrize("name", [*NAMES, *SMALL])
def test_each_is_wired(name, capsys):
    """Also without its pictures."""
    assert main(["check", "--no-dry", f"ddag:{name}"]) == 0
    assert "ok: keys and wiring" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_passes_a_dry_run(name, capsys):
    """And every parameter has a gradient."""
    assert main(["check", f"ddag:{name}"]) == 0
    said = capsys.readouterr().out
    assert "ok: keys, wiring and dry run" in said and "no gradient" not in said


def table_of(name: str) -> dict[str, Any]:
    """A packaged file's tables, with lists of named tables as dictionaries."""
    table = packaged_table("ddag", name)
    assert table.pop("name") == f"ddag-{name}"
    for where in ("head", "loss", "matcher", "ranking"):
        table[where] = {part.pop("name"): part for part in table[where]}
    return table


@pytest.mark.parametrize("preset", ["sysu", "sysu-paper", "demo", "market-small-osnet"])
def test_parts_and_graph_are_switched_on_one_by_one(preset):
    """B, B + P, B + G and B + P + G differ in what they are named after, and in nothing else;
    without parts the only feature is f."""
    whole = table_of(preset)
    scales = whole["optim"]["scale"]
    scale_of_graph = {name: scales[name] for name in scales if name == "loss.graph"}
    for step in STEPS[:3]:
        table = table_of(preset + step)
        if step != "-graph":
            table["loss"]["graph"] = whole["loss"]["graph"]
            table["optim"]["scale"] |= scale_of_graph
        if step != "-parts":
            assert list(table["ranking"]) == ["f"]
            assert table["loss"]["id"]["features"] == ["neck.bn"]
            table["loss"]["id"] = whole["loss"]["id"]
            for where, name in (("head", "parts"), ("matcher", "x"), ("ranking", "x")):
                table[where][name] = whole[where][name]
        assert table == whole


def test_the_paper_differs_from_the_program_where_its_text_does():
    """Raw weights, attention by columns and no norm behind the parts; 256 numbers and no last
    activation in the graph; the rate falls at epochs 30 and 50 of 80. It rises first in both."""
    code, paper = table_of("sysu"), table_of("sysu-paper")
    parts, graph = paper["head"]["parts"], paper["loss"]["graph"]
    assert [parts.pop(key) for key in ("weights", "attention", "norm")] == ["raw", "columns", False]
    assert [graph.pop(key) for key in ("dim", "activation")] == [256, "none"]
    assert (paper["train"].pop("epochs"), code["train"].pop("epochs")) == (80, 81)
    assert [table["optim"].pop("steps")["at"] for table in (code, paper)] == [[20, 50], [30, 50]]
    assert code["optim"]["warmup"] == {"epochs": 10}
    assert paper == code


def test_the_rows_of_table_2_differ_in_aggregation_and_residual():
    """The parts' mean, the parts behind the whole, and weighted parts, each with the whole as it
    is; the fourth row, `sysu-parts`, has weighted parts and the normalised whole."""
    last = table_of("sysu-parts")
    assert last["head"]["parts"]["base"] == "neck.bn"
    for name, aggregation in zip(RESIDUALS, ("average", "concat", "weighted"), strict=True):
        table = table_of(name)
        assert table["head"]["parts"].pop("aggregation", "weighted") == aggregation
        assert table["head"]["parts"]["base"] == "neck.pooled"
        table["head"]["parts"]["base"] = "neck.bn"
        if aggregation == "concat":
            alone = table["loss"].pop("parts")
            assert alone == {"use": "core.softmax", "features": ["parts.x"]}
            table["loss"]["id"]["features"].append("parts.x")
        assert table == last


@pytest.mark.parametrize("name", NODES)
def test_the_columns_of_table_3_differ_in_the_nodes_alone(name):
    """The baseline with the graph, as the table's caption says; the last column is `sysu-graph`."""
    table = table_of(name)
    assert table["loss"]["graph"].pop("per_id") == NODES[name]
    assert table == table_of("sysu-graph")


def test_without_a_graph_the_first_column_of_table_3_is_the_baseline():
    table = table_of("sysu-graph")
    del table["loss"]["graph"]
    assert table == table_of("sysu-baseline")


@pytest.mark.parametrize("name", NAMES)
def test_parts_do_not_overlap(name):
    """The map's rows divide into as many parts as there are (section 3.2)."""
    plan = packaged_plan("ddag", name, "backbone.weights=")
    rows = plan.given.feature("backbone.layer4").shape[1]
    for part in plan.heads:
        assert rows % getattr(part.config, "parts", 1) == 0


@pytest.mark.parametrize("name", [*SYSU, *RESIDUALS, *NODES, *REGDB])
def test_scores_have_the_ranks_of_the_tables(name):
    assert table_of(name)["eval"]["ranks"] == [1, 5, 10, 20]


@pytest.mark.parametrize("name", REGDB)
def test_regdb_differs_in_the_data_alone(name):
    """Ten models, one for each division."""
    table, sysu = table_of(name), table_of(name.replace("regdb", "sysu"))
    assert table.pop("repeat") == {"data.trial": list(range(1, 11))}
    train, test = table["data"].pop("train"), table["data"].pop("test")
    assert train == test[0] == {"read": "core.regdb", "root": "RegDB"}
    del sysu["data"]["train"], sysu["data"]["test"]
    assert table == sysu


def test_the_demo_runs(tmp_path, capsys):
    """Both features rank both directions, each in its own way."""
    out = tmp_path / "run"
    assert main(["run", "ddag:demo", "--out", str(out), *few_pictures("train.epochs=1")]) == 0
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores) == ["demo/visible-to-infrared", "demo/infrared-to-visible"]
    for rankings in scores.values():
        assert list(rankings) == ["x", "f"]
        assert rankings["x"]["plain"]["mAP"] != rankings["f"]["plain"]["mAP"]


def edited(*pairs: tuple[str, str], text: str = SAMPLE) -> str:
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def run(text: str, name: str = "run") -> dict[str, Any]:
    """The scores of a run of this text in the current folder."""
    Path(f"{name}.toml").write_text(text)
    assert main(["run", f"{name}.toml", "--out", name]) == 0
    return json.loads(Path(name, "scores.json").read_text())


ONE_MODALITY = (
    (", infrared_cameras = 2", ""),
    ('use = "core.two_modalities"', 'use = "core.identities"'),
    ('protocol = "cross_modality"', 'protocol = "cross_camera"'),
)


def test_parts_are_lifted_by_times(tmp_path, monkeypatch):
    """Two streams and parts on visible pictures alone, re-ranked and lifted by QAConv's TLift."""
    monkeypatch.chdir(tmp_path)
    post = '[[post]]\nname = "rerank"\nuse = "core.rerank"\nk1 = 4\nk2 = 2\n\n'
    post += '[[post]]\nname = "tlift"\nuse = "qaconv.tlift"\nk = 4\n\n[train]'
    scores = run(edited(*ONE_MODALITY, ("[train]", post)))["demo"]["main"]
    assert list(scores) == ["plain", "rerank", "rerank+tlift"]
    assert scores["plain"]["mAP"] != scores["rerank+tlift"]["mAP"]


@pytest.mark.parametrize(
    ("backbone", "neck"),
    [
        ('use = "core.osnet"\nwidth = 0.25', "backbone.fc"),
        ('use = "core.mobilenet_v2"\nwidth = 0.25', "backbone.layer4"),
    ],
)
def test_the_graph_trains_other_backbones(backbone, neck, tmp_path, monkeypatch):
    """The graph loss, and the parts, on a backbone of one stream."""
    monkeypatch.chdir(tmp_path)
    text = edited(
        ('use = "ddag.two_stream"\ndepth = 18\nwidth = 0.125', backbone),
        (
            '"neck"\nuse = "core.bnneck"\nsource = "backbone.layer4"',
            f'"neck"\nuse = "core.bnneck"\nsource = "{neck}"',
        ),
    )
    if neck == "backbone.fc":
        text = edited(
            (
                '[[head]]\nname = "parts"\nuse = "ddag.parts"\nsource = "backbone.layer4"\n'
                'base = "neck.bn"\n\n',
                "",
            ),
            ("parts.x", "neck.bn"),
            ('["neck.bn", "neck.bn"]', '["neck.bn"]'),
            text=text,
        )
    run(text)
    means = Path("run/means.csv").read_text().splitlines()
    row = dict(zip(means[0].split(","), means[1].split(","), strict=True))
    assert float(row["graph.nll"]) > 0 and float(row["graph.balance"]) == 0


def test_qaconv_matches_the_shared_trunk(tmp_path, monkeypatch):
    """QAConv's matcher, its class memory and DDAG's graph on two streams, in one ranking with the
    part feature, fused, of two modalities."""
    monkeypatch.chdir(tmp_path)
    more = """\
[[head]]
name = "local"
use = "qaconv.local"
source = "backbone.layer3"
channels = 8

[[matcher]]
name = "pairs"
use = "qaconv.matcher"
feature = "local.map"

[[ranking]]
name = "pairs"
matcher = "pairs"

[[ranking]]
name = "both"
fuse = { pairs = 0.5, x = 0.5 }

[[loss]]
name = "memory"
use = "qaconv.memory"
feature = "local.map"
matcher = "pairs"

[train]"""
    scores = run(edited(("[train]", more)))
    for rankings in scores.values():
        assert list(rankings) == ["pairs", "both"]


def test_data_without_a_second_modality_are_refused(tmp_path, monkeypatch, capsys):
    """The sampler and the protocol say what is missing, both at once."""
    monkeypatch.chdir(tmp_path)
    Path("one.toml").write_text(edited((", infrared_cameras = 2", "")))
    assert main(["check", "--no-dry", "one.toml"]) == 2
    error = capsys.readouterr().err
    assert "data.batch (core.two_modalities): needs training pictures of two modalities" in error
    assert "needs at least two modalities; this data set has visible" in error


KILLED = edited(
    ("epochs = 1", "epochs = 4"),
    ("augment = []", 'augment = [{ use = "core.flip" }]'),
    ('[eval]\nprotocol = "cross_modality"', '[eval]\nprotocol = "cross_modality"\nevery = 1'),
)
"""A balanced graph with dropout, whose share changes after every epoch."""


SLOW = [pytest.param(moment, marks=pytest.mark.slow) for moment in ("ended", "evaluating")]


@pytest.mark.parametrize("moment", ["writing", *SLOW])
def test_a_killed_run_ends_with_the_same_bytes(moment, tmp_path, tmp_path_factory):
    """Killed after an epoch, in the write of a checkpoint and in an evaluation, and resumed: the
    graph's share goes on, and weights and scores are those of a run that nobody killed."""
    env = environment(tmp_path_factory.getbasetemp() / "cache")
    (tmp_path / "run.toml").write_text(KILLED)
    whole = tmp_path_factory.getbasetemp() / "ddag-whole"
    if not whole.exists():
        reid(env, tmp_path, "run", "run.toml", "--out", whole)
    killed = tmp_path / "killed"
    moments = {"ended": ended(2), "writing": writing(killed), "evaluating": evaluating(2)}
    kill_when(env, tmp_path, ["run", "run.toml", "--out", killed], moments[moment])
    done = reid(env, tmp_path, "run", "run.toml", "--out", killed, "--resume")
    assert "resumed after epoch" in done.stdout or moment == "writing"
    assert results(killed) == results(whole) and not left(killed)
    columns = [line.split(",") for line in (whole / "means.csv").read_text().splitlines()]
    shares = [float(row[columns[0].index("graph.balance")]) for row in columns[1:]]
    assert shares[0] == 0 and len(set(shares)) == 4
    again = [line.split(",") for line in (killed / "means.csv").read_text().splitlines()]
    place = columns[0].index("graph.balance")
    assert [row[place] for row in again] == [row[place] for row in columns]


def test_a_run_goes_on_as_ranked(tmp_path, monkeypatch, capsys):
    """`reid eval` scores a trained run without the plugin's losses, to the same numbers."""
    monkeypatch.chdir(tmp_path)
    scores = run(SAMPLE)
    assert main(["eval", "run", "-o", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text()) == scores
    assert re.search(r"visible-to-infrared\s+main", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_learns(tmp_path):
    """A third of the packaged training, on smaller pictures: in both directions, by both features,
    people are found across modalities three times as well as untrained, and the graph is well
    below chance."""
    found, less = [], ("--set", "data.image=[96, 48]", "--set", "optim.warmup.epochs=1")
    for name, epochs in (("untrained", 0), ("trained", 7)):
        out = str(tmp_path / name)
        sets = (*less, "--set", f"train.epochs={epochs}")
        assert main(["run", "ddag:demo", "--out", out, *sets]) == 0
        found.append(json.loads(Path(out, "scores.json").read_text()))
    before, after = found
    for task, rankings in before.items():
        for ranking, stages in rankings.items():
            trained = after[task][ranking]["plain"]["mAP"]
            assert trained > 3 * stages["plain"]["mAP"], (task, ranking)
    with open(tmp_path / "trained" / "means.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["graph.nll"]) < 0.8 * math.log(500)
