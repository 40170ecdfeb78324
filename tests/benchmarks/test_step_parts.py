"""The benchmark of a training step by part."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from running import environment

from distributions import ROOT  # isort: skip


def test_the_parts_of_a_step_are_told(tmp_path):
    """Every part of the demo's step has a line, parts and rest add up to the step, and the table
    has the run's row."""
    env = environment(tmp_path)
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "benchmarks", "step_parts.py"), "--small", "demo"],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
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
