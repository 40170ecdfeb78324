"""The command that a message names for installing what is missing fits where it is read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import ClassVar

import pytest
from distributions import ROOT

from reidcore.support.installing import how_to_install

ASK = """
import sys
from reidcore.support.installing import how_to_install
print(*map(how_to_install, sys.argv[1:]), sep="\\n")
"""
ASKED = ("reidcore[mat]", "reid-plugin-metric-learning", "reid-plugin-boats>=2")
PLAIN = ["'reidcore[mat]'", "reid-plugin-metric-learning", "'reid-plugin-boats>=2'"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with an environment that has no pip, and the plugin metric-learning."""
    folder = tmp_path_factory.mktemp("installing") / "project"
    (folder / "plugins" / "metric_learning").mkdir(parents=True)
    venv.create(folder / ".venv", with_pip=False)
    return folder


@pytest.fixture
def told(project):
    """What is told in the environment `.venv` of the project: made by uv or not, the project locked
    by uv or not, with pip or not, and reidcore in the folder `core`."""
    config = project / ".venv" / "pyvenv.cfg"
    before = config.read_text()

    def ask(core: Path, uv: bool, locked: bool, pip: bool) -> list[str]:
        config.write_text(before + "uv = 0.9.0\n" * uv)
        (project / "uv.lock").unlink(missing_ok=True)
        if locked:
            (project / "uv.lock").touch()
        module = core / "reidcore" / "support" / "installing.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "reidcore" / "support" / "installing.py", module)
        shutil.rmtree(core / "pip", ignore_errors=True)
        if pip:
            (core / "pip").mkdir()
        done = subprocess.run(
            [project / ".venv" / "bin" / "python", "-c", ASK, *ASKED],
            cwd=core,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    yield ask
    config.write_text(before)


@pytest.mark.parametrize("uv, pip", [(False, False), (False, True), (True, True)])
def test_by_pip(told, project, uv, pip):
    """Where there is pip, or the environment is not uv's."""
    assert told(project, uv, True, pip) == [f"pip install {one}" for one in PLAIN]


def test_by_uv(told, project, tmp_path):
    assert told(tmp_path, True, False, False) == [f"uv pip install {one}" for one in PLAIN]


def test_in_a_project_of_uvs(told, project, tmp_path):
    """What is added by uv pip, the next `uv sync` would remove."""
    assert told(tmp_path, True, True, False) == [f"uv add {one}" for one in PLAIN]


def test_in_a_checkout(told, project):
    """What belongs to it comes from it, never from an index; nothing is added to its own files."""
    assert told(project, True, True, False) == [
        "uv sync --all-groups", "uv sync --all-groups", f"uv pip install {PLAIN[2]}"
    ]  # fmt: skip


def test_pip_is_not_asked_for_as_by_an_import(monkeypatch):
    """Setuptools gives up its distutils then, and torch compiles nothing more in this process."""

    class Finder:
        asked: ClassVar[list[str]] = []

        def find_spec(self, name, path=None, target=None):
            self.asked.append(name)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert how_to_install("boats").endswith(" boats")
    assert "pip" not in Finder.asked


def test_no_message_words_it_itself():
    """The core and the plugins ask `how_to_install`; what is written for others names pip."""
    others = ("support/installing.py", "cli/new_plugin.py", "reid_release/card.py")
    files = [*ROOT.glob("reidcore/**/*.py"), *ROOT.glob("plugins/*/reid_*/**/*.py")]
    assert len(files) > 100
    for file in files:
        found = re.search(r"(pip install|uv add)\b", file.read_text("utf-8"))
        assert not found or str(file).endswith(others), file
