"""A stranger's distribution, built and installed for real, takes part as if it were built in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
import warm_python
from distributions import ROOT, write_distribution
from running import ended, environment, kill_when, reid, results

from reidcore.builtin.readers.demo import Demo
from reidcore.data.manifest import read_manifest

SOURCE = Path(__file__).parents[1] / "stranger"
PUBLIC = {"reidcore.api", "reidcore.modules", "reidcore.testing"}

SCORES = """
import sys, torch
from reidcore.cli.main import main
from reidcore.data.pictures import PictureLoader, make_rows
from reidcore.modules import open_run
from reidcore.ranking.distances import compute_distances
from reidcore.ranking.comparer import make_comparer
model = open_run(sys.argv[1], "cpu")
plan = model.plan
rows = make_rows(plan.data.test[0].rows, plan.data.camera_numbers, plan.given.modalities)
loader = PictureLoader(plan.runfile.data, 0)
templates = make_comparer(model, loader).templates(["pairs"], rows)["pairs"]
matcher, matching = model.matchers["pairs"], plan.matching("pairs")
whole = matcher.distance(templates, templates).detach()
assert whole.std() > 1e-4, whole
for memory in (1e-9, 1e-6, 1.0):
    tiled = compute_distances(matcher, matching, templates, templates, memory)
    print(memory, float((tiled - whole).abs().max()))
    assert torch.allclose(tiled, whole, rtol=0, atol=1e-6)
sys.exit(main(["eval", sys.argv[1], "--set", "eval.memory=1e-9", "-o", "tiny.json"]))
"""

OTHER = """
import attrs
from reidcore.api import Component, VectorName, hookimpl, setting

@attrs.frozen
class Small:
    feature: VectorName = setting("the vector to keep small")

    def check(self, given):
        pass

@hookimpl
def reid_losses():
    return [Component("small", Small, "PACKAGE.small:build")]
"""
OTHER_TORCH = """
from reidcore.modules import Loss

class Small(Loss):
    def __init__(self, feature):
        super().__init__()
        self.feature = feature

    def forward(self, features, batch):
        return features[self.feature].square().mean()

def build(config, context):
    return Small(config.feature)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site folder into which the wheel, built from a copy of the source, is unpacked."""
    base = tmp_path_factory.mktemp("stranger")
    shutil.copytree(SOURCE, base / "source", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=base / "source",
        check=True,
        capture_output=True,
    )
    (wheel,) = (base / "source" / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(base / "site")
    return base / "site"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the demo's pictures in the stranger's own layout."""
    base = tmp_path_factory.mktemp("work")
    demo = Demo(train_identities=4, test_identities=3, pictures=8, cameras=2)
    demo.rows(base / "demo")
    for row in read_manifest(base / "demo" / "manifest.csv"):
        name = f"{['north', 'south'][int(row.camera) - 1]}_{row.time}{Path(row.path).suffix}"
        target = base / "strangers" / row.split / row.pid / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(row.path, target)
    return base


@pytest.fixture(scope="module")
def env(site, work):
    """The environment of a user who has installed the stranger."""
    return environment(work / "cache", site, REID_DATA=str(work))


@pytest.fixture(scope="module")
def finished(env, work):
    """The folder of an uninterrupted run of everything together."""
    reid(env, work, "run", "stranger:everything", "--out", "finished")
    return work / "finished"


def test_it_imports_only_what_is_public():
    """The package names no module of the core but the three of the contract."""
    named = set()
    for file in (SOURCE / "reid_stranger").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        named |= set(re.findall(r"^\s*(?:from|import)\s+(reidcore[\w.]*)", text, re.MULTILINE))
    assert named and named <= PUBLIC


def test_it_is_listed_with_every_kind(env, work):
    """`reid plugins stranger` shows a component of eight kinds, and their documentation."""
    shown = reid(env, work, "plugins", "stranger").stdout
    for name in ["local", "pairs", "memory", "travel", "two_streams", "folders", "hard", "fade"]:
        assert re.search(rf"^  stranger\.{name}$", shown, re.MULTILINE), name
    assert "observes: reid_epoch_ended" in shown
    assert "reid-plugin-stranger 0.3.1" in shown
    assert "imports torch" not in shown
    assert "after so long a time nothing is known" in shown


def test_it_is_checked_where_its_data_are_absent(env, work, tmp_path):
    """`reid check` wires with the reader's facts and passes the dry run."""
    shown = reid({**env, "REID_DATA": str(tmp_path)}, work, "check", "stranger:everything").stdout
    assert "assumed 4 identities" in shown
    assert "procedure" in shown
    assert "ok: keys, wiring and dry run" in shown


def test_it_trains_and_is_scored(finished):
    """The run ends with scores of both rankings, the post's included, and all state is saved."""
    scores = json.loads((finished / "scores.json").read_text())["folders"]
    assert list(scores["pairwise"]) == ["plain", "travel"]
    assert list(scores["plain"]) == ["plain"]
    assert scores["pairwise"]["plain"]["queries"] == 6
    from safetensors.numpy import load_file

    weights = load_file(finished / "weights.safetensors")
    assert weights["loss.memory.steps"] == 24  # 4 epochs with 3 batches for each of 2 identities
    assert weights["loss.memory.centroids"].any(axis=(1, 2, 3)).all()
    assert not [key for key in weights if key.startswith("loss.memory.matcher")]
    last = (finished / "means.csv").read_text().splitlines()
    means = dict(zip(last[0].split(","), last[-1].split(","), strict=True))
    assert weights["loss.memory.trust"] == pytest.approx(1 / (1 + float(means["id"])), rel=1e-6)
    assert (finished / "own.json").exists()


def test_the_observer_sees_which_epochs_were_scored(finished):
    """The observer's files say that epochs 2 and 4 were evaluated, as `every = 2` asks."""
    seen = [json.loads((finished / f"seen-{n}.json").read_text()) for n in (1, 2, 3, 4)]
    assert [one["scored"] for one in seen] == [False, True, False, True]


def test_killed_and_resumed_it_ends_with_the_same_bits(env, work, finished):
    """SIGKILL in the middle changes neither weights, scores nor the procedure's own module, even
    with another number of workers."""
    command = ["run", "stranger:everything", "--out", "killed"]
    kill_when(env, work, command, ended(2))
    assert not (work / "killed" / "scores.json").exists()
    shown = reid(env, work, *command, "--resume", "--set", "data.workers=1").stdout
    assert "resumed after epoch" in shown
    assert results(work / "killed") == results(finished)
    own = [(folder / "own.json").read_bytes() for folder in (work / "killed", finished)]
    assert own[0] == own[1]


def test_unlabelled_pictures_are_ranked_by_pairs(env, work, site, tmp_path, finished):
    """`reid rank` takes the pairwise matcher and the post chain, without what only trains; the
    times the post needs come from a CSV file's column."""
    shutil.copytree(site, tmp_path / "less")
    for name in ("memory", "streams", "loading"):
        (tmp_path / "less" / "reid_stranger" / f"{name}.py").unlink()
    less = {**env, "PYTHONPATH": f"{tmp_path / 'less'}:{ROOT}"}
    manifest = next(work.rglob("manifest.csv"))
    rank = ["rank", finished, "--gallery", manifest, "--ranking", "pairwise", "--top", "3"]
    refused = reid(less, work, *rank, "--query", manifest.parent, code=2).stderr
    assert "ranking 'pairwise': postprocessor 'travel'" in refused
    assert "needs the manifest column time; this data set has none" in refused
    lines = reid(less, work, *rank, "--query", manifest).stdout.splitlines()
    assert lines[0] == "query,rank,gallery,distance"
    assert len(lines) == 1 + 3 * len(read_manifest(manifest))


def test_it_is_evaluated_without_what_only_trains(env, work, site, tmp_path, finished):
    """`reid eval` works, with equal scores, without the files of the loss, procedure and sampler,
    and without the distribution of another loss."""
    write_distribution(tmp_path / "both", "other", OTHER, files={"small.py": OTHER_TORCH})
    shutil.copytree(site, tmp_path / "both", dirs_exist_ok=True)
    text = (SOURCE / "reid_stranger" / "runs" / "everything.toml").read_text()
    text += '\n[[loss]]\nname = "small"\nuse = "other.small"\nfeature = "neck.bn"\n'
    (tmp_path / "two.toml").write_text(text.replace("epochs = 4", "epochs = 1"))
    both = {**env, "PYTHONPATH": f"{tmp_path / 'both'}:{ROOT}"}
    reid(both, tmp_path, "run", "two.toml", "--out", "two")
    shutil.copytree(site, tmp_path / "less")
    for name in ("memory", "streams", "loading"):
        (tmp_path / "less" / "reid_stranger" / f"{name}.py").unlink()
    less = {**env, "PYTHONPATH": f"{tmp_path / 'less'}:{ROOT}"}
    reid(less, tmp_path, "eval", "two", "-o", "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "two/scores.json").read_bytes()
    failed = reid(less, tmp_path, "run", "two.toml", "--out", "three", code=2)
    assert "reid-plugin-other" in failed.stderr


@pytest.fixture
def inside(work, monkeypatch, tmp_path):
    """Builds the run in this process, from the source: a function of `--set` changes."""
    monkeypatch.syspath_prepend(str(SOURCE))
    monkeypatch.setenv("REID_DATA", str(work))

    def build(*changes):
        from reid_stranger import plugin

        from reidcore.plugins.loading import Plugins
        from reidcore.runfiles.parse import parse_runfile
        from reidcore.support.progress import Silent
        from reidcore.training.options import TrainingOptions
        from reidcore.training.start import run_training
        from reidcore.wiring.make_plan import make_plan

        plugins = Plugins([])
        plugins.add("stranger", plugin)
        plan = make_plan(parse_runfile(plugin.SAMPLE, Path("x.toml"), changes), plugins)
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        run_training(plan, plugins, TrainingOptions(folder, changes), Silent())
        return folder

    return build


def test_a_sampler_that_asks_changes_nothing(inside, monkeypatch):
    """Features and distances are asked for in eval mode: with a matcher whose templates have a
    batch norm, asking leaves the model as it was."""
    from reidcore.training.training_run import TrainingRun

    changed = []
    batches = TrainingRun.batches

    def watched(run, *where, **stream):
        before = {key: value.clone() for key, value in run.model.state_dict().items()}
        drawn = batches(run, *where, **stream)
        first = next(drawn)
        after = run.model.state_dict()
        changed.extend(key for key in before if not torch.equal(before[key], after[key]))
        yield first
        yield from drawn

    monkeypatch.setattr(TrainingRun, "batches", watched)
    inside("train.epochs=1")
    assert changed == []


def test_what_a_sampler_asks_does_not_depend_on_workers(inside):
    """With a model that changes much from step to step, the sampler's order, which follows from
    what it asks, is the same however far the workers read ahead."""
    fast = ("train.epochs=1", "optim.lr=0.05", "eval.every=0")
    found = [results(inside(*fast, f"data.workers={number}")) for number in (1, 4)]
    assert found[0] == found[1]


def test_a_procedure_draws_its_own_weights_from_the_seed(inside):
    """The procedure's own module starts from the run's seed, whatever was drawn before."""
    still = ("train.epochs=1", "optim.lr=1e-12", "eval.every=0")
    found = []
    for seed, before in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(before)
        found.append((inside(*still, f"train.seed={seed}") / "own.json").read_bytes())
    assert found[0] == found[1] != found[2]


def test_ranking_in_tiles_is_ranking_at_once(env, work, finished):
    """One pair at a time gives the distances of the whole matrix, and the same scores."""
    done = warm_python.run(["-c", SCORES, finished], env, work, 200)
    assert done.returncode == 0, done.stderr
    assert json.loads((work / "tiny.json").read_text()) == json.loads(
        (finished / "scores.json").read_text()
    )


def test_it_conforms(env, work):
    """Its six lines of conformance tests pass, with its data at hand."""
    six = (
        "import pytest\nfrom reidcore.testing import iter_checks\n\n"
        '@pytest.mark.parametrize("check", iter_checks("stranger"), ids=str)\n'
        "def test_conformance(check):\n    check()\n"
    )
    (work / "test_conformance.py").write_text(six)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_conformance.py"]
    done = warm_python.run(words, env, work, 200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[3-9]\d passed", done.stdout), done.stdout
