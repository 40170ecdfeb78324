"""Features, templates and distances of pictures by a run's model."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from running import TINY

from reidcore.data.pictures import make_rows
from reidcore.errors import ReidError
from reidcore.model.building import build_model, make_loader
from reidcore.model.training_pairs import choose_pictures
from reidcore.plugins.loading import Plugins
from reidcore.ranking.comparer import Comparer, make_comparer
from reidcore.ranking.templates import Storage
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.seeds import generator
from reidcore.wiring.make_plan import make_plan


@pytest.fixture(scope="module")
def comparer(tmp_path_factory) -> Comparer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_CACHE", str(tmp_path_factory.mktemp("cache")))
        run = parse_runfile(TINY + 'views = ["plain", "flip"]\nbatch = 5\n', Path("run.toml"))
        plan = make_plan(run, Plugins([]), make_data=True)
    model = build_model(plan, 0).eval()
    return make_comparer(model, make_loader(plan, model.device))


@pytest.fixture(scope="module")
def rows(comparer):
    data = comparer.model.plan.data
    numbering = data.numbering
    return make_rows(data.training_rows(), numbering.cameras, numbering.modalities)


def test_a_scorer_is_as_the_run_says(comparer):
    assert list(comparer.views) == ["plain", "flip"] and comparer.batch == 5
    assert comparer.resources.memory == comparer.model.plan.runfile.eval.memory


def test_templates_are_the_same_wherever_they_are_stored(comparer, rows, tmp_path):
    """On the device, in the CPU's memory and in files, which hold the very numbers."""
    some = rows.take(range(7))
    found = comparer.templates(["look"], some)["look"]["vector"]
    assert found.shape[0] == 7
    device = comparer.model.device
    for storage in (Storage(device, host=True), Storage(device, folder=tmp_path)):
        other = comparer.templates(["look"], some, storage)["look"]["vector"]
        assert torch.equal(other, found)
    stored = torch.frombuffer(
        bytearray((tmp_path / "look.vector").read_bytes()), dtype=torch.float32
    )
    assert torch.equal(stored.view_as(found), found)
    assert comparer.templates(["look"], rows.take([]))["look"]["vector"].shape[0] == 0


def test_templates_merge_the_views(comparer, rows):
    """A template is the mean of the views' alone."""
    some = rows.take(range(4))
    views = [
        attrs.evolve(comparer, views=(view,)).templates(["look"], some)["look"]["vector"]
        for view in ("plain", "flip")
    ]
    assert not torch.allclose(*views)
    matcher = comparer.model.matchers["look"]
    merged = matcher.merge([{"vector": view} for view in views])["vector"]
    found = comparer.templates(["look"], some)["look"]["vector"]
    torch.testing.assert_close(found, merged)


def test_features_come_in_the_order_of_the_rows_in_eval_mode(comparer, rows):
    """And a model that is training goes on training between two batches."""
    some = rows.take(range(12))
    comparer.model.train()
    try:
        before = {name: value.clone() for name, value in comparer.model.state_dict().items()}
        parts = []
        for features, batch in comparer.features(some):
            assert comparer.model.training and not features["neck.bn"].requires_grad
            parts.append((features["neck.bn"], batch.pid))
    finally:
        comparer.model.eval()
    assert [len(pid) for _, pid in parts] == [5, 5, 2]
    assert torch.cat([pid for _, pid in parts]).tolist() == some.pid.tolist()
    after = comparer.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    whole = torch.cat([found for found, _ in parts])
    alone = torch.cat([found["neck.bn"] for found, _ in comparer.features(some.take([3, 11]))])
    torch.testing.assert_close(alone, whole[[3, 11]])


def test_distances_are_the_matchers(comparer, rows):
    template = comparer.templates(["look"], rows.take(range(6)))["look"]
    with torch.no_grad():
        expected = comparer.model.matchers["look"].distance(template, template)
    torch.testing.assert_close(comparer.distances("look", template, template), expected)


def test_training_pairs_follow_from_the_seed(comparer, rows):
    first, second = (comparer.training_pairs(rows, 3)["look"] for _ in range(2))
    assert torch.equal(first.same, second.same) and torch.equal(first.different, second.different)
    assert len(first.same) and (first.different.diff() >= 0).all()
    assert comparer.training_pairs(rows.take([]), 3) == {}


def test_pairs_that_are_not_finite_are_named(comparer, rows, monkeypatch):
    """Of training pairs and of what a sampler asks, by their paths."""
    matcher = comparer.model.matchers["look"]
    made = matcher.distance

    def spoiled(a, b):
        found = made(a, b).clone()
        found[1, 2] = torch.nan
        return found

    monkeypatch.setattr(matcher, "distance", spoiled)
    chosen = rows.take(choose_pictures(rows, generator(3, "training pairs")))
    with pytest.raises(ReidError) as caught:
        comparer.training_pairs(rows, 3)
    assert f"pictures {chosen.paths[1]} and {chosen.paths[2]}" in str(caught.value)
