"""Compiled training (`train.compile`): the same numbers, names and files as without."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import compiled_parts
import pytest
import torch
from distributions import python

from reidcore.distributed.processes import Processes
from reidcore.errors import UsageError
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.model.state_files import load_sections, read_tensors
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.progress import Silent
from reidcore.training.dry_run import dry_run, random_batch
from reidcore.training.options import TrainingOptions
from reidcore.training.start import run_training
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan

SMALL = """\
format = 1
name = "small"

[data]
train = { read = "core.demo", train_identities = 4, test_identities = 3, pictures = 8, cameras = 2 }
test = [
  { read = "core.demo", train_identities = 4, test_identities = 3, pictures = 8, cameras = 2 },
]
image = [32, 16]
batch = { use = "core.identities", ids = 4, per_id = 2 }

[backbone]
use = "small.net"

[[head]]
name = "neck"
use = "core.bnneck"
source = "backbone.map"

[[matcher]]
name = "look"
use = "core.cosine"
features = ["neck.bn"]

[[loss]]
name = "id"
use = "core.softmax"
features = ["neck.bn"]

[train]
epochs = 3
device = "cpu"

[optim]
lr = 1e-2
"""
has_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)
ON = "train.compile=true"


@pytest.fixture(scope="module", autouse=True)
def kernels(tmp_path_factory):
    """A folder of the tests' own for what torch compiles; pictures are drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        patch.setenv("REID_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def planned(*sets: str, make_data: bool = False) -> tuple[Plan, Plugins]:
    plugins = Plugins([])
    plugins.add("small", compiled_parts)
    run = parse_runfile(SMALL, Path("small.toml"), sets)
    return make_plan(run, plugins, make_data=make_data, allow_missing=not make_data), plugins


def make(*sets: str) -> Model:
    return build_model(planned(*sets)[0], 0)


def losses(model: Model, steps: int = 4) -> list[float]:
    """Of some steps of SGD on random pictures, the last ones on fewer."""
    optimizer = torch.optim.SGD(model.train().parameters(), 0.05)
    found = []
    for step in range(steps):
        batch = random_batch(model.plan, model.device, step)
        if step >= steps - 2:
            batch = type(batch)(batch.images[:3], batch.pid[:3])
        loss, _ = model.loss(model(batch.images), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@has_compiler
def test_compiled_steps_have_the_same_losses_and_weights():
    """Losses, weights and their names are those of plain training up to rounding, also where a
    batch is smaller; evaluation is not compiled, and so the same to the last bit."""
    plain, fast = make(), make(ON)
    assert dry_run(fast.plan, fast) == []
    assert losses(fast) == pytest.approx(losses(plain), rel=1e-4)
    assert set(fast._compiled) == {"backbone", "head.neck"} and not plain._compiled
    states = plain.state_dict(), fast.state_dict()
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4)
    images = random_batch(plain.plan, plain.device).images
    plain.load_state_dict(states[1])
    a, b = (model.eval()(images) for model in (plain, fast))
    assert all(torch.equal(a[name], b[name]) for name in a)


class Killed(Silent):
    """Ends the process after an epoch."""

    def epoch_started(self, epoch: int, epochs: int, first: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt


@has_compiler
def test_compiled_runs_resume_and_load(tmp_path: Path):
    """A compiled run that was ended and resumed has the weights of one that was not, bit by bit;
    its files are those of a plain run, which come close."""
    plan, plugins = planned(ON, make_data=True)
    for name in ("whole", "resumed", "plain"):
        (tmp_path / name).mkdir()
    scores = run_training(plan, plugins, TrainingOptions(tmp_path / "whole", [ON]), Silent())
    with pytest.raises(KeyboardInterrupt):
        run_training(plan, plugins, TrainingOptions(tmp_path / "resumed", [ON]), Killed())
    assert (
        run_training(plan, plugins, TrainingOptions(tmp_path / "resumed", [ON]), Silent()) == scores
    )
    run_training(planned(make_data=True)[0], plugins, TrainingOptions(tmp_path / "plain"), Silent())
    whole, resumed, plain = (
        read_tensors(tmp_path / name / "weights.safetensors")[0]
        for name in ("whole", "resumed", "plain")
    )
    assert list(whole) == list(resumed) == list(plain)
    for name, value in whole.items():
        assert torch.equal(resumed[name], value)
        if not name.startswith("pairs."):
            torch.testing.assert_close(plain[name], value, rtol=1e-2, atol=1e-3)
    load_sections(make(), tmp_path / "whole" / "weights.safetensors")


def test_a_failing_compiler_says_what_to_set(tmp_path: Path, monkeypatch):
    """Without a C++ compiler the first step names the part and the setting to change, with exit
    code 2; nothing is trained uncompiled in silence."""
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    with pytest.raises(UsageError) as caught:
        losses(make(ON), 1)
    torch._dynamo.reset()
    told = str(caught.value)
    assert "backbone (small.net)" in told and "train.compile = false" in told
    assert caught.value.exit_code == 2 and "\n" not in told


def test_several_processes_do_not_compile(tmp_path: Path):
    """The norms that processes share are refused before anything is built."""
    plan, plugins = planned(ON)
    with pytest.raises(UsageError, match=r"train.compile = false"):
        run_training(plan, plugins, TrainingOptions(tmp_path), Silent(), processes=Processes(0, 2))
    assert not list(tmp_path.iterdir())


def test_the_compiler_is_not_imported_unasked(tmp_path: Path):
    """The torch half of the core is imported, and a model built, without torch's compiler."""
    code = (
        "import sys, reidcore.training.training_run, reidcore.data.pictures\n"
        "import reidcore.ranking.distances, reidcore.training.dry_run\n"
        "print('torch' in sys.modules, any('torch._' + x in sys.modules for x in "
        "('dynamo', 'inductor')))"
    )
    done = python(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "False"], sys.version
