"""Whole commands on a stand-in for a GPU give what they give on the CPU, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from running import SEARCH, TINY

import reidcore
from reidcore.cli.main import main
from reidcore.errors import ReidError
from tests.stand_in_gpu import StandIn

RANKINGS = """\
tar_at = [0.01, 0.1]

[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.bn"]

[[post]]
name = "again"
use = "core.rerank"
k1 = 6
k2 = 3

[[post]]
name = "wider"
use = "core.expand"
top = 3

[[post]]
name = "times"
use = "qaconv.tlift"

[[ranking]]
name = "plain"
matcher = "look"

[[ranking]]
name = "both"
fuse = { look = 0.7, far = 0.3 }
scale = "isotonic"
post = ["again", "times"]

[[ranking]]
name = "expanded"
matcher = "look"
scale = "logistic"
post = ["wider"]

[[ranking]]
name = "short"
matcher = "look"
shortlist = { by = "far", top = 7 }
"""
TEXT = TINY.replace("epochs = 6", "epochs = 2").replace("every = 1\n", f"every = 1\n{RANKINGS}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a run on the CPU and one on the stand-in."""
    place = tmp_path_factory.mktemp("devices")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("REID_CACHE", str(place / "cache"))
        Path("tiny.toml").write_text(TEXT, encoding="utf-8")
        assert main(["run", "tiny.toml", "--out", "cpu", "--set", "train.device=cpu"]) == 0
        with StandIn():
            assert main(["run", "tiny.toml", "--out", "gpu", "--set", "train.device=cuda"]) == 0
        yield place


def content(*names: str) -> list[dict]:
    return [json.loads(Path(name).read_text(encoding="utf-8")) for name in names]


def test_training_and_scores_are_the_same(folder):
    for name in ("weights.safetensors", "scores.json", "scores-by-epoch.json"):
        assert Path("cpu", name).read_bytes() == Path("gpu", name).read_bytes()


def test_a_run_that_was_stopped_goes_on(folder, monkeypatch):
    """With what its optimizer and its losses knew, moved back to the device."""
    stopped = ["run", "tiny.toml", "--out", "stopped", "--set", "train.device=cuda"]

    def stop(*anything):
        raise ReidError("stopped")

    with StandIn():
        with monkeypatch.context() as patch:
            patch.setattr("reidcore.training.training_run.evaluate", stop)
            assert main(stopped) != 0
        assert main([*stopped, "--resume"]) == 0
    for name in ("weights.safetensors", "scores.json"):
        assert Path("stopped", name).read_bytes() == Path("cpu", name).read_bytes()


@pytest.mark.parametrize("templates", ["auto", "device", "host", "disk"])
@pytest.mark.parametrize("free", [1 << 33, 1 << 8], ids=["room", "no room"])
def test_memory_changes_no_score(folder, capsys, templates, free):
    """Wherever templates are, and whether or not they and the matrices fit on the device; what does
    not fit is re-ranked by the CPU."""
    with StandIn(free=free) as gpu:
        evaluated = main(
            ["eval", "gpu", "--set", f"eval.templates={templates}", "-o", "again.json"]
        )
    assert evaluated == 0
    told = "in the memory of the CPU" in capsys.readouterr().out
    assert told == (templates == "host" or (templates == "auto" and free < 1000))
    there = any("tlift.py" in place for _, place in gpu.waits)
    assert there == (free > 1000)
    expected, found = content("cpu/scores.json", "again.json")
    assert found == expected


def test_pictures_are_ranked_alike(folder):
    """From templates in memory and from an index, before and after postprocessors."""
    pictures = [str(path) for path in sorted(Path("cache").rglob("*.jpg"))[:12]]
    assert len(pictures) == 12
    cpu = reidcore.load("cpu", device="cpu")
    expected = {name: cpu.rank(pictures[:4], pictures, 5, name) for name in ("plain", "expanded")}
    distances = cpu.distances(pictures[:4], pictures)
    for free in (1 << 33, 100):
        with StandIn(free=free):
            gpu = reidcore.load("gpu", device="cuda")
            index = gpu.index(pictures, f"index-{free}")
            for name, ranked in expected.items():
                for gallery in (pictures, index):
                    found = gpu.rank(pictures[:4], gallery, 5, name)
                    assert torch.equal(found.index, ranked.index)
                    assert torch.equal(found.distance, ranked.distance)
            assert torch.equal(gpu.distances(pictures[:4], index), distances)


def test_reports_and_explanations_are_made(folder):
    """What is drawn comes back from the device."""
    pictures = sorted(Path("cache").rglob("*.jpg"))[:2]
    Path("two.csv").write_text("path\n" + "".join(f"{path}\n" for path in pictures), "utf-8")
    for place, device in (("cpu", "cpu"), ("gpu", "cuda")):
        asked = ["--query", "two.csv", "--gallery", "two.csv", "--losses", "--feature", "neck.bn"]
        with StandIn():
            made = [
                main(["report", place, "--device", device, "-o", f"{place}.html"]),
                main(["explain", place, "--device", device, *asked, "-o", f"{place}-why"]),
            ]
        assert made == [0, 0]
    drawn = {path.name: path.read_bytes() for path in Path("cpu-why").rglob("*.png")}
    assert drawn
    assert drawn == {path.name: path.read_bytes() for path in Path("gpu-why").rglob("*.png")}


ASKING = TEXT.replace(
    'use = "core.identities", ids = 4, per_id = 2',
    'use = "qaconv.graph", matcher = "look", ids = 3, per_id = 2',
)


@pytest.mark.parametrize(
    ("text", "result"), [(ASKING, "weights.safetensors"), (SEARCH, "genotype.json")]
)
def test_what_asks_a_model_for_more_is_the_same(folder, text, result):
    """A sampler that asks for distances, and a procedure with two losses of its own."""
    name = Path(result).stem
    Path(f"{name}.toml").write_text(text, encoding="utf-8")
    for device in ("cpu", "cuda"):
        with StandIn():
            arguments = ["--out", f"{name}-{device}", "--set", f"train.device={device}"]
            assert main(["run", f"{name}.toml", *arguments]) == 0
    assert Path(f"{name}-cpu", result).read_bytes() == Path(f"{name}-cuda", result).read_bytes()
