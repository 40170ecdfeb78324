"""Every command of docs/export.md runs in order and ends well; trainings are shortened."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
from distributions import ROOT

pytest.importorskip("reid_export", reason="needs `uv run --all-groups`")
pytest.importorskip("onnx", reason="needs `uv run --all-groups`")

from reidcore.builtin.drawn_people.pictures import write_demo

TEXT = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
SHORT = ["train.epochs=1", "data.test={ read = 'core.demo', test_identities = 6 }"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.S | re.M)


def ran(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REID_DATA": ""}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_walk_from_a_run_to_ranked_lists(tmp_path):
    commands = [
        line.removeprefix("$ ")
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    assert len(commands) == 4
    said = {}
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "reid"
        if arguments[0] == "run":
            arguments += [word for one in SHORT for word in ("--set", one)]
        said[command] = ran(tmp_path, "-m", "reidcore", *arguments)
    assert "wrote walkers" in said["reid export runs/demo -o walkers"]
    assert "rerank, tlift" in said[commands[3]]
    write_demo(tmp_path / "drawn", train_identities=2, test_identities=2, pictures=4, seed=5)
    (tmp_path / "pictures").mkdir()
    files = sorted((tmp_path / "drawn").glob("*/*.jpg"))
    for file in files:
        file.rename(tmp_path / "pictures" / file.name)
    shape, near = ran(tmp_path, "-c", blocks("python")[0]).splitlines()
    assert shape == f"({len(files)}, 256)"
    assert near == "(1, 3) True"


@pytest.mark.parametrize(("place", "name"), [(1, "boxmot_appearance"), (2, "keep_names")])
def test_the_examples_shown_are_the_files(place, name):
    file = (ROOT / "plugins" / "runtime" / "examples" / f"{name}.py").read_text()
    shown, there = (
        [line.strip() for line in text.splitlines()] for text in (blocks("python")[place], file)
    )
    assert len(shown) >= 8 and set(shown) <= set(there)
