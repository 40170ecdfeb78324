"""The core's wheel alone, and beside one plugin's, in an environment that has no more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from distributions import ROOT, install_built
from running import TINY

PLUGINS = sorted(
    path.parent.name
    for path in ROOT.glob("plugins/*/pyproject.toml")
    if "reidcore.plugins.v1" in path.read_text()
)
COMMANDS = ("export", "gallery", "release", "report", "tune")
"""Plugins that bring a command and no run files."""
OBSERVERS = ("trackers",)
"""Plugins that watch runs, and bring no run files either."""
PACKAGES = Path(sysconfig.get_paths()["purelib"])


class Environment:
    """A virtual environment with the wheels of some projects and, of what this Python has
    installed, everything but reidcore and its plugins."""

    def __init__(self, folder: Path, others: Path, *projects: Path):
        venv.create(folder, symlinks=True, with_pip=False)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "others.pth").write_text(f"{others}\n")
        for project in projects:
            install_built(project, site)
        self.site, self.python = site, folder / "bin" / "python"

    def run(self, *arguments: object, folder: Path, code: int = 0) -> str:
        """What Python prints, with the errors behind; its exit code must be `code`."""
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [str(self.python), *map(str, arguments)],
            env={**kept, "REID_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The third parties' packages that this Python has, linked into a folder of their own."""
    folder = tmp_path_factory.mktemp("others")
    for path in PACKAGES.iterdir():
        if not re.match(r"(_editable_impl_)?reid|.*\.pth$|__pycache__", path.name):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def core(others, tmp_path_factory):
    """An environment with nothing but the core."""
    return Environment(tmp_path_factory.mktemp("core") / "env", others, ROOT)


@pytest.fixture(scope="module", params=PLUGINS)
def beside(request, others, core, tmp_path_factory):
    """An environment with one plugin beside the core, and that plugin's folder."""
    project = ROOT / "plugins" / request.param
    folder = tmp_path_factory.mktemp(request.param)
    return Environment(folder / "env", others, ROOT, project), project


def listed(env: Environment, folder: Path) -> list[str]:
    """The plugins that `reid plugins` lists as sound."""
    lines = env.run("-m", "reidcore", "plugins", folder=folder).splitlines()[1:]
    assert all(re.match(r"\w+ +\S+ \S+ +ok ", line) for line in lines), lines
    return [line.split()[0] for line in lines]


def test_the_core_comes_from_its_wheel(core, tmp_path):
    """The environment imports the unpacked wheel, whose template and run files are inside."""
    where = core.run("-c", "import reidcore; print(reidcore.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(core.site)
    assert listed(core, tmp_path) == ["core"]
    assert "core:demo" in core.run("-m", "reidcore", "runs", folder=tmp_path)
    core.run("-m", "reidcore", "new-plugin", "spots", folder=tmp_path)
    assert (tmp_path / "reid-plugin-spots" / "reid_spots" / "runs" / "demo.toml").is_file()


def test_the_core_runs_alone(core, tmp_path):
    """A run trains and is scored with no plugin installed."""
    (tmp_path / "tiny.toml").write_text(TINY)
    shown = core.run(
        "-m", "reidcore", "run", "tiny.toml", "--set", "train.epochs=1", folder=tmp_path
    )
    assert re.search(r"^demo +main +plain +\d", shown, re.MULTILINE)


CHECKS = """
import contextlib, io, json, sys
from reidcore.cli.main import main
found = {}
for run in sys.argv[1:]:
    said, plan = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(plan):
        found[run] = main(["check", "--no-dry", run]), said.getvalue()
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    "plugin", [name for name in PLUGINS if name not in (*COMMANDS, *OBSERVERS)]
)
def test_only_run_files_that_name_a_plugin_miss_it(core, tmp_path, plugin):
    """Of a plugin's run files, those that use it are answered by how to install it, with exit code
    2; those that are made of the core's components alone are sound, with or without their data."""
    runs = sorted((ROOT / "plugins" / plugin).glob("reid_*/runs/*.toml"))
    naming = [run for run in runs if re.search(rf'"{plugin}\.\w+"', run.read_text())]
    assert naming
    missing = f"plugin {plugin!r} is not installed"
    cure = re.compile(
        rf"To install it: (uv )?(pip install|add) reid-plugin-{plugin.replace('_', '-')}\b"
    )
    for run, (code, said) in json.loads(core.run("-c", CHECKS, *runs, folder=tmp_path)).items():
        absent = code == 4 and "manifest not found at" in said
        assert code == 2 if Path(run) in naming else code == 0 or absent, said
        assert (missing in said) == bool(cure.search(said)) == (Path(run) in naming), said


def test_a_plugin_alone_beside_the_core(beside, tmp_path):
    """Its wheel brings it and nobody else, its components and commands are listed without torch,
    and its run files are inside."""
    env, project = beside
    entries = tomllib.loads((project / "pyproject.toml").read_text())["project"]["entry-points"]
    ((name, module),) = entries["reidcore.plugins.v1"].items()
    assert listed(env, tmp_path) == sorted(["core", name])
    code = (
        f"import sys, {module} as plugin; from reidcore.plugins.loading import Plugins; "
        f"found = Plugins().load({name!r}); "
        "assert found.components or found.commands or found.observes; "
        "print(plugin.__file__, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    where, *heavy = env.run("-c", code, folder=tmp_path).split()
    assert Path(where).is_relative_to(env.site) and heavy == ["False", "False"]
    runs = env.run("-m", "reidcore", "runs", name, folder=tmp_path)
    packaged = {path.stem for path in project.glob("reid_*/runs/*.toml")}
    if not packaged:
        assert runs == f"plugin {name!r} has no run files\n"
        return
    assert {line.split()[0] for line in runs.splitlines()} == {f"{name}:{run}" for run in packaged}


def test_the_report_is_a_plugin(core, others, tmp_path):
    """Without it `reid report` says what to install, as others do; its wheel brings the command and
    its page."""
    for command in COMMANDS:
        said = core.run("-m", "reidcore", command, "demo", folder=tmp_path, code=2)
        assert re.search(rf"(pip install|uv add) 'reidcore\[{command}\]'", said)
    env = Environment(tmp_path / "env", others, ROOT, ROOT / "plugins" / "report")
    assert "--no-pictures" in env.run("-m", "reidcore", "report", "--help", folder=tmp_path)
    assert {"page.html.jinja", "style.css"} <= {
        path.name for path in (env.site / "reid_report").iterdir()
    }
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock.json").write_text('{"layout": 1, "name": "bare", "resolved": {}}')
    done = env.run("-m", "reidcore", "report", "run", "--no-data", folder=tmp_path)
    assert "wrote report.html" in done
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_its_own_tests_pass_there(beside, tmp_path):
    """The conformance tests of the plugin pass beside the core alone, those that are not slow."""
    env, project = beside
    shown = env.run(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        "--rootdir",
        tmp_path,
        "--import-mode=importlib",
        project / "tests" / "test_conformance.py",
        folder=tmp_path,
    )
    assert re.search(r"\d+ passed", shown)
    assert "failed" not in shown and "skipped" not in shown
