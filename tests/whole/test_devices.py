"""Compositions of the core and of all plugins here are trained and ranked on a stand-in for a GPU,
where tensors of two devices must not meet, and the host must not wait for the device in each step.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from reidcore.errors import ReidError
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import packaged_runs
from reidcore.ranking.distances import compute_distances
from reidcore.runfiles.parse import parse_runfile
from reidcore.training.dry_run import dry_run, random_batch
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan
from tests.mixing import Mix, Mixer
from tests.stand_in_gpu import StandIn

EXPECTED = {
    "reid_ddag/two_stream.py": "pictures of each modality go through layers of their own",
    "reid_msinet/memory.py": "rows of one identity move it one after another",
    "reid_metric_learning/loss.py": "the library counts pairs as it goes",
}
"""Files that may ask the device for numbers in each training step, and why they have to."""


PLUGINS = ("core", "airnet", "ddag", "ipad", "metric_learning", "msinet", "qaconv", "timm")


@cache
def mixer() -> Mixer:
    return Mixer(Plugins(), PLUGINS)


def planned(text: str) -> Plan | None:
    """None for parts that do not fit."""
    try:
        return make_plan(parse_runfile(text, Path("run.toml")), Plugins(), allow_missing=True)
    except ReidError:
        return None


def files(gpu: StandIn) -> dict[str, set[str]]:
    """{file: what it waits for}."""
    found: dict[str, set[str]] = {}
    for operation, place in gpu.waits:
        found.setdefault(place.partition(":")[0], set()).add(operation)
    return found


def stepped(plan: Plan, model: Model) -> None:
    """Two training steps, as `core.train` does them, without what the run adds."""
    batch = random_batch(plan, model.device, training=True)
    optimizer = torch.optim.Adam(model.parameters())
    model.train()
    for _ in range(2):
        features = model(batch.images)
        loss, _ = model.loss(features, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        model.after_step(features, batch)


@pytest.mark.parametrize("mix", mixer().covering([("matcher", "post")]), ids=str)
def test_rankings_stay_on_the_device(mix):
    """Templates, distances, calibrated scales and postprocessors; networks and losses are trained
    one by one below."""
    stay_on_the_device(mix)


@pytest.mark.slow
@pytest.mark.parametrize("mix", mixer().covering(), ids=str)
def test_mixes_stay_on_the_device(mix):
    stay_on_the_device(mix)


def stay_on_the_device(mix: Mix) -> None:
    """Train and rank a composition once, if its parts fit."""
    plan = planned(mixer().text(mix))
    if plan is None:
        return
    model = build_model(plan, 0)
    with StandIn():
        dry_run(plan, model.to("cuda"))


@pytest.mark.parametrize(
    "name", [run.full_name for run in packaged_runs(Plugins()) if run.name.startswith("demo")]
)
def test_packaged_runs_stay_on_the_device(name):
    """Those of a size for a test, with the numbers of a run on the CPU."""
    (run,) = (one for one in packaged_runs(Plugins()) if one.full_name == name)
    plan = planned(run.text)
    model = build_model(plan, 0)
    notes = dry_run(plan, model)
    with StandIn():
        assert dry_run(plan, model.to("cuda")) == notes


@pytest.mark.parametrize("loss", mixer().components("loss"))
def test_a_step_does_not_wait(loss):
    """A training step is launched as a whole, so that a GPU has work while the next one is
    prepared."""
    plan = planned(mixer().text(mixer().plain(loss=loss)))
    model = build_model(plan, 0)
    with StandIn() as gpu:
        stepped(plan, model.to("cuda"))
    assert set(files(gpu)) <= set(EXPECTED), files(gpu)


@pytest.mark.parametrize("kind", ["backbone", "head"])
def test_networks_do_not_wait(kind):
    for name in mixer().components(kind):
        plan = planned(mixer().text(mixer().plain(**{kind: name})))
        assert plan is not None
        model = build_model(plan, 0)
        with StandIn() as gpu:
            stepped(plan, model.to("cuda"))
        assert set(files(gpu)) <= set(EXPECTED), (name, files(gpu))


@pytest.mark.parametrize("matcher", mixer().components("matcher"))
def test_distances_do_not_wait(matcher):
    """Tiles of distances are launched one behind the other, from templates of the device and of
    the host, and are those of the CPU."""
    plan = planned(mixer().text(mixer().plain(matcher=matcher)))
    model = build_model(plan, 0).eval()
    (one,), matching = model.matchers.values(), plan.matching("m")
    with torch.no_grad():
        template = one.merge([one.template(model(random_batch(plan, model.device).images))])
    tile = 4 * matching.pair_bytes / 2**30
    expected = compute_distances(one, matching, template, template, tile)
    with StandIn() as gpu:
        one.to("cuda")
        moved = {key: value.to("cuda") for key, value in template.items()}
        found = [
            compute_distances(one, matching, side, side, tile, torch.device("cuda"))
            for side in (moved, template)
        ]
        assert not gpu.waits
        for distances in found:
            assert gpu.has(distances)
            torch.testing.assert_close(distances.cpu(), expected, rtol=0, atol=0)
