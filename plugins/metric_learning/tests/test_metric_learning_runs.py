"""Runs with losses of pytorch-metric-learning: the demo, and one that is killed and goes on."""

from __future__ import annotations

import json

import pytest
from running import TINY, ended, environment, kill_when, reid, results
from safetensors.torch import load_file

from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged

PROXIES = """
[[loss]]
name = "proxies"
use = "metric_learning.loss"
feature = "neck.bn"
loss = "SubCenterArcFaceLoss"
arguments = { sub_centers = 2, weight_regularizer = "RegularFaceRegularizer" }

[[loss]]
name = "margin"
use = "metric_learning.loss"
feature = "neck.pooled"
loss = "TripletMarginLoss"
arguments = { triplets_per_anchor = 2 }
miner = "DistanceWeightedMiner"
"""
"""Classifier weights that are trained, and triplets that are drawn at random."""


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_not_been_killed(tmp_path):
    """Proxies, their optimizer's state and random triplets included."""
    env = environment(tmp_path / "cache")
    start = TINY.index("[[loss]]")
    text = TINY[:start] + PROXIES + TINY[TINY.index("[train]") - 1 :]
    (tmp_path / "proxies.toml").write_text(text.replace("lr = 1e-3", 'kind = "adam"\nlr = 1e-3'))
    reid(env, tmp_path, "run", "proxies.toml", "--out", "whole")
    kill_when(env, tmp_path, ["run", "proxies.toml", "--out", "killed"], ended(3))
    assert not (tmp_path / "killed" / "scores.json").exists()
    reid(env, tmp_path, "run", "proxies.toml", "--out", "killed", "--resume")
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    weights = load_file(tmp_path / "whole" / "weights.safetensors")
    assert weights["loss.proxies.function.W"].shape == (64, 4 * 2)
    reid(env, tmp_path, "run", "proxies.toml", "--out", "still", "--set", "train.epochs=0")
    still = load_file(tmp_path / "still" / "weights.safetensors")
    assert not weights["loss.proxies.function.W"].equal(still["loss.proxies.function.W"])


def test_the_demo_trains(tmp_path):
    """The packaged run file trains and logs what its losses say; the trained run is evaluated."""
    env = environment(tmp_path / "cache")
    few = [
        word
        for side in ("train", "test.0")
        for key in ("train_identities=8", "test_identities=4", "pictures=8")
        for word in ("--set", f"data.{side}.{key}")
    ]
    few += ["--set", "train.epochs=1", "--set", "backbone.width=0.125"]
    assert find_packaged("metric_learning:demo", Plugins()).summary
    printed = reid(env, tmp_path, "run", "metric_learning:demo", "--out", "run", *few).stdout
    assert "proxies.accuracy" in printed and "pairs.mined" in printed
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    reid(env, tmp_path, "eval", "run", "-o", "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == scores


def test_a_wrong_name_is_a_line_of_the_run_file(tmp_path):
    """`reid check` reports it with the file, its line and the loss, and exits with 2."""
    env = environment(tmp_path / "cache")
    wrong = PROXIES.replace("SubCenterArcFaceLoss", "SubCentreArcFaceLoss")
    (tmp_path / "wrong.toml").write_text(TINY.replace("\n[train]", f"{wrong}\n[train]"))
    printed = reid(env, tmp_path, "check", "wrong.toml", "--no-dry", code=2).stderr
    line = (tmp_path / "wrong.toml").read_text().splitlines().index('loss = "SubCentreArcFaceLoss"')
    assert (
        f"wrong.toml:{line + 1}: loss 'proxies' (metric_learning.loss): loss names "
        "'SubCentreArcFaceLoss', which is no loss of pytorch-metric-learning"
    ) in printed
    assert "did you mean 'SubCenterArcFaceLoss'?" in printed and "Traceback" not in printed
