"""Runs that are killed, or whose disk is full, at a point where they write, and are resumed."""

from __future__ import annotations

import json
from pathlib import Path

import faults
import pytest
import warm_python
from distributions import ROOT, write_distribution
from running import environment


def injected(folder: Path, every: int, first: int = 0) -> dict[str, dict[str, list[str]]]:
    """What is wrong after faults at the points first, first + every, ..., of all that there are."""
    write_distribution(folder / "site", "watch", faults.WATCH)
    work = folder / "work"
    work.mkdir()
    env = environment(folder / "cache", folder / "site")
    done = warm_python.run([faults.__file__, work, every, first], env, ROOT, 7200)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # Every kind of file is written, so every kind of point is there.
    written = {name.partition(" ")[2].split(".")[1] for name in found["points"] if ".tmp" in name}
    assert {"run", "lock", "resume", "means", "weights", "weights-best"} <= written
    assert {"open", "fsync", "replace", "unlink"} <= {one.split()[0] for one in found["points"]}
    assert found["faults"] == len(range(first, 4 * len(found["points"]), every))
    return found["wrong"]


def test_a_fault_leaves_no_trace(tmp_path):
    """A kill and a full disk, before and after a few of the calls: resumed, the run has the same
    files. A full disk is told in a sentence and leaves no temporary."""
    assert injected(tmp_path, every=83, first=11) == {}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_fault_leaves_a_trace(tmp_path):
    """The same at every point."""
    assert injected(tmp_path, every=1) == {}
