"""The built-in plugin's descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from reidcore.builtin import plugin
from reidcore.plugins.loading import Plugins
from reidcore.plugins.registration import build_function
from reidcore.runfiles.parse import parse_runfile
from reidcore.wiring.make_plan import make_plan

EVERY = [
    pytest.param(hook.removeprefix("reid_"), component, id=component.name)
    for hook in dir(plugin)
    if hook.startswith("reid_")
    for component in getattr(plugin, hook)()
]
every_component = pytest.mark.parametrize(("kind", "component"), EVERY)


def test_the_plugin_is_found_without_torch_and_numpy():
    """Importing the plugin, its settings and the reader loads neither torch nor numpy."""
    code = "import sys, reidcore.builtin.plugin; print(*{'torch', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@every_component
def test_descriptors_are_complete(kind, component):
    """Every component has a summary, its settings are documented, and what builds it exists."""
    assert component.summary
    for field in attrs.fields(component.config):
        assert field.metadata["doc"]
    singular = {"losses": "loss"}.get(kind, kind.removesuffix("s"))
    loaded = Plugins([]).component(singular, f"core.{component.name}")
    if component.build.startswith("reidcore.builtin."):
        assert callable(build_function(loaded))
    else:
        assert kind in ("readers", "procedures")


@every_component
def test_samples_are_runs_in_which_the_component_stands(kind, component, monkeypatch, tmp_path):
    """Every sample is a run file that wires, and it uses the component it belongs to."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    run = parse_runfile(component.sample, Path("sample.toml"))
    plan = make_plan(run, Plugins([]), allow_missing=True)
    used = {wired.part.use for wired in plan.parts} | {run.procedure.use}
    used |= {source.reader.use for source in run.sources} | {run.batch.use}
    assert f"core.{component.name}" in used
