"""What an evaluation takes of a plan, and what whoever watches it gets."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from running import TINY

from reidcore.errors import DataError
from reidcore.evaluation.evaluate import evaluate
from reidcore.evaluation.evaluation_job import evaluation_job
from reidcore.evaluation.trial import DistanceBlock
from reidcore.model.building import build_model, make_loader
from reidcore.plugins.loading import Plugins
from reidcore.ranking.comparer import make_comparer
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.progress import Silent
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan

RANKINGS = """\
ranks = [1, 3]

[[post]]
name = "wider"
use = "core.expand"
top = 2

[[ranking]]
name = "main"
matcher = "look"

[[ranking]]
name = "expanded"
matcher = "look"
post = ["wider"]
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    text = TINY.replace("epochs = 6", 'epochs = 6\nbest = "rank-2"\nseed = 4') + RANKINGS
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_plan(parse_runfile(text, Path("run.toml")), Plugins([]), make_data=True)


def test_a_job_is_what_the_plan_says(plan):
    job = evaluation_job(plan)
    assert (job.seed, job.ranks, job.matchers) == (4, (1, 3, 2), ["look"])
    assert [one.name for one in job.rankings] == ["main", "expanded"]
    assert [one.name for one in job.sets] == ["demo"] and list(job.posts) == ["wider"]
    assert len(job.sets[0].rows) == len(plan.data.test[0].rows)


def test_absent_pictures_are_told(plan):
    gone = attrs.evolve(plan.data.test[0], rows=None, missing="/nowhere")
    absent = attrs.evolve(plan, data=attrs.evolve(plan.data, test=(gone,)))
    with pytest.raises(DataError, match="test 'demo': data not found at /nowhere"):
        evaluation_job(absent)


def test_a_watcher_gets_every_distance_once(plan, tmp_path):
    """Of every ranking and stage, with the pictures that they are between; scores are the same
    whether anybody watches."""
    model = build_model(plan, 0).eval()
    comparer = make_comparer(model, make_loader(plan, model.device))
    seen: dict[tuple[str, str, str], list[DistanceBlock]] = {}

    def watch(block: DistanceBlock) -> None:
        seen.setdefault(block.place, []).append(block)

    job, kept = evaluation_job(plan), comparer.kept_blocks(tmp_path, Silent())
    scores = evaluate(job, comparer, kept, Silent(), watch)
    assert scores == evaluate(job, comparer, kept, Silent())
    stages = [("main", "plain"), ("expanded", "plain"), ("expanded", "wider")]
    assert list(seen) == [("demo", *stage) for stage in stages]
    assert {
        (ranking, stage) for ranking in scores["demo"] for stage in scores["demo"][ranking]
    } == (set(stages))
    for blocks in seen.values():
        (trial,) = {id(block.trial): block.trial for block in blocks}.values()
        assert trial.number == 0 and trial.labelled.name == "demo"
        places = torch.cat(
            [torch.arange(block.start, block.start + len(block.distances)) for block in blocks]
        )
        assert places.tolist() == list(range(len(trial.query)))
        assert {block.distances.shape[1] for block in blocks} == {len(trial.gallery)}
    plain, same = (torch.cat([b.distances for b in seen["demo", *one]]) for one in stages[:2])
    assert torch.equal(plain, same)
    template = comparer.templates(["look"], trial.labelled.rows)["look"]
    query, gallery = (
        {"vector": template["vector"][numbers]} for numbers in (trial.query, trial.gallery)
    )
    torch.testing.assert_close(plain, comparer.distances("look", query, gallery))
