"""The settings of observers in run files, and the ranked lists that observers may look at."""

from __future__ import annotations

import json
import types
from pathlib import Path

import attrs
import jsonschema
import pytest
from running import TINY

from reidcore.api import hookimpl, setting
from reidcore.errors import PluginError, RunFileError, UsageError
from reidcore.model.building import build_model
from reidcore.plugins.listing import plugin_listing
from reidcore.plugins.loading import Plugins
from reidcore.plugins.run_file_schema import run_file_schema
from reidcore.runfiles.parse import parse_runfile
from reidcore.runfolder import folder as runfolder
from reidcore.runfolder.comparison import differing_settings
from reidcore.runfolder.results import read_results
from reidcore.support.progress import Silent
from reidcore.training.dry_observers import check_observers
from reidcore.training.options import TrainingOptions
from reidcore.training.start import run_training
from reidcore.wiring.make_plan import make_plan

TEXT = 'plugins = ["diary"]\n' + TINY.replace("epochs = 6", "epochs = 2")
TABLE = "\n[diary]\nevery = 2\n"


@attrs.frozen
class Settings:
    """How much the diary holds."""

    every: int = setting("epochs between two entries", default=1, at_least=1)
    to: str = setting("its reader", default="")


class Diary:
    """A plugin that notes its settings and the ranked lists."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Settings]] = []
        self.ranked: list = []

    @hookimpl
    def reid_observer_settings(self):
        return Settings

    @hookimpl
    def reid_run_started(self, run, finished, settings):
        self.seen.append(("started", settings))

    @hookimpl
    def reid_epoch_ended(self, run, epoch, scores, settings):
        self.seen.append(("epoch", settings))
        self.ranked.append((scores, run.ranked))

    @hookimpl
    def reid_run_ended(self, run, settings):
        self.seen.append(("ended", settings))


class Plain:
    """A plugin that observes and takes no settings."""

    @hookimpl
    def reid_run_ended(self, run, scores):
        pass


def plan_of(text: str, diary: object, sets=(), make=False):
    plugins = Plugins([])
    plugins.add("diary", diary)
    run = parse_runfile(text, Path("x.toml"), sets)
    return make_plan(run, plugins, make_data=make, allow_missing=not make), plugins


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with settings of its observer, and what that saw."""
    folder = tmp_path_factory.mktemp("observed")
    diary = Diary()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_CACHE", str(folder / "cache"))
        _train(TEXT + TABLE, diary, folder / "run")
        yield folder, diary


def _train(text, diary, folder, sets=()):
    plan, plugins = plan_of(text, diary, sets, make=True)
    with runfolder.prepared(folder, resume=True):
        options = TrainingOptions(folder, sets, check=False)
        return run_training(plan, plugins, options, Silent())


def test_every_hook_gets_them(trained):
    """As one object, with defaults; the run record holds them."""
    folder, diary = trained
    assert [name for name, _ in diary.seen] == ["started", "epoch", "epoch", "ended"]
    assert {settings for _, settings in diary.seen} == {Settings(every=2)}
    record = json.loads((folder / "run/lock.json").read_text())
    assert record["resolved"]["observers"] == {"diary": {"every": 2, "to": ""}}


def test_ranked_lists_are_those_of_the_scores(trained):
    """They are sorted, hold what the protocol counts, and their first pictures give rank-1."""
    _, diary = trained
    for scores, ranked in diary.ranked:
        assert len(ranked) == 6  # all queries of this small set
        for one in ranked:
            distances = [near.distance for near in one.nearest]
            assert distances == sorted(distances) and 0 < len(distances) <= 10
            for near in one.nearest:
                assert near.match == (near.row.pid == one.query.pid)
                assert not (near.match and near.row.camera == one.query.camera)
        share = sum(one.nearest[0].match for one in ranked) / len(ranked)
        assert share == pytest.approx(scores["demo"]["main"]["plain"]["rank-1"], abs=1e-5)


def test_without_a_table_they_are_the_defaults(trained):
    plan, _ = plan_of(TEXT, Diary())
    assert plan.observers == {"diary": Settings()}
    changed, _ = plan_of(TEXT, Diary(), ["diary.every=3", "diary.to=me"])
    assert changed.observers == {"diary": Settings(every=3, to="me")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TEXT + "\n[diary]\nevry = 2\n",
            r"x.toml:\d+: \[diary\]: unknown key 'evry', did you .*y'",
        ),
        (
            TEXT + "\n[diary]\nevery = 0\n",
            r"\[diary\]: expected a number at least 1, got 0 at .e",
        ),
        (TEXT + "\n[diary]\nevery = 2.0\n", r"\[diary\]: expected int, got float 2.0 at .every"),
        (TEXT.replace("\n", "\ndiary = 3\n", 1), r"\[diary\]: expected table, got int 3"),
        (TEXT + "\n[dairy]\nevery = 2\n", r"unknown table or key 'dairy', did you mean 'diary'"),
        (TINY + TABLE, r"unknown table or key 'diary'; .*observers in 'plugins', where 'diary' is"),
    ],
)
def test_mistakes_are_told(text, message):
    """Like those of components, with line, key and what would fit."""
    with pytest.raises(RunFileError, match=message):
        plan_of(text, Diary())


def test_sets_of_unknown_tables_are_refused():
    with pytest.raises(UsageError, match="no table 'dairy', did you mean 'diary'"):
        plan_of(TEXT, Diary(), ["dairy.every=3"])


def test_a_plugin_without_settings_takes_no_table():
    with pytest.raises(RunFileError, match=r"\[diary\]: plugin 'diary' takes no settings"):
        plan_of(TEXT + TABLE, Plain())
    assert plan_of(TEXT, Plain())[0].observers == {"diary": None}


def broken(name="diary", **functions):
    plugins = Plugins([])
    marked = {key: hookimpl(function) for key, function in functions.items()}
    plugins.add(name, types.SimpleNamespace(**marked))
    with pytest.raises(PluginError) as error:
        plugins.load(name)
    return str(error.value)


def test_what_authors_do_wrong_is_told():
    """What is no class, a table of the core's name, settings that nothing gives or reads."""

    def ended(run):
        pass

    def asking(run, settings):
        pass

    def wrong():
        raise KeyError("x")

    settings = {"reid_run_ended": ended}
    told = broken(**settings, reid_observer_settings=lambda: Settings())
    assert "reid_observer_settings returned a Settings, not a class" in told
    told = broken(**settings, reid_observer_settings=lambda: dict)
    assert "returned dict, which is no attrs class" in told
    told = broken(**settings, reid_observer_settings=wrong)
    assert "reid_observer_settings raised KeyError: 'x', at" in told
    told = broken("train", **settings, reid_observer_settings=lambda: Settings)
    assert "the table [train] of run files is the core's" in told
    assert "observes nothing" in broken(reid_observer_settings=lambda: Settings)
    told = broken(reid_run_ended=asking)
    assert "reid_run_ended asks for settings, but there is no reid_observer_settings" in told


def test_a_run_goes_on_with_other_settings(trained):
    """They are none of the run's results: it is resumed with others, or without its observer, and
    comparing runs leaves them out."""
    folder, _ = trained
    run = folder / "run"
    before = json.loads((run / "scores.json").read_text())
    assert _train(TEXT + TABLE, Diary(), run, ["diary.every=1"]) == before
    assert _train(TINY.replace("epochs = 6", "epochs = 2"), Diary(), run) == before
    other = folder / "other"
    _train(TEXT, Diary(), other)
    settings = [read_results(one).settings for one in (run, other)]
    assert differing_settings(settings) == []
    assert not any(key.startswith("observers") for key in settings[0])


def test_listings_and_schema_have_them():
    plugins = Plugins([])
    plugins.add("diary", Diary())
    (row,) = plugin_listing(plugins, [plugins.status("diary")], [])["plugins"]
    assert [one["key"] for one in row["observer_settings"]] == ["every", "to"]
    schema = jsonschema.Draft7Validator(run_file_schema(plugins))
    table = {
        "format": 1,
        "plugins": ["diary"],
        "data": {"image": [32, 16]},
        "backbone": {"use": "core.resnet"},
        "train": {"epochs": 0},
        "diary": {"every": 2},
    }
    assert [error.message for error in schema.iter_errors(table)] == []
    assert not schema.is_valid({**table, "diary": {"evry": 2}})
    assert not schema.is_valid({**table, "plugins": ["dairy"]})


def test_a_dry_run_gives_them(trained):
    """`reid check` calls the hooks with the settings and without ranked lists."""
    diary = Diary()
    plan, plugins = plan_of(TEXT + TABLE, diary, make=True)
    check_observers(plugins, build_model(plan, 0))
    assert {settings for _, settings in diary.seen} == {Settings(every=2)}
    assert [list(ranked) for _, ranked in diary.ranked] == [[]]
