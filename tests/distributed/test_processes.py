"""Several processes, started as torchrun does, share an evaluation and give the scores of one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from distributions import ROOT
from running import TINY, environment, reid, shared

COUNT = 3

RUN = (
    TINY.replace("epochs = 6", "epochs = 1").replace("test_identities = 3", "test_identities = 9")
    + "tar_at = [0.05]\nbatch = 5\nmemory = 4e-6\n"
    'protocol = { use = "open_set", trials = 1 }\n'
    '\n[[post]]\nname = "rerank"\nuse = "core.rerank"\nk1 = 4\nk2 = 2\n'
    '\n[[ranking]]\nname = "whole"\nmatcher = "look"\n'
    '\n[[ranking]]\nname = "reranked"\nmatcher = "look"\npost = ["rerank"]\n'
)
"""Whose templates are made in odd batches, and whose queries are scored a few at a time."""

PARTS = """
import attrs
import torch
from reidcore.cli.main import leave
from reidcore.ranking.resources import Resources
from tests.rerank_cases import matcher_ranking, vectors
from reidcore.api import Feature, Given
from reidcore.builtin import settings
from reidcore.builtin.matchers import build_euclidean
from reidcore.builtin.reranking import Rerank
from reidcore.modules import Context
from reidcore.distributed.processes import together

config = settings.Euclidean(features=["x.x"])
given = Given((1, 1), features={"x.x": Feature.vector(6)})
matching = config.describe(given)
with together() as processes:
    assert processes.count == 3, processes
    own = processes.everyone(torch.full((processes.number, 2), processes.number))
    assert [len(value) for value in own] == [0, 1, 2]
    assert own[2].dtype == torch.int64 and (own[2] == 2).all()
    rows = [slice(first, min(first + 2, 11)) for first in range(0, 11, 2)]
    made = torch.zeros(11, 3, dtype=torch.float16)
    for place, block in processes.share(rows):
        made[block] = place + 1
    processes.complete(made, rows)
    assert made[:, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    for entries in (1, 300, 2**23):
        for symmetric in (True, False):
            found = []
            for shared in (True, False):
                ranking = matcher_ranking(build_euclidean(config, Context(given, "look")),
                                          attrs.evolve(matching, symmetric=symmetric),
                                          vectors(60, 1, 7), 20,
                                          Resources(processes=processes) if shared else Resources())
                whole = ranking.whole()
                found.append(Rerank(settings.Rerank(k1=7, k2=3), entries)(whole, ranking))
            assert torch.equal(*found), (entries, symmetric)
print("all equal")
leave(0)
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "tiny.toml").write_text(RUN, encoding="utf-8")
    reid(environment(folder / "cache"), folder, "run", "tiny.toml", "--out", "run")
    return folder


def test_an_evaluation_is_shared(work: Path):
    """Scores of three processes are those of one to the last digit, and one of them speaks."""
    env = environment(work / "cache")
    alone = reid(env, work, "eval", "run", "-o", "one.json").stdout
    done = shared(env, work, COUNT, "-m", "reidcore", "eval", "run", "-o", "three.json")
    assert done.stdout == alone
    one, three = (json.loads((work / f"{name}.json").read_text()) for name in ("one", "three"))
    assert one == three
    assert set(one["demo"]) == {"whole", "reranked"}
    assert not list((work / "run").glob("scoring-*"))


def test_templates_may_stay_on_disk(work: Path):
    """The scores are the same, in several processes too, and no file is left."""
    env = environment(work / "cache")
    disk = ["eval", "run", "--set", "eval.templates=disk", "-o"]
    alone = reid(env, work, "eval", "run", "-o", "device.json").stdout
    assert reid(env, work, *disk, "disk.json").stdout == alone
    shared(env, work, COUNT, "-m", "reidcore", *disk, "shared.json")
    texts = {(work / f"{name}.json").read_text() for name in ("device", "disk", "shared")}
    assert len(texts) == 1
    assert not list((work / "run").glob("scoring-*"))


def test_blocks_are_shared(work: Path, tmp_path: Path):
    """What is exchanged arrives as it was, and re-ranking in blocks of any size is that of one."""
    (tmp_path / "parts.py").write_text(PARTS, encoding="utf-8")
    env = environment(work / "cache")
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = shared(env, tmp_path, COUNT, "parts.py")
    assert done.stdout.count("all equal") == COUNT


def test_what_is_not_shared_says_so(work: Path):
    """A command for one process, or processes that do not exist."""
    env = environment(work / "cache", WORLD_SIZE="2")
    said = reid(env, work, "plugins", code=2).stderr
    assert "`reid plugins` works in one process, and torchrun has started 2 (WORLD_SIZE)" in said
    for command in (["run", "tiny.toml", "--out", "more"], ["eval", "run"]):
        said = reid(env, work, *command, code=2).stderr
        assert "WORLD_SIZE is 2, but the processes cannot find each other" in said
        assert "Start them with torchrun, or unset WORLD_SIZE" in said
