"""`core.rerank` against published results and a naive reference in float64."""

from __future__ import annotations

import itertools
from functools import partial

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from reidcore.api import Feature, Given, WiringError
from reidcore.builtin import settings
from reidcore.builtin.matchers import build_cosine, build_euclidean
from reidcore.builtin.neighbours import Neighbours
from reidcore.builtin.reranking import Rerank
from reidcore.cli.main import main
from reidcore.modules import Context
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged
from reidcore.support.sorting import smallest_in_blocks
from tests.oracles import oracle
from tests.rerank_cases import (
    CASES,
    Matrix,
    asymmetric,
    clustered,
    matcher_ranking,
    rerank,
    spread,
    vectors,
)


class Rows:
    """All of [N, N] as it is, gallery x queries included."""

    def __init__(self, full: Tensor):
        self.full = full

    def neighbours(self, kept: int) -> Neighbours:
        distance, index = smallest_in_blocks([self.full], kept)
        return Neighbours(index, distance, self.full.amax(1))

    def pairs(self, i: Tensor, j: Tensor) -> Tensor:
        return self.full[i, j]


def exactly(config: settings.Rerank, full: Tensor, queries: int, device="cpu") -> Tensor:
    full = full.to(device)
    return Rerank(config).rerank(full[:queries, queries:].clone(), Rows(full)).cpu()


def mean_of(rows: list[dict[int, float]]) -> dict[int, float]:
    members = set().union(*rows)
    return {t: sum(row.get(t, 0.0) for row in rows) / len(rows) for t in members}


def by_loops(
    full: Tensor, queries: int, k1: int = 20, k2: int = 6, weight: float = 0.3, square: bool = False
) -> Tensor:
    """Zhong et al. 2017 with loops and sets; row i of `full` is picture i's distances."""
    power = 2 if square else 1
    rows = [[value**power for value in row] for row in full.double().tolist()]
    rows = [[value / (max(row) or 1.0) for value in row] for row in rows]
    ranked = [sorted(range(len(row)), key=row.__getitem__) for row in rows]

    def mutual(i: int, k: int) -> set[int]:
        return {j for j in ranked[i][: k + 1] if i in ranked[j][: k + 1]}

    half = int(np.around(k1 / 2))
    encodings = []
    for i, row in enumerate(rows):
        close = mutual(i, k1)
        members = set(close)
        for candidate in close:
            theirs = mutual(candidate, half)
            if len(theirs & close) > 2 / 3 * len(theirs):
                members |= theirs
        weights = {t: np.exp(-row[t]) for t in members}
        total = sum(weights.values())
        encodings.append({t: value / total for t, value in weights.items()})
    averaged = encodings
    if k2 > 1:
        averaged = [mean_of([encodings[j] for j in order[:k2]]) for order in ranked]

    result = torch.empty(queries, len(rows) - queries, dtype=torch.float64)
    for q, g in itertools.product(range(queries), range(queries, len(rows))):
        one, other = averaged[q], averaged[g]
        shared = sum(min(one[t], other[t]) for t in one.keys() & other.keys())
        jaccard = 1 - shared / (2 - shared)
        result[q, g - queries] = (1 - weight) * jaccard + weight * rows[q][g]
    return result


every_case = pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)


def chosen(row: list[float], **more) -> settings.Rerank:
    """Settings from [k1, k2, lambda]."""
    k1, k2, weight = row
    return settings.Rerank(k1=int(k1), k2=int(k2), weight=weight, **more)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["asymmetric", "symmetric"])
def test_equals_qaconvs_program(name, device):
    """The variant qaconv equals the authors' routine in float64 and, with `half`, to the last bit
    their float16 work arrays, apart from what these leave outside [0, 1]. A column of their matrix
    holds a picture's distances, and gallery x queries need not be a transpose."""
    with oracle(f"qaconv/rerank_{name}_30_60") as vectors:
        full, queries = vectors.input("dist").T.contiguous(), int(vectors.input("query_num"))
        tolerance = vectors.sidecar["suggested_tolerance"]["vs float64 variant"]
        for number, row in enumerate(vectors.input("params").tolist()):
            config = chosen(row, variant="qaconv")
            result = exactly(config, full, queries, device)
            vectors.compare(f"s{number}_final_float64", result, atol=tolerance)
            half = exactly(attrs.evolve(config, half=True), full.float(), queries, device)
            within = partial(np.clip, a_min=0, a_max=1)
            vectors.compare(f"s{number}_final_authors", half, atol=1e-6, through=within)


@pytest.mark.oracle
def test_equals_the_squared_program(device):
    """With `square` the variant zhong equals the routine that squares its distances."""
    with oracle("qaconv/rerank_alternative_squared_30_60") as vectors:
        across = vectors.input("q_g")
        full = torch.cat(
            [
                torch.cat([vectors.input("q_q"), across], 1),
                torch.cat([across.T, vectors.input("g_g")], 1),
            ]
        )
        tolerance = vectors.sidecar["suggested_tolerance"]["float32"]
        for number, row in enumerate(vectors.input("params").tolist()):
            for dtype in (torch.float32, torch.float64):
                ranking = Matrix(full.to(dtype).to(device), len(across))
                result = Rerank(chosen(row, square=True))(ranking.distances(), ranking)
                assert result.dtype == dtype
                vectors.compare(f"s{number}_final", result.cpu(), atol=tolerance)


@pytest.mark.oracle
def test_asks_a_ranking_for_the_blocks_of_qaconvs_program(device):
    """From a ranking of QAConv's asymmetric distances follows the authors' whole matrix: a picture
    is the kernel in its own row, a query also in the gallery's."""
    with oracle("qaconv/pipeline_16_60") as vectors:
        full = vectors.input("full_dist")
        queries = len(vectors.input("query_ids"))
        full[:queries, :queries] = full[:queries, :queries].T.clone()
        full[queries:, queries:] = full[queries:, queries:].T.clone()
        tolerance = vectors.sidecar["suggested_tolerance"]["vs float64"]
        row = [
            vectors.number("rerank_authors", rf"\b{name}=([\d.]*\d)")
            for name in ("k1", "k2", "lambda")
        ]
        config = {"k1": int(row[0]), "k2": int(row[1]), "weight": row[2], "variant": "qaconv"}
        result = rerank(full.double(), queries, device=device, **config)
        vectors.compare("rerank_float64", result, atol=tolerance)
        half = rerank(full, queries, half=True, device=device, **config)
        vectors.compare("rerank_authors", half, atol=1e-6)
        for pattern in ("*_fea", "*_cams", "*_times", "gallery_ids", "*bn_*", "fc_*", "dist_pg"):
            vectors.later(pattern, "QAConv's matcher is its plugin's")
        for pattern in ("tlift_*", "rank1_map_*"):
            vectors.later(pattern, "TLift is the plugin's too")


SETTINGS = [
    {},
    {"k1": 1, "k2": 1},
    {"k1": 1, "k2": 2, "weight": 0.0},
    {"k1": 5, "k2": 1},
    {"k1": 6, "k2": 9, "square": True},
    {"k1": 7, "k2": 3, "weight": 0.9},
    {"k1": 13, "k2": 2, "square": True},
    {"k1": 59, "k2": 60},
    {"k1": 200, "k2": 100},
]


@every_case
@pytest.mark.parametrize("config", SETTINGS, ids=str)
def test_equals_loops(make, config):
    """Ties, duplicates, asymmetry, distances that are all equal or 0, odd and even k1 (5 and 13
    halve to an even number by rounding), and lists as long as the ranking."""
    full = make()
    result = rerank(full, 20, **config)
    torch.testing.assert_close(result, by_loops(full, 20, **config), rtol=0, atol=1e-13)
    assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize(("queries", "gallery"), [(1, 1), (1, 2), (2, 1), (3, 4), (5, 1)])
def test_lists_end_with_the_pictures(queries, gallery, device):
    """Fewer pictures than k1 and k2 ask for, one gallery picture included."""
    for make in CASES[:3]:
        full = make(10)[: queries + gallery, : queries + gallery]
        result = rerank(full, queries, device=device)
        torch.testing.assert_close(result, by_loops(full, queries), rtol=0, atol=1e-13)


@every_case
def test_blocks_do_not_matter(make):
    """One row at a time, an odd number of rows, or all at once, and where distances are symmetric
    each pair once."""
    whole = rerank(make(), 20, k1=7, k2=3)
    for entries in (1, 7 * 60, 1000):
        for symmetric in (False, True)[: 1 + (make != asymmetric)]:
            found = rerank(make(), 20, entries, symmetric, k1=7, k2=3)
            # Mirrored halves of a rounded matrix are not the same to the last bit.
            torch.testing.assert_close(found, whole, rtol=0, atol=1e-13 if symmetric else 0)


@pytest.mark.parametrize("make", [spread, clustered])
def test_orders_do_not_matter(make):
    """With queries or gallery in another order, distances are the same in that order."""
    full, queries = make(), 20
    whole = rerank(full, queries, k1=7, k2=3)
    draw = torch.Generator().manual_seed(0)
    rows, columns = (torch.randperm(count, generator=draw) for count in (20, 40))
    order = torch.cat([rows, columns + queries])
    mixed = rerank(full[order][:, order], queries, k1=7, k2=3)
    torch.testing.assert_close(mixed, whole[rows][:, columns], rtol=0, atol=1e-13)


def test_nearest_equals_a_stable_sort(device):
    """Of equal values those of the first columns come first, over any number of blocks."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(100):
        rows, columns, kinds = (int(torch.randint(1, 12, (), generator=draw)) for _ in range(3))
        values = torch.randint(kinds, (rows, 2 * columns), generator=draw).float().to(device)
        count = int(torch.randint(1, 2 * columns + 1, (), generator=draw))
        cut = int(torch.randint(2 * columns + 1, (), generator=draw))
        found, index = smallest_in_blocks([values[:, :cut], values[:, cut:]], count)
        expected = values.sort(dim=1, stable=True)
        assert torch.equal(index, expected.indices[:, :count])
        assert torch.equal(found, expected.values[:, :count])


def test_asks_the_matcher_for_every_row_once():
    """Distances within the sides are asked for once, in small blocks too, and those of queries x
    gallery, which it is given, not at all."""
    ranking = Matrix(clustered(), 20)
    given = ranking.distances()
    ranking.asked.clear()
    result = Rerank(settings.Rerank(), 500)(given, ranking)
    assert sorted(ranking.asked) == [
        (side, side, row)
        for side, count in (("gallery", 40), ("query", 20))
        for row in range(count)
    ]
    assert result.data_ptr() == given.data_ptr()


def test_half_is_close_to_exact():
    """Rounding to float16 changes results by no more than its published program does, 0.004."""
    exact = rerank(clustered(), 20)
    half = rerank(clustered().float(), 20, half=True)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), exact, rtol=0, atol=4e-3)
    assert not torch.allclose(half.double(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("matcher", "square"),
    [
        (settings.Euclidean(features=["x.x"]), True),
        (settings.Euclidean(features=["x.x"], squared=True), False),
        (settings.Cosine(features=["x.x"]), False),
    ],
    ids=["euclidean", "squared", "cosine"],
)
def test_ranks_what_the_cores_matchers_measure(matcher, square):
    """In float32 through a matcher: squared Euclidean distances by either way, and (1 - cos) / 2
    as it is."""
    given = Given((1, 1), features={"x.x": Feature.vector(6)})
    cosine = isinstance(matcher, settings.Cosine)
    built = (build_cosine if cosine else build_euclidean)(matcher, Context(given, "look"))
    x, queries = vectors(80, 4, 9), 25
    ranking = matcher_ranking(built, matcher.describe(given), x, queries)
    distances = ranking.between("query", "gallery", 0, queries)
    result = Rerank(settings.Rerank(k1=9, k2=3, square=square))(distances, ranking)
    x = x.float().double()
    unit = x / x.norm(dim=1, keepdim=True)
    full = (1 - unit @ unit.T) / 2 if cosine else torch.cdist(x, x).square()
    assert result.dtype == torch.float32
    expected = by_loops(full.clamp(min=0), queries, 9, 3)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5)


def test_wiring(tmp_path, monkeypatch, capsys):
    """It comes first, its result lies in [0, 1] whatever the matcher's do, and the variant qaconv
    does not square."""
    assert settings.Rerank().check(Given((1, 1), unit=False)) is True
    with pytest.raises(WiringError, match="square is for variant = 'zhong'"):
        settings.Rerank(variant="qaconv", square=True).check(Given((1, 1)))
    monkeypatch.chdir(tmp_path)
    demo = find_packaged("demo", Plugins([])).text
    post = '[[post]]\nuse = "core.rerank"\n'
    (tmp_path / "once.toml").write_text(demo + post, encoding="utf-8")
    (tmp_path / "twice.toml").write_text(demo + post + post, encoding="utf-8")
    assert main(["check", "--no-dry", "once.toml"]) == 0
    capsys.readouterr()
    assert main(["check", "--no-dry", "twice.toml"]) == 2
    assert (
        "postprocessor 'post1' (core.rerank): asks the matcher for further distances, so it must "
        "be the first postprocessor of its ranking; move it before the others."
    ) in capsys.readouterr().err
