"""The distance to a query's nearest negatives, figure 1."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from reid_msinet.negatives import Gathered, main, nearest_negatives
from reidcore.cli.main import main as reid
from reidcore.tools import Judgements
from tests.packaged import few_pictures


@pytest.mark.parametrize("count", [1, 3, 50])
def test_the_mean_is_that_of_sorted_lists(count):
    """In blocks of queries, with matches, pictures that are left out, equal distances, a query with
    few negatives, and one with none, which does not count."""
    draw = torch.Generator().manual_seed(0)
    distances = (10 * torch.rand(9, 12, generator=draw, dtype=torch.float64)).round()
    match = torch.rand(9, 12, generator=draw) < 0.3
    ignored = torch.rand(9, 12, generator=draw) < 0.3
    match[7], ignored[7] = False, True
    match[8], ignored[8, 2:] = False, True
    means = []
    for row, *masks in zip(distances.tolist(), match.tolist(), ignored.tolist(), strict=True):
        judged = zip(row, *masks, strict=True)
        negatives = sorted(value for value, same, out in judged if not same and not out)[:count]
        means.append(sum(negatives) / len(negatives) if negatives else math.nan)
    found = nearest_negatives(distances, ~match & ~ignored, count)
    assert found.tolist() == pytest.approx(means, nan_ok=True) and math.isnan(means[7])
    gathered = Gathered(count)
    for start, stop in ((0, 4), (4, 9)):
        rows = slice(start, stop)
        judged = Judgements.of_masks(match[rows], ignored[rows])
        place = ("street", "main", "plain")
        gathered(SimpleNamespace(place=place, distances=distances[rows], judged=judged))
    valid = [mean for mean in means if not math.isnan(mean)]
    mean = sum(valid) / len(valid)
    deviation = math.sqrt(sum((one - mean) ** 2 for one in valid) / len(valid))
    line = f"street  main  plain  {mean:.4f} ± {deviation:.4f} of {len(valid)} queries"
    assert gathered.lines() == [line]


def test_the_command_tells_it_of_runs(tmp_path, capsys, session_cache):
    """Of each folder a line; what is no run is told in a sentence."""
    run = str(tmp_path / "run")
    assert reid(["run", "msinet:demo", "--out", run, *few_pictures("train.epochs=0")]) == 0
    capsys.readouterr()
    assert main([run, "--nearest", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{run}  demo  main  plain  0.")
    assert main([str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit) as stopped:
        main([run, "--nearest", "0"])
    assert stopped.value.code == 2
