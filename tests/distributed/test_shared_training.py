"""Several processes, started by torchrun, train what one process trains."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import warm_python
from distributions import ROOT
from running import SEARCH, TINY, by_torchrun, environment, reid, results, shared, torchrun
from safetensors.torch import load_file

from reidcore.distributed.processes import Processes
from reidcore.distributed.shared_batches import divided
from reidcore.plugins.loading import Plugins

SHORT = TINY.replace("epochs = 6", "epochs = 3")
SAMPLER = 'use = "qaconv.graph", matcher = "look", ids = 2'
GRAPH = SHORT.replace('use = "core.identities", ids = 4', SAMPLER).replace("s = 4,", "s = 5,")
"""Batches of four pictures that are most alike, of which three processes have unequal parts."""
SLOWLY = ["--set", "optim.lr=0.001"]


def shared_run(
    env: dict[str, str], folder: Path, count: int, *arguments: object, code: int = 0
) -> subprocess.CompletedProcess[str]:
    return shared(env, folder, count, "-m", "reidcore", "run", *arguments, code=code)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    for name, text in (("tiny", SHORT), ("graph", GRAPH), ("search", SEARCH)):
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def env(work) -> dict[str, str]:
    return environment(work / "cache")


@pytest.fixture(scope="module")
def whole(work, env) -> Path:
    """The folder of an uninterrupted run of two processes that torchrun has started."""
    by_torchrun(env, work, 2, "-m", "reidcore", "run", "tiny.toml", "--out", "two")
    return work / "two"


def means(folder: Path) -> list[dict[str, float]]:
    with open(folder / "means.csv", encoding="utf-8") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    hidden = ("seconds", "pictures_per_second")
    return [{name: row[name] for name in row if name not in hidden} for row in rows]


def numbers(table: Path) -> list[float]:
    """The cells of a CSV file below its first line."""
    with open(table, encoding="utf-8") as file:
        return [float(cell) for row in list(csv.reader(file))[1:] for cell in row]


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_every_component_trains_as_in_one_process(work, env, count):
    """A step of every component's sample: loss terms, gradients, norms' statistics and what losses
    keep are those of the whole batch computed at once, in float64. No loss is without one."""
    steps = {**env, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = shared(steps, work, count, ROOT / "tests" / "shared_step.py")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[0] for line in lines} == {"equal"}
    losses = {component.name for component in Plugins().components("loss")}
    assert losses <= {use for line in lines for use in line[1:]}


@pytest.mark.parametrize(
    ("name", "count", "sets"),
    [
        ("tiny", 2, ["--no-dry"]),
        ("graph", 3, ["--no-dry"]),
        # The network of the search enlarges rounding: at ten times this rate, or after more epochs
        # in the other order, one process differs as much from itself with other threads.
        ("search", 2, ["--set", "procedure.order=code", *SLOWLY]),
        pytest.param("search", 3, ["--set", "train.epochs=1", *SLOWLY], marks=pytest.mark.slow),
    ],
)
def test_a_run_is_that_of_one_process(work, env, name, count, sets):
    """Plain training, a sampler that asks for distances, and a procedure with two losses and
    optimizers: the course of the losses and the weights are those of one process, in float64."""
    one, other = (work / f"{name}-{count}-{which}" for which in ("one", "several"))
    for processes, folder in ((0, one), (count, other)):
        words = [ROOT / "tests" / "in_float64.py", "run", f"{name}.toml", *sets, "--out", folder]
        done = warm_python.run(words, env, work, 300, together=processes)
        assert done.returncode == 0, done.stdout + done.stderr
    for row, expected in zip(means(other), means(one), strict=True):
        assert row == pytest.approx(expected, rel=1e-6)
    found, expected = (load_file(at / "weights.safetensors") for at in (other, one))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6, msg=key)
    files = {path.name for path in one.iterdir()}
    assert {path.name for path in other.iterdir()} == files
    if "alpha.csv" in files:
        assert numbers(other / "alpha.csv") == pytest.approx(numbers(one / "alpha.csv"), abs=1e-6)
    assert json.loads((other / "lock.json").read_text())["processes"] == count


def test_killed_together_and_resumed(work, env, whole):
    """One process is killed in an epoch, which ends the other; both go on and end with the bits of
    a run that was never killed."""
    command = torchrun(2, "-m", "reidcore", "run", "tiny.toml", "--out", "killed")
    printed = work / "printed"
    with printed.open("w") as output:
        job = subprocess.Popen(command, env=env, cwd=work, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 120
        while "epoch 1/" not in printed.read_text():
            assert job.poll() is None and time.monotonic() < deadline, printed.read_text()
            time.sleep(0.01)
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert job.wait() != 0
    assert (work / "killed" / "resume.safetensors").exists()
    done = shared_run(env, work, 2, "tiny.toml", "--out", "killed", "--resume")
    assert done.stdout.count("resumed after epoch") == 1
    assert results(work / "killed") == results(whole)
    again = reid(env, work, "run", "tiny.toml", "--out", "killed", "--resume")
    assert "is finished" in again.stdout


def test_resumed_by_another_number(work, env):
    """A run that one process began goes on in two, and says that its bits will be others."""
    kept = ["--set", "train.epochs=1"]
    reid(env, work, "run", "tiny.toml", "--out", "more", *kept)
    lock = work / "more" / "lock.json"
    lock.write_text(lock.read_text().replace('"finished": true', '"finished": false'))
    done = shared_run(env, work, 2, "tiny.toml", "--out", "more", *kept, "--resume")
    assert "note: processes was 1, is 2: the end will not be bit-identical" in done.stdout


def test_one_that_fails_ends_all(work, env, whole):
    """What is wrong with the folder is said by the process that looks, and the others end."""
    before = results(whole)
    done = shared_run(env, work, 2, "tiny.toml", "--out", "two", code=2)
    assert "process 0 of 2: error: " in done.stderr
    assert "already holds a finished run. Nothing was changed" in done.stderr
    assert f'File "{ROOT / "reidcore"}{os.sep}' not in done.stderr  # no traceback of ours
    assert results(whole) == before


@pytest.mark.parametrize(
    ("modality", "count", "expected"),
    [
        ([0] * 7, 2, [[0, 1, 2, 3], [4, 5, 6]]),
        ([0, 0, 0, 1, 1, 1], 3, [[0, 3], [1, 4], [2, 5]]),
        ([1, 0, 1, 0], 2, [[0, 1], [2, 3]]),
        ([0, 0, 0, 1], 2, None),
        ([0, 0], 3, None),
    ],
)
def test_batches_are_divided(modality, count, expected):
    """A stretch of each modality for every process; nothing where one would have none."""
    import numpy as np

    division = divided(np.array(modality), Processes(0, count))
    assert (division and [part.tolist() for part in division.parts]) == expected
