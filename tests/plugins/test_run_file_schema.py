"""The JSON schema of run files: it agrees with what `reid check` takes and refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli
import toy_plugin
from distributions import ROOT

from reidcore.cli.main import main
from reidcore.errors import ReidError
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import packaged_runs
from reidcore.plugins.run_file_schema import evaluation_file_schema, run_file_schema
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.toml_values import toml_value
from reidcore.wiring.make_plan import make_plan

Table = dict[str, Any]


@pytest.fixture(scope="module")
def plugins():
    found = Plugins()
    found.add("toy", toy_plugin)
    return found


@pytest.fixture(scope="module")
def schema(plugins):
    return jsonschema.Draft7Validator(run_file_schema(plugins))


def test_it_is_a_schema(schema, plugins):
    """It is valid itself, and so is that of evaluation files."""
    jsonschema.Draft7Validator.check_schema(schema.schema)
    jsonschema.Draft7Validator.check_schema(evaluation_file_schema(plugins))


def test_packaged_run_files_fit(schema, plugins):
    """Those of the core and of all plugins, as they stand there."""
    found = list(packaged_runs(plugins))
    assert len(found) > 50
    for run in found:
        errors = [error.message for error in schema.iter_errors(tomli.loads(run.text))]
        assert errors == [], run.full_name


def test_samples_of_components_fit(schema, plugins):
    """A sample of every component of every plugin, so that no kind is left out."""
    samples = {one.name: one.component.sample for one in plugins.components()}
    assert len(samples) > 60
    for name, text in samples.items():
        if text:
            errors = [error.message for error in schema.iter_errors(tomli.loads(text))]
            assert errors == [], name


@pytest.mark.parametrize("file", ["readers.toml", "many.toml"])
def test_files_with_many_keys_fit(schema, file):
    found = tomli.loads((ROOT / "tests/run_files" / file).read_text())
    assert [error.message for error in schema.iter_errors(found)] == []


def test_numbers_by_role_path_may_stand_in_tables(schema, plugins, demo):
    """`head.neck = 0.5` without quotes, which is one table in another."""
    for table, key in (("optim", "scale"), ("train", "start_share")):
        edited = copy.deepcopy(demo)
        edited[table][key] = {"backbone": 0.5, "head": {"neck": 0.5}}
        assert [error.message for error in schema.iter_errors(edited)] == []
        make_plan(parse_runfile(as_toml(edited), Path("x.toml")), plugins, allow_missing=True)


EDITS: dict[str, Callable[[Table], object]] = {
    "unknown table": lambda t: t.update(trian={}),
    "later format": lambda t: t.update(format=2),
    "no backbone": lambda t: t.pop("backbone"),
    "bad name": lambda t: t.update(name="a b"),
    "unknown key of the core": lambda t: t["train"].update(epoch=3),
    "epochs are no int": lambda t: t["train"].update(epochs=2.5),
    "epochs below 0": lambda t: t["train"].update(epochs=-1),
    "epochs missing": lambda t: t["train"].pop("epochs"),
    "flag is text": lambda t: t["train"].update(amp="yes"),
    "three sizes": lambda t: t["data"].update(image=[96, 48, 3]),
    "size too small": lambda t: t["data"].update(image=[4, 48]),
    "unknown way": lambda t: t["data"].update(interpolation="cubic"),
    "deviation of 0": lambda t: t["data"].update(
        normalize={"mean": [0.5, 0.5, 0.5], "deviation": [0, 1, 1]}
    ),
    "unknown optimizer": lambda t: t["optim"].update(kind="adamm"),
    "rate of 0": lambda t: t["optim"].update(lr=0),
    "unknown key in a table": lambda t: t["optim"].update(cosine={"too": 0.1}),
    "unknown component": lambda t: t["backbone"].update(use="core.resnett"),
    "component of another kind": lambda t: t["backbone"].update(use="core.softmax"),
    "no component": lambda t: t["backbone"].pop("use"),
    "unknown setting": lambda t: t["loss"][0].update(smothing=0.1),
    "setting out of range": lambda t: t["loss"][0].update(smoothing=1),
    "setting missing": lambda t: t["head"][0].pop("source"),
    "setting is no list": lambda t: t["loss"][0].update(features="neck.bn"),
    "depth that there is not": lambda t: t["backbone"].update(depth=19),
    "part without a name": lambda t: t["head"][0].pop("name"),
    "part with a bad name": lambda t: t["head"][0].update(name="Neck"),
    "head has no weight": lambda t: t["head"][0].update(weight=2.0),
    "weight below 0": lambda t: t["loss"][0].update(weight=-1),
    "one table for a list": lambda t: t.update(loss=t["loss"][0]),
    "unknown augmentation": lambda t: t["data"]["augment"].append({"use": "core.flop"}),
    "key of an augmentation": lambda t: t["data"]["augment"][0].update(q=0.5),
    "key of the sampler": lambda t: t["data"]["batch"].update(id=3),
    "unknown reader": lambda t: t["data"].update(train={"read": "core.dem"}),
    "key of a reader": lambda t: t["data"]["train"].update(identities=3),
    "manifest and reader": lambda t: t["data"]["train"].update(manifest="a.csv"),
    "key beside a manifest": lambda t: t["data"].update(train={"manifest": "a.csv", "root": "b"}),
    "neither": lambda t: t["data"].update(train={"splits": ["train"]}),
    "unknown split": lambda t: t["data"]["train"].update(splits=["trian"]),
    "protocol of training": lambda t: t["data"]["train"].update(protocol="sysu"),
    "unknown protocol": lambda t: t["data"]["test"][0].update(protocol="syssu"),
    "key of a protocol": lambda t: t["data"]["test"][0].update(
        protocol={"use": "cross_camera", "x": 1}
    ),
    "no views": lambda t: t.update(eval={"views": ["flop"]}),
    "unknown key of a ranking": lambda t: t.update(ranking=[{"name": "a", "matchr": "look"}]),
    "post without a component": lambda t: t.update(post=[{"name": "a"}]),
    "component without its plugin": lambda t: t["backbone"].update(use="resnet"),
}


@pytest.fixture(scope="module")
def demo(plugins):
    (run,) = [run for run in packaged_runs(plugins, "core") if run.name == "demo"]
    return tomli.loads(run.text)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_what_it_refuses_is_refused(schema, plugins, demo, edit):
    """Mistakes of keys, values and components are seen by the schema and by `reid check`."""
    table = copy.deepcopy(demo)
    edit(table)
    assert not schema.is_valid(table)
    with pytest.raises(ReidError):
        run = parse_runfile(as_toml(table), Path("demo.toml"))
        make_plan(run, plugins, allow_missing=True)


def as_toml(table: Table) -> str:
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in table.items())


def test_the_key_that_is_wrong_is_named(schema, demo):
    """Not every component's table is listed, but the one that `use` names is looked at."""
    table = copy.deepcopy(demo)
    table["loss"][0]["smothing"] = 0.1
    (error,) = schema.iter_errors(table)
    assert list(error.path) == ["loss", 0] and "'smothing' was unexpected" in error.message


def test_keys_say_what_they_mean(schema):
    """Descriptions, defaults and bounds are those of the settings."""
    softmax = schema.schema["definitions"]["loss.core.softmax"]["properties"]
    assert softmax["smoothing"] == {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.0,
        "description": "share of the target that is spread over all identities",
    }
    assert schema.schema["properties"]["train"]["properties"]["epochs"]["minimum"] == 0


@pytest.mark.parametrize(
    ("table", "fits"),
    [
        ({"format": 1, "eval": {"ap": "trapezoid"}}, True),
        ({"format": 1, "data": {"test": {"read": "core.demo"}}}, True),
        ({"format": 1, "post": [{"use": "core.rerank", "k1": 20}]}, True),
        ({"format": 1, "data": {"train": {"read": "core.demo"}}}, False),
        ({"format": 1, "train": {"epochs": 2}}, False),
        ({"eval": {}}, False),
    ],
)
def test_evaluation_files(plugins, table, fits):
    schema = jsonschema.Draft7Validator(evaluation_file_schema(plugins))
    assert schema.is_valid(table) is fits


def test_the_command_writes_it(tmp_path, capsys):
    """To the terminal or into a file, with every installed plugin's components."""
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert "head.core.pool" in printed["definitions"]
    assert main(["schema", "-o", str(tmp_path / "s.json")]) == 0
    assert json.loads((tmp_path / "s.json").read_text()) == printed
    assert main(["schema", "--evaluation"]) == 0
    assert "backbone" not in json.loads(capsys.readouterr().out.partition("\n")[2])["properties"]
