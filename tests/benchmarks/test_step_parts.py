"""The benchmark of a training step by part."""

from __future__ import annotations

import re

import warm_python
from distributions import ROOT
from running import environment


def test_the_parts_of_a_step_are_told(tmp_path):
    """Every part of the demo's step has a line, parts and rest add up to the step, and the table
    has the run's row."""
    words = [ROOT / "benchmarks" / "step_parts.py", "--small", "demo"]
    done = warm_python.run(words, environment(tmp_path), ROOT, 200)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^  (\S.*?) +(-?[\d.]+) ms", done.stdout, re.MULTILINE))
    assert list(found) == [
        "input",
        "copying",
        "backbone (core.resnet)",
        "head 'neck' (core.bnneck)",
        "loss 'id' (core.softmax)",
        "loss 'triplet' (core.triplet)",
        "backward",
        "optimizer",
        "after_step",
        "the rest",
        "step",
    ]
    seconds = {name: float(value) for name, value in found.items()}
    step = seconds.pop("step")
    assert abs(sum(seconds.values()) - step) < 0.1 * len(found)
    assert min(seconds[part] for part in ("backbone (core.resnet)", "backward", "optimizer")) > 0
    assert "batch 16\n" in done.stdout and done.stdout.count("| `demo` | ") == 1
