"""The packaged run files on real pictures, which are not part of the project."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import pytest
from browser import CHROMIUM, opened, read
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


def test_the_report_of_real_pictures(tmp_path: Path):
    """A page of all 60 queries of WARD with their pictures: less than 5 MiB, and it opens by
    itself. Of the network as it came; nothing is trained."""
    data, weights = folder("REID_DATA", "data"), folder("REID_WEIGHTS", "weights")
    for file in (data / "ward.csv", weights / "osnet_x0_25_msmt17.pth"):
        if not file.exists():
            pytest.skip(f"no {file}; set REID_DATA and REID_WEIGHTS")
    env = environment(tmp_path / "cache", REID_DATA=str(data), REID_WEIGHTS=str(weights))
    sets = [part for one in ("train.epochs=0", "repeat={}") for part in ("--set", one)]
    reid(env, tmp_path, "run", "ward-osnet", "--out", "run", *sets)
    reid(env, tmp_path, "report", "run", "--queries", "60", "--explain", "1")
    page = tmp_path / "report.html"
    found = read(page.read_text())
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["ward"]["main"]
    for stage in ("plain", "rerank"):
        assert f"ward main {stage} {100 * scores[stage]['mAP']:.1f}" in found.text
    assert "not counted" in found.text and "camera 3" in found.text
    assert sum(one["aria-label"].startswith("query") for one in found.pictures()) >= 60
    assert page.stat().st_size < 5 * 2**20
    if CHROMIUM:
        assert opened(tmp_path, page).requests == []
