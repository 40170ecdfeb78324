"""Weights of third parties that a plugin names: fetched once, checked, with their licence told."""

from __future__ import annotations

import types
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from running import TINY
from safetensors.torch import save_file

from reidcore.api import PublishedWeights, hookimpl
from reidcore.errors import DataError, PluginError, RunFileError
from reidcore.model.building import build_model
from reidcore.plugins.listing import plugin_listing
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.progress import Silent
from reidcore.training.options import TrainingOptions
from reidcore.training.train import plan_training, train_plan
from reidcore.wiring.make_plan import make_plan

TEXT = TINY.replace("depth = 18", 'depth = 18\nweights = "zoo:small"')


def named(name="small", url="https://example.org/small.safetensors", digest="a" * 64, **more):
    return PublishedWeights(name, url, digest, more.pop("licence", "CC BY 4.0"), **more)


def plugins_with(*weights) -> Plugins:
    @hookimpl
    def reid_weights():
        return list(weights)

    plugins = Plugins([])
    plugins.add("zoo", types.SimpleNamespace(reid_weights=reid_weights))
    return plugins


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Weights of the run's backbone at an address, and an empty cache of torch."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub._hub_dir", None)
    plan = make_plan(parse_runfile(TINY, Path("x.toml")), Plugins([]), allow_missing=True)
    backbone = build_model(plan, 7).backbone
    file = tmp_path / "there.safetensors"
    save_file({key: value.contiguous() for key, value in backbone.state_dict().items()}, file)
    digest = sha256(file.read_bytes()).hexdigest()
    return file, named(url=file.as_uri(), digest=digest, summary="a small one")


def test_a_run_starts_from_them(published, tmp_path):
    """They are fetched into torch's cache before the run, its network starts with their values, and
    the plan tells their licence. Once there, they need no network."""
    file, weights = published
    plugins = plugins_with(weights)
    run = parse_runfile(TEXT, Path("x.toml"))
    checked = make_plan(run, plugins, allow_missing=True)
    ((part, path),) = checked.weights
    assert part == "backbone (core.resnet)" and not Path(path).exists()
    assert path == str(
        tmp_path / f"torch/hub/checkpoints/zoo-small-{weights.sha256[:8]}.safetensors"
    )
    plan = plan_training(run, plugins, resume=False)
    assert "backbone (core.resnet) starts from zoo:small, whose licence is CC BY 4.0" in plan.notes
    assert Path(path).read_bytes() == file.read_bytes()
    model = build_model(plan, 0)
    start = build_model(make_plan(parse_runfile(TINY, Path("x.toml")), plugins), 7)
    for key, value in start.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[key]), key
    file.unlink()
    plan_training(run, plugins, resume=False)


def test_a_new_run_fetches_them_also_where_it_might_resume(published, tmp_path):
    """`--resume` of a folder that is not there starts a run."""
    plugins = plugins_with(published[1])
    run = parse_runfile(TEXT, Path("x.toml"), ["train.epochs=0"])
    plan = plan_training(run, plugins, resume=True)
    options = TrainingOptions(tmp_path / "run", ["train.epochs=0"], resume=True)
    train_plan(plan, plugins, options, Silent)
    ((_, path),) = plan.weights
    assert Path(path).read_bytes() == published[0].read_bytes()


def test_what_cannot_be_had_is_told(published):
    """Another file than the plugin names, and an address that leads nowhere; nothing is kept."""
    file, weights = published
    run = parse_runfile(TEXT, Path("x.toml"))
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(
        DataError, match="is not the one that the plugin names: its sha256"
    ) as error:
        plan_training(run, plugins_with(weights), resume=False)
    assert "Put the file at" in str(error.value)
    file.unlink()
    with pytest.raises(DataError, match=r"weights zoo:small: file://.* could not be fetched"):
        plan_training(run, plugins_with(weights), resume=False)
    ((_, path),) = make_plan(run, plugins_with(weights), allow_missing=True).weights
    assert not Path(path).exists() and not list(Path(path).parent.iterdir())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("zoo:smal", "plugin 'zoo' names no weights 'smal', did you mean 'small'"),
        ("zo:small", "plugin 'zo' is not installed, did you mean 'zoo'"),
        ("small", "nor weights PLUGIN:NAME of a plugin"),
    ],
)
def test_names_that_are_none(value, message):
    run = parse_runfile(TEXT.replace("zoo:small", value), Path("x.toml"))
    with pytest.raises(RunFileError, match=message):
        make_plan(run, plugins_with(named()), allow_missing=True)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (named(url="http://example.org/a.pth"), "does not begin with https:// or file://"),
        (named(url="https://example.org/a.zip"), "and end with one of .pth"),
        (named(digest="abc"), "sha256 that is not 64 hexadecimal digits"),
        (named(licence=" "), "name no licence"),
        (named(name="a b"), "name that does not match"),
        (named(name="a.pth"), "or ends as a file's"),
        (named(summary=3), "have a summary that is no text"),
    ],
)
def test_what_authors_do_wrong_is_told(weights, message):
    with pytest.raises(PluginError, match=message):
        plugins_with(weights).load("zoo")
    with pytest.raises(PluginError, match="is registered twice among its PublishedWeights"):
        plugins_with(named(), named()).load("zoo")


def test_listings_name_them():
    """With address, digest and licence, for programs."""
    plugins = plugins_with(named(summary="a small one"))
    (row,) = plugin_listing(plugins, [plugins.status("zoo")], [])["plugins"]
    (found,) = row["weights"]
    assert found["name"] == "zoo:small" and found["licence"] == "CC BY 4.0"
    assert found["sha256"] == "a" * 64 and found["url"].startswith("https://")
