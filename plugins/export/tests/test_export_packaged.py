"""The parts of all plugins, and of the libraries around them, export: their packaged demos do."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("reid_export", reason="needs `uv run --all-groups`")
pytest.importorskip("onnx", reason="needs `uv run --all-groups`")
pytest.importorskip("timm", reason="needs `uv run --all-groups`")
pytest.importorskip("pytorch_metric_learning", reason="needs `uv run --all-groups`")

from reid_runtime import Embedder, Matcher
from reidcore.cli.main import main
from tests.packaged import few_pictures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEMOS = {
    "qaconv:demo": {"pairs.map"},
    "ipad:demo": {"mutual.kernel", "mutual.vector"},
    "ddag:demo": {"x.vector"},
    "ddag:demo-parts": {"x.vector"},
    "airnet:demo": {"look.vector"},
    "msinet:demo": {"look.vector"},
    "timm:demo": {"look.vector"},
    "metric_learning:demo": {"look.vector"},
}
"""Packaged runs, with templates that the rankings of these methods compare."""


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("options", [("--tolerance", "1e-4"), ("--half",)])
@pytest.mark.parametrize("name", DEMOS)
def test_packaged_demos_export(name, options, work):
    """The export refuses a larger difference itself, in batches of 1, 3 and 32."""
    epochs = int(name.startswith("ddag"))  # untrained, its stages of all modalities are the same
    assert main(["run", name, "--out", "run", *few_pictures(f"train.epochs={epochs}")]) == 0
    assert main(["export", "run", "-o", "out", "--no-lists", *options]) == 0
    manifest = json.loads((work / "out" / "export.json").read_text())
    assert DEMOS[name] <= set(manifest["templates"])
    told = manifest["inputs"].get("modality", {}).get("numbers", {})
    assert bool(told) == name.startswith("ddag")
    picture = np.full((50, 20, 3), 90, np.uint8)
    said = {"modality": list(told)} if told else {}  # each has stages of its own
    embed = Embedder(work / "out", threads=1)
    found = embed.templates([picture] * max(1, len(told)), **said)
    assert Matcher(work / "out", threads=1)(found, found).shape == (max(1, len(told)),) * 2
    for value in found.values():
        assert np.isfinite(value).all()
        assert not told or not np.allclose(value[0], value[1])


def test_a_run_that_searches_an_architecture_has_nothing_to_export(work, capsys):
    few = "data.train.train_identities=8", "data.train.pictures=8", "train.epochs=0"
    sets = [word for one in few for word in ("--set", one)]
    assert main(["run", "msinet:search-demo", "--out", "run", *sets]) == 0
    assert main(["export", "run", "-o", "out"]) == 2
    assert "matcher" in capsys.readouterr().err and not (work / "out").exists()
