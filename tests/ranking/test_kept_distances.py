"""Long scoring jobs keep finished blocks, so that a killed run or evaluation goes on with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from distributions import write_distribution
from running import TINY, environment, kill_when, left, reid, results

from reidcore.cli.main import main

SLOW = """
from __future__ import annotations
import attrs
from reidcore.api import Component, Matching, TensorSpec, VectorName, hookimpl, setting

@attrs.frozen
class Slow:
    feature: VectorName = setting("what is compared")

    def describe(self, given):
        size = given.vector(self.feature)
        return Matching({"v": TensorSpec((size,))}, pair_bytes=8, pair_flops=10**12)

@hookimpl
def reid_matchers():
    return [Component("slow", Slow, "PACKAGE.parts:build", "takes its time and notes every call")]
"""
"""A matcher of which 18 pairs are a block and 6 x 18 pairs a long job."""

PARTS = """
import os, time
import torch
from reidcore.modules import Matcher

class Slow(Matcher):
    def __init__(self, config):
        super().__init__()
        self.feature = config.feature

    def template(self, features):
        return {"v": features[self.feature]}

    def distance(self, a, b):
        if not self.training and len(b["v"]) == 18:
            with open(os.environ["CALLS"], "a") as file:
                print(len(a["v"]), file=file)
            time.sleep(0.1)
        return (a["v"][:, None] - b["v"]).square().sum(-1)

def build(config, context):
    return Slow(config)
"""

RUN = TINY.replace("epochs = 6", "epochs = 1").replace(
    'use = "core.cosine"\nfeatures = ["neck.bn"]', 'use = "slow.slow"\nfeature = "neck.bn"'
) + (
    '\n[[post]]\nname = "rerank"\nuse = "core.rerank"\nk1 = 4\nk2 = 2\n'
    '\n[[ranking]]\nname = "whole"\nmatcher = "look"\n'
    '\n[[ranking]]\nname = "reranked"\nmatcher = "look"\npost = ["rerank"]\n'
)
QUERIES = 6


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    write_distribution(folder / "site", "slow", SLOW, files={"parts.py": PARTS})
    (folder / "slow.toml").write_text(RUN)
    return folder


@pytest.fixture(scope="module")
def env(base) -> dict[str, str]:
    return environment(base / "cache", base / "site", CALLS=str(base / "calls"))


@pytest.fixture(scope="module")
def whole(base, env) -> Path:
    """The folder of a run that was not killed."""
    printed = reid(env, base, "run", "slow.toml", "--out", "whole").stdout
    assert "the same command goes on with them" in printed
    return base / "whole"


def calls(base: Path) -> int:
    """Scored rows against the whole gallery since the last call."""
    path = base / "calls"
    found = [int(line) for line in path.read_text().split()] if path.exists() else []
    path.unlink(missing_ok=True)
    return sum(found)


def blocks(folder: Path) -> list[Path]:
    """Kept rows against the whole gallery; there are others, of queries and queries."""
    return sorted(folder.glob("scoring-*/*/*-gallery-[0-9]*.safetensors"))


def kill_after_blocks(base: Path, env: dict[str, str], words: list[object], folder: Path) -> int:
    """Kills the command when at least three more blocks are kept; how many rows are kept then."""
    before = len(blocks(folder))
    kill_when(env, base, words, lambda printed: len(blocks(folder)) >= before + 3)
    calls(base)
    return len(blocks(folder))


def test_distances_are_computed_once_for_all_rankings(base, env, whole):
    """Two rankings and a re-ranker ask for the same distances; nothing is left afterwards."""
    assert calls(base) == QUERIES + 18  # queries x gallery and gallery x gallery
    assert not list(whole.glob("scoring-*"))


def test_a_killed_run_goes_on_with_the_blocks_it_has(base, env, whole):
    """Killed in the first distances and again in those of the re-ranking, the run scores only what
    is missing, and ends with the same bytes."""
    calls(base)
    folder = base / "killed"
    words = ["run", "slow.toml", "--out", folder, "--resume"]
    kept = kill_after_blocks(base, env, words, folder)
    assert 3 <= kept <= QUERIES
    kept = kill_after_blocks(base, env, words, folder)
    printed = reid(env, base, *words).stdout
    assert "resumed after epoch 1 of 1" in printed
    assert calls(base) == QUERIES + 18 - kept
    assert results(folder) == results(whole)
    assert not list(folder.glob("scoring-*")) and not left(folder)


@pytest.fixture
def here(base, monkeypatch) -> Path:
    """The current folder of commands in this process, with the plugin installed."""
    for name, value in (("CALLS", "calls"), ("REID_CACHE", "cache")):
        monkeypatch.setenv(name, str(base / value))
    monkeypatch.syspath_prepend(str(base / "site"))
    monkeypatch.chdir(base)
    return base


def command(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def same(one: Path, other: Path) -> bool:
    return json.loads(one.read_text()) == json.loads(other.read_text())


def test_a_killed_evaluation_goes_on(here, env, whole):
    """The same command goes on; another evaluation does not take its blocks, nor damaged ones."""
    calls(here)
    folder = shutil.copytree(whole, here / "evaluated")
    words = ["eval", folder, "-o", "scores.json"]
    kept = kill_after_blocks(here, env, words, folder)
    command("eval", folder, "--set", 'eval.views=["flip"]', "-o", "flipped.json")
    assert calls(here) == QUERIES + 18 and len(blocks(folder)) == kept
    damaged = blocks(folder)[0]
    damaged.write_bytes(damaged.read_bytes()[:-5])
    command(*words)
    assert calls(here) == QUERIES + 18 - kept + 1
    assert same(here / "scores.json", whole / "scores.json")
    assert not list(folder.glob("scoring-*"))
    assert not same(here / "flipped.json", whole / "scores.json")


def test_where_nothing_can_be_kept_the_scores_come_all_the_same(here, env, whole, capsys):
    """Such as on a full disk. It is told once."""
    folder = shutil.copytree(whole, here / "full")
    kill_after_blocks(here, env, ["eval", folder], folder)
    (key,) = folder.glob("scoring-*")
    shutil.rmtree(key)
    # Root may write anywhere, so permissions would not stop it; a file in the way does.
    key.write_text("in the way")
    command("eval", folder, "-o", "full.json")
    assert capsys.readouterr().out.count("note: cannot keep distances") == 1
    assert same(here / "full.json", whole / "scores.json")
