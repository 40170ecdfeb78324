"""Rankings as modules of tensors alone: what a search gives for the same pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from running import TINY

import reidcore
from reidcore.errors import UsageError
from reidcore.ranking import scales
from reidcore.ranking.as_modules import ranking_modules
from reidcore.ranking.scales import _places
from reidcore.runfiles.tables import RankingTable
from reidcore.tools import train

RANKINGS = """
[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.pooled"]

[[ranking]]
name = "look"
matcher = "look"

[[ranking]]
name = "both"
fuse = { look = 1.0, far = 0.5 }
scale = "isotonic"
shortlist = { by = "far", top = 3 }

[[ranking]]
name = "stretched"
fuse = { look = 1.0, far = 2.0 }
scale = "row_minmax"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    text = TINY.replace("epochs = 6", "epochs = 1").replace(
        "every = 1", 'views = ["plain", "zoom_flip"]'
    )
    (folder / "tiny.toml").write_text(text + RANKINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        train(folder / "tiny.toml", folder / "run")
        yield reidcore.load(folder / "run", device="cpu")


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (32, 16, 3), dtype=np.uint8) for _ in range(9)]


def templates_of(run, pictures, table):
    module = ranking_modules(run.model, table)[0].eval()
    zeros = torch.zeros(len(pictures), dtype=torch.int64)
    with torch.no_grad():
        return module(torch.from_numpy(np.stack(pictures)), zeros, zeros - 1)


@pytest.mark.parametrize("name", ["look", "both", "stretched"])
def test_templates_and_distances_are_those_of_a_search(run, pictures, name, monkeypatch):
    (table,) = (one for one in run.plan.rankings if one.name == name)
    found = templates_of(run, pictures, table)
    assert set(found) == {f"{matcher}.vector" for matcher in table.matchers}
    reference = run.templates(pictures)
    for key, value in found.items():
        torch.testing.assert_close(value, reference.parts[key.split(".")[0]]["vector"])
    a, b = ({key: value[part] for key, value in found.items()} for part in (slice(4), slice(4, 9)))
    expected = run.distances(pictures[:4], pictures[4:], name)
    _, distances, coarse = ranking_modules(run.model, table)
    assert distances.whole_gallery == (name == "stretched")
    assert (coarse is not None) == (name == "both")
    for exporting in (False, True):
        monkeypatch.setattr(scales, "is_exporting", lambda now=exporting: now)
        own = distances(a, b)
        assert own.dtype == torch.float32
        if coarse is None:
            torch.testing.assert_close(own, expected)
            continue
        for row, near in enumerate(coarse(a, b).argsort(1)[:, :3]):
            torch.testing.assert_close(own[row, near], expected[row, near])
            assert (
                expected[row].topk(3, largest=False).indices.sort().values.equal(near.sort().values)
            )


def test_another_run_s_ranking_is_refused(run):
    with pytest.raises(UsageError, match="ranking 'other' is none of the model's plan"):
        ranking_modules(run.model, RankingTable(name="other", matcher="look"))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 100, 1025])
def test_places_in_graphs_are_those_of_searchsorted(count):
    draw = torch.Generator().manual_seed(count)
    at = torch.rand(count, generator=draw, dtype=torch.float64).unique()
    between = torch.rand(50, 4, generator=draw, dtype=torch.float64) * 1.4 - 0.2
    for z in (between, at, at[:1] - 1, at[-1:] + 1):
        assert torch.equal(_places(at, z), torch.searchsorted(at, z))
