"""Settings of the test run that every folder of tests shares."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

# Modules are compiled once, into a folder of the checkout, also where Python is told not to keep
# them: torch has thousands, which every process of a test would compile again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parent / "build/pycache"))
sys.dont_write_bytecode = False
sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"]

# Several workers (`pytest -n`) that computed with all cores each would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Workers are given files with long tests first, then those with many, so that none is left
    with a long one when the others have nothing more to do."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        tests = Counter(item.path for item in items)
        long = {item.path for item in items if _seconds(item) > 300}
        items.sort(key=lambda item: (item.path not in long, -tests[item.path]))


def _seconds(item):
    """What a test may take, if it says so."""
    mark = item.get_closest_marker("timeout")
    return mark.args[0] if mark and mark.args else 0


@pytest.fixture(params=["cpu", "stand-in", "cuda"])
def device(request):
    """Where a test computes: on the CPU, on a stand-in for a GPU, and on a GPU if there is one."""
    if request.param == "cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no GPU")
    if request.param != "stand-in":
        yield request.param
        return
    from tests.stand_in_gpu import StandIn

    with StandIn():
        yield "cuda"


@pytest.fixture
def session_cache(tmp_path_factory, monkeypatch):
    """The demo's pictures are drawn once for all tests, into a folder of this session."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def no_data(tmp_path_factory, monkeypatch):
    """There are no data sets and no published weights."""
    empty = tmp_path_factory.mktemp("data")
    for name in ("REID_DATA", "REID_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(name, str(empty))
