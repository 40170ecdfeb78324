"""The packaged run files on real pictures, which are not part of the project."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import pytest
from distributions import ROOT
from running import environment, reid


def folder(variable: str, name: str) -> Path:
    """Where real data or weights are expected: in the variable's folder, or in ../shared."""
    return Path(os.environ.get(variable) or ROOT.parent / "shared" / name).resolve()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "least_map", "least_first"), [("ward", 0.80, 0.90), ("vehicles", 0.90, 0.85)]
)
def test_fine_tuning_reaches_what_it_should(
    tmp_path: Path, name: str, least_map: float, least_first: float
):
    """The median of three seeds after the last epoch; nothing is chosen on the test pictures. Each
    seed trains in less than three minutes on two cores."""
    data, weights = folder("REID_DATA", "data"), folder("REID_WEIGHTS", "weights")
    for file in (data / f"{name}.csv", weights / "osnet_x0_25_msmt17.pth"):
        if not file.exists():
            pytest.skip(f"no {file}; set REID_DATA and REID_WEIGHTS")
    env = environment(
        tmp_path / "cache", REID_DATA=str(data), REID_WEIGHTS=str(weights), OMP_NUM_THREADS="2"
    )
    reid(env, tmp_path, "run", f"{name}-osnet", "--out", "run", timeout=1000)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())[name]["main"]["plain"]
    found = {key: scores[key]["values"] for key in ("mAP", "rank-1")}
    assert statistics.median(found["mAP"]) >= least_map, found
    assert statistics.median(found["rank-1"]) >= least_first, found
    for seed in range(3):
        means = (tmp_path / "run" / str(seed) / "means.csv").read_text().splitlines()
        column = means[0].split(",").index("seconds")
        assert sum(float(line.split(",")[column]) for line in means[1:]) < 180
