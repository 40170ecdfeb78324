"""The dry run of observers: `reid check` calls them with a run that looks like a real one."""

from __future__ import annotations

import types
from pathlib import Path

import attrs
import pytest
from running import TINY

from reidcore.api import hookimpl
from reidcore.errors import PluginError
from reidcore.model.building import build_model
from reidcore.plugins.loading import Plugins
from reidcore.protocols.vehicleid import VehicleIDProtocol
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.progress import Silent
from reidcore.training.dry_observers import check_observers, made_up_scores
from reidcore.training.options import TrainingOptions
from reidcore.training.start import run_training
from reidcore.wiring.make_plan import make_plan

HOOKS = ("reid_run_started", "reid_epoch_ended", "reid_run_ended")
MORE = """
[[post]]
name = "expand"
use = "core.expand"

[[ranking]]
name = "late"
matcher = "look"
post = ["expand"]
"""


def plugin(seen: list, failing: str = "") -> types.SimpleNamespace:
    """Observers that keep what they are given, of which one fails."""

    def fail_at(hook):
        if hook == failing:
            raise OSError("no host")

    @hookimpl
    def reid_run_started(run, finished):
        seen.append((run.dry, run.folder, run.write("a", "b").read_text(), run.train.identities))
        fail_at("reid_run_started")

    @hookimpl
    def reid_epoch_ended(run, epoch, means, scores):
        seen.append((epoch, means, scores))
        fail_at("reid_epoch_ended")

    @hookimpl
    def reid_run_ended(run, scores):
        seen.append(scores)
        fail_at("reid_run_ended")

    hooks = (reid_run_started, reid_epoch_ended, reid_run_ended)
    return types.SimpleNamespace(**{one.__name__: one for one in hooks}, __name__=__name__)


def planned(observer, text=TINY, make_data=False, sets=()):
    plugins = Plugins([])
    plugins.add("diary", observer)
    run = parse_runfile(f'plugins = ["diary"]\n{text}', Path("tiny.toml"), sets)
    return plugins, make_plan(run, plugins, make_data=make_data, allow_missing=not make_data)


def shape(value):
    """The keys of nested dictionaries, with what kinds of values they have."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return [shape(one) for one in value[:1]] if isinstance(value, list) else type(value)


def test_they_see_what_a_run_shows_them(tmp_path, monkeypatch):
    """Means and scores have the names and types of a real run, whose data may be absent; the folder
    is a temporary one."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    dry, real = [], []
    plugins, plan = planned(plugin(dry), TINY + MORE)
    assert any(one.rows is None for one in plan.data.loaded)
    assert check_observers(plugins, build_model(plan, 0)) == []
    assert dry[0][0] and dry[0][2] == "b" and not dry[0][1].exists()
    sets = ("train.epochs=1",)
    plugins, plan = planned(plugin(real), TINY + MORE, make_data=True, sets=sets)
    (tmp_path / "run").mkdir()
    run_training(plan, plugins, TrainingOptions(tmp_path / "run", sets, check=False), Silent())
    assert not real[0][0]
    (epoch, means, scores), last = dry[1:]
    assert epoch == 0 and shape(means) == shape(real[1][1])
    assert shape(last) == shape(scores) == shape(real[1][2])


@pytest.mark.parametrize("hook", HOOKS)
def test_one_that_raises_is_named(hook):
    """With its plugin, hook and line, and the model stays as it was."""
    plugins, plan = planned(plugin([], hook))
    with pytest.raises(PluginError) as caught:
        check_observers(plugins, build_model(plan, 0))
    said = str(caught.value)
    assert said.startswith(
        f"dry run: observer diary (reid-plugin-diary 0): {hook} failed: OSError: no host, at "
    )
    assert f"{Path(__file__).name}:" in said


def test_what_another_procedure_logs_is_not_made_up():
    """Its epochs are not told, since nobody knows their means; start and end are."""
    seen = []
    plugins, plan = planned(plugin(seen), TINY)
    other = attrs.evolve(plan, losses=())
    assert check_observers(plugins, build_model(other, 0)) == []
    assert len(seen) == 2


def test_scores_of_trials_are_means(tmp_path, monkeypatch):
    """A protocol of several trials gives tables of means and deviations."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    _, plan = planned(plugin([]), make_data=True)
    test = attrs.evolve(plan.data.test[0], protocol=VehicleIDProtocol(trials=3))
    plan = attrs.evolve(plan, data=attrs.evolve(plan.data, test=(test,)))
    scores = made_up_scores(plan)
    stage = next(iter(scores.values()))["main"]["plain"]
    assert set(stage["mAP"]) == {"mean", "deviation", "values"}
    assert len(stage["mAP"]["values"]) == 3 and isinstance(stage["cmc"], list)
