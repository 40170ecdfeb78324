"""Ranking on a device: the integers of the CPU, its distances up to rounding, and blocks that
become smaller where memory ends. A GPU's sums and exponentials may round otherwise than a CPU's."""

from __future__ import annotations

import attrs
import pytest
import torch

from reidcore.api import Feature, Given, Matching, TensorSpec
from reidcore.builtin import settings
from reidcore.builtin.matchers import build_euclidean
from reidcore.builtin.query_expansion import Expand
from reidcore.builtin.reranking import Rerank
from reidcore.evaluation.fast_metrics import count_queries
from reidcore.evaluation.metrics import PRECISIONS, TIES, PerQuery, rank_queries
from reidcore.evaluation.relevance import Judgements
from reidcore.evaluation.verification import TrueAccepts
from reidcore.model.training_pairs import Pairs
from reidcore.modules import Context, Matcher
from reidcore.ranking.distances import compute_distances
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.resources import Resources
from reidcore.ranking.scales import fit, row_minmax
from reidcore.ranking.sides import Sides
from reidcore.support.device_memory import in_parts
from reidcore.support.sorting import smallest
from tests.distance_problems import problem
from tests.fused_rankings import meta
from tests.rerank_cases import CASES, Matrix, clustered, rerank
from tests.stand_in_gpu import StandIn


def same(found: PerQuery, expected: PerQuery) -> None:
    assert torch.equal(found.first.cpu(), expected.first)
    assert torch.equal(found.matches.cpu(), expected.matches)
    torch.testing.assert_close(found.ap.cpu(), expected.ap, rtol=1e-14, atol=0)
    torch.testing.assert_close(found.inp.cpu(), expected.inp, rtol=1e-14, atol=0)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_scores(device, ties, precision):
    """By counting and by sorting, where distances differ, often tie, are all 0 or 1, or infinite;
    the device's tile and one of a few pairs."""
    for seed, decimals in enumerate((None, 1, 0)):
        distances, match, ignored = problem(seed, decimals=decimals)
        distances[:, ::7] = torch.inf
        expected = rank_queries(distances, match, ignored, ties, precision)
        judged = Judgements.of_masks(match, ignored)
        there = distances.to(device)
        for tile in (None, (7, 3)):
            same(count_queries(there, judged.to(device), ties, precision, tile), expected)
        masks = match.to(device), ignored.to(device)
        same(rank_queries(there, *masks, ties, precision), expected)


def test_identities_and_verification(device):
    distances, match, ignored = problem(3, decimals=1)
    identity = torch.arange(distances.shape[1]) // 3
    expected = rank_queries(distances, match, ignored, identity=identity)
    there = [one.to(device) for one in (distances, match, ignored)]
    same(rank_queries(*there, identity=identity.to(device)), expected)
    judged = Judgements.of_masks(match, ignored)
    found = []
    for one in (distances, there[0]):
        accepts = TrueAccepts([0.01, 0.2], distances.numel())
        accepts.add(one, judged.to(one.device))
        found.append((accepts.shares(), accepts.thresholds()))
    assert found[0] == found[1]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_nothing_to_rank(device, shape):
    nothing = torch.zeros(shape, dtype=torch.bool, device=device)
    distances = torch.zeros(shape, device=device)
    found = count_queries(distances, Judgements.of_masks(nothing, nothing))
    assert found.first.tolist() == [0] * shape[0]
    assert Rerank(settings.Rerank()).rerank(distances, None) is distances  # asks for nothing


def test_the_nearest_of_equal_pictures_are_the_first(device):
    """Wherever the list is cut."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(4, (50, 40), generator=draw).float()
    values[::5, ::3] = torch.inf
    expected = values.sort(dim=1, stable=True)
    for size in (1, 7, 39, 40):
        index, value = smallest(values.to(device), size)
        assert torch.equal(value, expected.values[:, :size])
        assert torch.equal(index[value.isfinite()], expected.indices[:, :size][value.isfinite()])
        assert (index[value.isinf()] == -1).all()


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("half", [False, True])
def test_reranking(device, make, half):
    full = make().float()
    for config in ({"k1": 7, "k2": 3}, {"k1": 20, "k2": 1}):
        expected = rerank(full, 20, half=half, **config)
        found = rerank(full, 20, half=half, device=device, **config)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 if half else 1e-6)


def euclidean_ranking(device: str, x: torch.Tensor, queries: int, memory: float) -> MatcherRanking:
    given = Given((1, 1), features={"x.x": Feature.vector(x.shape[1])})
    config = settings.Euclidean(features=["x.x"], squared=True)
    share = Share("look", build_euclidean(config, Context(given, "look")), config.describe(given))
    sides = {"query": x[:queries].to(device), "gallery": x[queries:].to(device)}
    templates = {side: {"look": {"vector": rows}} for side, rows in sides.items()}
    known = (meta(size).to(device) for size in (queries, len(x) - queries))
    return MatcherRanking(Fusion([share]), Sides(*known, templates), Resources(memory))


def test_a_whole_chain(device):
    """Distances by tiles, expanded queries, re-ranking and calibrated scales of many vectors."""
    draw = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(400, 16, generator=draw))
    pairs = Pairs(*(scale * torch.rand(99, generator=draw).sort().values for scale in (1, 2)))
    results = []
    for place in ("cpu", device):
        ranking = euclidean_ranking(place, x, 60, 1e-5)
        distances = ranking.whole()
        made = [distances, Expand(settings.Expand(top=4))(distances.clone(), ranking)]
        made.append(Rerank(settings.Rerank())(distances.clone(), ranking))
        made += [fit(kind, pairs)(distances) for kind in ("constant", "logistic", "isotonic")]
        results.append([*made, row_minmax(distances)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)


def test_metrics_use_less_where_memory_ends():
    """Down to one row, and no further."""
    draw = torch.Generator().manual_seed(0)
    distances = torch.randint(50, (60, 200), generator=draw).float()
    match, ignored = torch.rand(2, 60, 200, generator=draw) < 0.02
    judged = Judgements.of_masks(match, ignored)
    expected = count_queries(distances, judged)
    with StandIn() as gpu:
        there, of_it = distances.to("cuda"), judged.to("cuda")
        wide = distances.repeat(1, 20).to("cuda")
        gpu.room = 12_000
        same(count_queries(there, of_it), expected)
        assert gpu.refused
        with pytest.raises(torch.OutOfMemoryError):
            count_queries(wide, attrs.evolve(of_it, shape=tuple(wide.shape)))


@pytest.mark.parametrize("room", [30_000, 100_000])
def test_reranking_uses_less_where_memory_ends(room):
    """In blocks of rows, of listed neighbours and of results, each tried again with fewer."""
    full = clustered(240).float()
    expected = rerank(full, 80, k1=7, k2=3)
    with StandIn() as gpu:
        ranking = Matrix(full.to("cuda"), 80)
        distances = ranking.distances()
        gpu.room = room
        found = Rerank(settings.Rerank(k1=7, k2=3))(distances, ranking)
        gpu.room = None
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0)
        assert gpu.refused


class Wasteful(Matcher):
    """Squared distances that take memory for every number of a pair."""

    def template(self, features):
        return dict(features)

    def distance(self, a, b):
        return (a["x"][:, None] - b["x"]).square().sum(2)


class Shared(Matrix):
    """One of two processes."""

    def everyone(self, value):
        return [value, value]


def test_several_processes_do_not_begin_again():
    """One alone would look at blocks that are another's."""
    with StandIn() as gpu:
        ranking = Shared(clustered(240).float().to("cuda"), 80)
        distances = ranking.distances()
        gpu.room = 15_000
        with pytest.raises(torch.OutOfMemoryError):
            Rerank(settings.Rerank(k1=7, k2=3))(distances, ranking)
        assert gpu.refused == 1


def test_distances_use_less_where_memory_ends():
    """The whole first, then tiles that are halved until they fit beside the result."""
    x, y = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).split([20, 30])
    matching = Matching({"x": TensorSpec((8,))}, pair_bytes=4)
    expected = compute_distances(Wasteful(), matching, {"x": x}, {"x": y})
    with StandIn() as gpu:
        sides = [{"x": one.to("cuda")} for one in (x, y)]
        gpu.room = 4 * 20 * 30
        found = compute_distances(Wasteful(), matching, *sides)
        assert gpu.refused > 3
        assert torch.equal(found.cpu(), expected)
        gpu.room = 7
        with pytest.raises(torch.OutOfMemoryError):
            compute_distances(Wasteful(), matching, *sides)


def test_parts_come_in_order_and_once():
    """Halves of halves, and the error itself where one row is too much."""
    tried = []

    def work(rows: slice) -> list[int]:
        tried.append((rows.start, rows.stop))
        if rows.stop - rows.start > 3:
            raise torch.OutOfMemoryError
        return list(range(rows.start, rows.stop))

    found = in_parts(work, slice(2, 13))
    assert [row for part in found for row in part] == list(range(2, 13))
    assert tried[:3] == [(2, 13), (2, 7), (2, 4)]

    def never(rows: slice) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        in_parts(never, slice(0, 2))
