"""The benchmark of genotypes: its correlation, and what it says of folders that are none."""

from __future__ import annotations

import math
import os

import warm_python
from distributions import ROOT

BENCHMARKS = ROOT / "benchmarks"


def test_equal_values_have_no_correlation(monkeypatch):
    """Nor has a single genotype; others are by ranks, ties sharing theirs."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from msinet_genotypes import spearman

    for first, second in ([1.0], [2.0]), ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]):
        correlation, p = spearman(first, second)
        assert math.isnan(correlation) and p == 1
    assert abs(spearman([1, 2, 3, 4], [10, 30, 20, 40])[0] - 0.8) < 1e-9
    assert abs(spearman([1, 2, 2, 3], [1, 2, 2, 3])[0] - 1) < 1e-9


def test_a_folder_that_is_no_run_is_told(tmp_path):
    (tmp_path / "own.csv").write_text("path,pid,camera,split\n")
    script = str(BENCHMARKS / "msinet_genotypes.py")
    arguments = (script, "own.csv", "--alone", str(tmp_path / "nowhere"))
    done = warm_python.run(arguments, {**os.environ, "REID_DATA": str(tmp_path)}, ROOT, 200)
    assert done.returncode == 1
    assert done.stderr == f"error: no run folder at {tmp_path / 'nowhere'}\n"
