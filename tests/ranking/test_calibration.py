"""Scales of distances, fitted on training pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reidcore.api import Row
from reidcore.data.pictures import make_rows
from reidcore.errors import DataError
from reidcore.model.training_pairs import KEPT, Pairs, choose_pictures, sort_pairs
from reidcore.modules import Rows
from reidcore.ranking.scales import STEADY, fit, row_minmax


def normal(size: int, mean: float, deviation: float, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(size, generator=draw) * deviation + mean).abs().sort().values


OVERLAPPING = Pairs(normal(60, 1.0, 0.4, 0), normal(500, 2.0, 0.5, 1))
SEPARABLE = Pairs(torch.linspace(0.1, 0.2, 30), torch.linspace(0.5, 0.9, 200))
TIED = Pairs(torch.tensor([0.0, 0.0, 0.5, 0.5]), torch.tensor([0.0, 0.5, 0.5, 1.0]))
ONE_VALUE = Pairs(torch.full((3,), 0.4), torch.full((5,), 0.4))


@pytest.mark.parametrize("kind", ["constant", "logistic", "isotonic"])
@pytest.mark.parametrize("pairs", [OVERLAPPING, SEPARABLE, TIED], ids=["over", "apart", "tied"])
def test_scales_keep_the_order(kind: str, pairs: Pairs):
    """A larger distance stays larger, also beyond what was seen in training."""
    scale = fit(kind, pairs)
    far = 1.5 * pairs.different.max()
    scaled = scale(torch.linspace(0, float(far), 200))
    assert (scaled.diff() > 0).all() and scaled.isfinite().all()
    assert scaled.dtype == torch.float32
    assert scale(torch.rand(3, 5)).shape == (3, 5)


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
def test_close_distances_of_a_bad_matcher_stay_apart(kind: str):
    """Where nothing tells matches from strangers and distances hardly differ, as before training,
    rounding does not tie them."""
    draw = torch.Generator().manual_seed(0)
    found = 0.5 + 1e-4 * torch.rand(3000, generator=draw)
    scaled = fit(kind, Pairs(found[:300].sort().values, found[300:].sort().values))(found)
    order = found.argsort(stable=True)
    assert (scaled[order].diff() >= 0).all()
    assert scaled.unique().numel() > 0.99 * found.unique().numel()


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
@pytest.mark.parametrize("pairs", [OVERLAPPING, SEPARABLE, TIED, ONE_VALUE])
def test_probabilities_lie_in_the_unit_interval(kind: str, pairs: Pairs):
    scaled = fit(kind, pairs)(torch.tensor([0.0, 1e-6, 0.4, 3.0, 1e4, 1e30]))
    assert (scaled >= 0).all() and (scaled <= 1).all()


def test_the_constant_is_the_mean_of_strangers():
    mean = OVERLAPPING.different.double().mean()
    torch.testing.assert_close(fit("constant", OVERLAPPING)(mean.float()[None])[0], torch.ones(()))


def steady(pairs: Pairs, at: torch.Tensor) -> torch.Tensor:
    """What is mixed into a probability at these distances."""
    kinds = pairs.same.double(), pairs.different.double()
    centre = (kinds[0].mean() + kinds[1].mean()) / 2
    spread = (sum((kind - centre).square().mean() for kind in kinds) / 2).sqrt()
    z = (at.double() - centre) / spread
    return STEADY * (1 + z / (1 + z.abs())) / 2


def balanced_cost(pairs: Pairs, a: float, b: float) -> float:
    """Cross-entropy with Platt's targets, pair by pair, both kinds weighing the same."""
    total = 0.0
    for part, share in (
        (pairs.same, 1 / (len(pairs.same) + 2)),
        (pairs.different, (len(pairs.different) + 1) / (len(pairs.different) + 2)),
    ):
        for distance in part.double().tolist():
            p = 1 / (1 + math.exp(-(a * distance + b)))
            total -= (share * math.log(p) + (1 - share) * math.log(1 - p)) / (2 * len(part))
    return total


@pytest.mark.parametrize("pairs", [OVERLAPPING, SEPARABLE, TIED])
def test_the_logistic_scale_minimises_the_cross_entropy(pairs: Pairs):
    """No nearby sigmoid is better, by a naive sum over all pairs."""
    at = torch.tensor([pairs.same.mean(), pairs.different.mean()])
    sigmoid = (fit("logistic", pairs)(at).double() - steady(pairs, at)) / (1 - STEADY)
    low, high = sigmoid.logit().tolist()
    first, second = at.double().tolist()
    a = (high - low) / (second - first)
    b = low - a * first
    best = balanced_cost(pairs, a, b)
    for da, db in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02), (0.02, -0.02), (-0.02, 0.02)):
        assert balanced_cost(pairs, a * (1 + da), b + db * abs(b)) > best


def naive_isotonic(x: list[float], y: list[float], w: list[float]) -> list[float]:
    """max over j <= i of min over k >= i of the weighted mean of j..k."""

    def mean(j: int, k: int) -> float:
        weight = sum(w[j : k + 1])
        return sum(a * b for a, b in zip(y[j : k + 1], w[j : k + 1], strict=True)) / weight

    n = len(x)
    return [max(min(mean(j, k) for k in range(i, n)) for j in range(i + 1)) for i in range(n)]


def test_the_isotonic_scale_is_the_best_increasing_fit():
    """At the mean distance of every pool it is the min-max formula's value."""
    same, different = normal(12, 1.0, 0.5, 3), normal(25, 1.6, 0.5, 4)
    pairs = Pairs(same, different)
    items = sorted(
        [(d, 0.0, 0.5 / 12) for d in same.tolist()]
        + [(d, 1.0, 0.5 / 25) for d in different.tolist()]
    )
    x, y, w = (list(column) for column in zip(*items, strict=True))
    fitted = naive_isotonic(x, y, w)
    scale = fit("isotonic", pairs)
    pools = np.unique(np.round(fitted, 12))
    assert len(pools) > 3
    for pool in pools:
        inside = [i for i, value in enumerate(fitted) if abs(value - pool) < 1e-9]
        weight = sum(w[i] for i in inside)
        centre = sum(x[i] * w[i] for i in inside) / weight
        at = torch.tensor([centre])
        expected = (1 - STEADY) * pool + float(steady(pairs, at)[0])
        assert float(scale(at)[0]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "pairs", "lack"),
    [
        ("constant", Pairs(torch.rand(3), torch.zeros(0)), "different identities"),
        ("logistic", Pairs(torch.zeros(0), torch.rand(3)), "one identity"),
        ("isotonic", Pairs(torch.zeros(0), torch.rand(3)), "one identity"),
    ],
)
def test_what_cannot_be_fitted_is_said(kind: str, pairs: Pairs, lack: str):
    with pytest.raises(DataError, match=f"scale '{kind}'.*no pair of {lack}"):
        fit(kind, pairs)


def test_rows_are_stretched_each_by_itself():
    distances = torch.tensor([[2.0, 4.0, 3.0], [5.0, 5.0, 5.0]])
    assert row_minmax(distances).tolist() == [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]


def rows_of(*items: tuple[str, str]) -> Rows:
    """Rows from (pid, camera)."""
    rows = [Row(f"{number}", pid, camera) for number, (pid, camera) in enumerate(items)]
    return make_rows(rows, {"": -1, "1": 1, "2": 2}, ("visible",))


def test_pairs_are_sorted_by_identity_and_camera():
    """Matching pairs of one camera are left out where other ones exist; no picture is its own
    pair."""
    distances = torch.arange(16.0).view(4, 4)
    found = sort_pairs(distances, rows_of(("a", "1"), ("a", "1"), ("a", "2"), ("b", "1")))
    assert found.same.tolist() == [2, 6, 8, 9]
    assert found.different.tolist() == [3, 7, 11, 12, 13, 14]
    found = sort_pairs(distances, rows_of(("a", "1"), ("a", "1"), ("b", "1"), ("b", "1")))
    assert found.same.tolist() == [1, 4, 11, 14]
    found = sort_pairs(distances, rows_of(("a", ""), ("a", ""), ("b", ""), ("b", "")))
    assert found.same.tolist() == [1, 4, 11, 14]


def test_many_pairs_are_thinned_evenly():
    """What is kept has the ends and the median of all."""
    rows = rows_of(*[(str(pid), "1") for pid in range(100)])
    draw = torch.Generator().manual_seed(0)
    distances = torch.rand(100, 100, generator=draw)
    found = sort_pairs(distances, rows).different
    every = distances[~torch.eye(100, dtype=torch.bool)]
    assert len(found) == KEPT < len(every)
    assert found[0] == every.min() and found[-1] == every.max()
    assert float(found.median()) == pytest.approx(float(every.median()), abs=1e-3)


def test_chosen_pictures_cross_cameras():
    """At most 64 identities with 4 pictures, from different cameras first; the same every time."""
    items = [(f"p{pid}", str(1 + picture % 2)) for pid in range(80) for picture in range(6)]
    items += [(f"lonely{pid}", "1") for pid in range(50)]
    rows = rows_of(*items)
    chosen = choose_pictures(rows, torch.Generator().manual_seed(0))
    again = choose_pictures(rows, torch.Generator().manual_seed(0))
    assert (chosen == again).all() and len(set(chosen.tolist())) == len(chosen) == 64 * 4
    for pid in np.unique(rows.pid[chosen]):
        cameras = rows.camera[chosen][rows.pid[chosen] == pid]
        assert sorted(cameras) == [1, 1, 2, 2]
