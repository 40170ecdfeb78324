"""The benchmark of ranking on a GPU runs to its end, and tells a result that differs."""

from __future__ import annotations

import os

import pytest
import warm_python
from distributions import ROOT

BENCHMARKS = ROOT / "benchmarks"
ON_STAND_IN = """
import sys
from unittest.mock import patch
import torch
sys.path[:0] = [{benchmarks!r}, {root!r}]
import ranking_gpu
from tests.stand_in_gpu import StandIn
{before}
with StandIn(), patch("torch.cuda.is_available", lambda: True):
    sys.exit(ranking_gpu.main(["--small"]))
"""


def run(*arguments: str, code: int = 0) -> str:
    done = warm_python.run(arguments, {**os.environ, "CUDA_VISIBLE_DEVICES": ""}, ROOT, 200)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def on_stand_in(before: str = "", code: int = 0) -> str:
    text = ON_STAND_IN.format(benchmarks=str(BENCHMARKS), root=str(ROOT), before=before)
    return run("-c", text, code=code)


def test_it_measures_nothing_without_a_gpu():
    told = run(str(BENCHMARKS / "ranking_gpu.py"))
    assert told == "there is no GPU, so nothing is measured; --small tries the script on a CPU\n"


def test_it_runs_on_the_cpu():
    told = run(str(BENCHMARKS / "ranking_gpu.py"), "--small")
    assert "ranks equal, lists equal" in told
    for way in ("scores of vectors", "core.rerank", "qaconv.tlift", "ipad.mutual"):
        assert way in told


@pytest.mark.slow
def test_it_runs_on_a_stand_in_for_a_gpu():
    """The test below does, too, and ends with another word."""
    told = on_stand_in()
    assert "ranks equal, lists equal" in told and "a stand-in" in told


def test_it_tells_results_that_differ():
    """Here the device's lists are those of negative distances."""
    wrong = (
        "right = ranking_gpu.smallest\n"
        "ranking_gpu.smallest = lambda v, n: right(-v if v.is_cuda else v, n)"
    )
    assert "lists DIFFER" in on_stand_in(wrong, code=1)
