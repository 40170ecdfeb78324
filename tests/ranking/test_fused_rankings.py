"""Rankings by several matchers, and files that replace a run's evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from damage import FILES
from running import TINY, environment, reid

from reidcore.cli.main import main
from reidcore.errors import PluginError
from reidcore.runfiles.tables import RankingTable
from tests.fused_rankings import SCALE, fused

MANY = (FILES / "many.toml").read_text("utf-8")


@pytest.mark.parametrize("scale", [None, SCALE], ids=["raw", "scaled"])
def test_fused_distances_are_weighted_sums(scale):
    """Between all sides, for listed pairs and for expanded queries, each matcher's distances are
    scaled, weighted and added."""
    context, sides, (one, two) = fused(scale)
    change = scale or (lambda distances: distances)

    def expected(a: dict, b: dict) -> torch.Tensor:
        first, second = (
            share.matcher.distance(a[share.name], b[share.name]) for share in (one, two)
        )
        return 0.25 * change(first) + 0.5 * second

    for a, b in (("query", "gallery"), ("gallery", "gallery"), ("gallery", "query")):
        whole = expected(sides[a], sides[b])
        torch.testing.assert_close(context.between(a, b, 0, len(whole)), whole)
        torch.testing.assert_close(context.between(a, b, 1, 3), whole[1:3])
    i, j = torch.tensor([4, 0, 4]), torch.tensor([7, 7, 0])
    whole = expected(sides["query"], sides["gallery"])
    torch.testing.assert_close(context.pairs("query", i, "gallery", j), whole[i, j])
    neighbours = torch.tensor([[3], [1], [0], [7], [2]])
    merged = {
        name: {"v": (sides["query"][name]["v"] + sides["gallery"][name]["v"][neighbours[:, 0]]) / 2}
        for name in ("one", "two")
    }
    torch.testing.assert_close(context.expanded(neighbours), expected(merged, sides["gallery"]))


def test_rows_stretched_by_themselves_have_no_other_distances():
    """Every matcher's row reaches from 0 to its weight; what would not compare is refused."""
    context, sides, (one, two) = fused(by_row=True)
    total = torch.zeros(5, 8)
    for share in (one, two):
        found = share.matcher.distance(sides["query"][share.name], sides["gallery"][share.name])
        low, high = found.amin(1, keepdim=True), found.amax(1, keepdim=True)
        total += share.weight * (found - low) / (high - low)
    torch.testing.assert_close(context.between("query", "gallery", 0, 5), total)
    torch.testing.assert_close(context.between("query", "gallery", 3, 4), total[3:4])
    index = torch.tensor([0])
    for ask in (
        lambda: context.between("gallery", "gallery", 0, 8),
        lambda: context.pairs("query", index, "gallery", index),
    ):
        with pytest.raises(PluginError, match="need_matcher_distances"):
            ask()


@pytest.mark.parametrize(
    ("table", "unit"),
    [
        (RankingTable(name="r", matcher="bounded"), True),
        (RankingTable(name="r", matcher="free"), False),
        (RankingTable(name="r", matcher="bounded", scale="constant"), False),
        (RankingTable(name="r", matcher="free", scale="isotonic"), True),
        (RankingTable(name="r", fuse={"bounded": 0.5, "free": 0.5}), False),
        (RankingTable(name="r", fuse={"bounded": 0.5, "other": 0.5}), True),
        (RankingTable(name="r", fuse={"bounded": 0.7, "other": 0.5}), False),
        (RankingTable(name="r", fuse={"bounded": 0.5, "free": 0.5}, scale="row_minmax"), True),
    ],
)
def test_when_a_fused_distance_is_at_most_one(table: RankingTable, unit: bool):
    assert table.unit({"bounded": True, "other": True, "free": False}) is unit


def test_a_calibrated_matcher_stands_before_what_needs_the_unit_interval(toy_folder, capsys):
    """An unbounded matcher is refused before a post that takes [0, 1], and accepted with a scale
    that promises it; the plan shows the mixture."""
    (toy_folder / "many.toml").write_text(MANY, "utf-8")
    command = ["check", "--no-dry", "many.toml", "--set", 'ranking.fused.post=["walk"]']
    assert main(command) == 0
    assert "fused: 0.5 look + 0.25 plain (scale logistic) -> walk" in capsys.readouterr().out
    assert main([*command, "--set", "ranking.fused.scale=constant"]) == 2
    assert "needs distances in [0, 1]" in capsys.readouterr().err


FUSED = """
[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.pooled"]

[[ranking]]
name = "both"
fuse = { look = 0.5, far = 0.5 }
scale = "isotonic"
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a finished run whose only ranking is fused and calibrated."""
    folder = tmp_path_factory.mktemp("fused")
    (folder / "tiny.toml").write_text(TINY.replace("epochs = 6", "epochs = 2") + FUSED)
    reid(environment(folder / "cache"), folder, "run", "tiny.toml", "--out", "run")
    return folder


@pytest.fixture
def here(work, monkeypatch) -> Path:
    monkeypatch.chdir(work)
    monkeypatch.setenv("REID_CACHE", str(work / "cache"))
    return work


def evaluated(capsys, *words: str) -> dict:
    """The scores that `reid eval` writes."""
    capsys.readouterr()
    code = main(["eval", "run", *words, "-o", "scores.json"])
    assert code == 0, capsys.readouterr().err
    return json.loads(Path("scores.json").read_text())["demo"]


def test_what_was_fitted_is_kept(here, capsys):
    """Evaluated again, without training pictures, the calibrated ranking scores the same."""
    assert evaluated(capsys) == json.loads(Path("run/scores.json").read_text())["demo"]


def test_a_file_replaces_rankings_and_evaluation(here, capsys):
    """Other matchers and scales than in training, fitted on what the run has kept; tables that the
    file lacks stay."""
    Path("other.toml").write_text(
        'format = 1\n[[ranking]]\nname = "far"\nmatcher = "far"\n'
        '[[ranking]]\nname = "scaled"\nmatcher = "far"\nscale = "logistic"\n'
        '[[ranking]]\nname = "row"\nmatcher = "far"\nscale = "row_minmax"\n'
        "[eval]\nranks = [2]\n"
    )
    scores = evaluated(capsys, "other.toml")
    assert list(scores) == ["far", "scaled", "row"]
    # One matcher alone is ranked alike under any scale.
    assert scores["far"] == scores["scaled"] == scores["row"]
    assert "rank-2" in scores["far"]["plain"] and "rank-5" not in scores["far"]["plain"]
    Path("tests.toml").write_text(
        'format = 1\n[data]\ntest = { read = "core.demo", name = "demo", train_identities = 4, '
        "test_identities = 3, pictures = 8, cameras = 2, seed = 3 }\n"
    )
    other = evaluated(capsys, "tests.toml", "--set", "eval.ranks=[3]")
    assert list(other) == ["both"] and "rank-3" in other["both"]["plain"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('format = 1\n\n[backbone]\nuse = "x.y"\n', "e.toml:3: unknown table or key 'backbone' in"),
        (
            "format = 1\n[data]\nimage = [3, 3]\n",
            "e.toml:3: [data]: unknown key 'image' in an eval",
        ),
        ("[eval]\nranks = [1]\n", "e.toml: key 'format' is missing"),
        ("format = 1\ndata = 3\n", "e.toml:2: [data]: expected table, got int 3"),
        (
            'format = 1\n[[ranking]]\nname = "a"\nmatcher = "lok"\n',
            "e.toml:4: ranking 'a': matcher names 'lok', did you mean 'look'?",
        ),
        ("format = 1\n[eval]\nevry = 1\n", "e.toml:3: [eval]: unknown key 'evry', did you mean"),
        ("format = 1\n[eval\n", "e.toml:2: not valid TOML"),
        (
            'format = 1\n[[post]]\nuse = "core.nothing"\n',
            "e.toml:3: postprocessor 'post0' (core.nothing): plugin 'core' has no postprocessor",
        ),
    ],
)
def test_mistakes_in_such_a_file_are_told_with_its_lines(here, capsys, text: str, says: str):
    Path("e.toml").write_text(text)
    assert main(["eval", "run", "e.toml"]) == 2
    assert says in capsys.readouterr().err


def test_a_missing_file_is_told(here, capsys):
    assert main(["eval", "run", "nothere.toml"]) == 2
    assert "no run file at" in capsys.readouterr().err
