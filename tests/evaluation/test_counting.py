"""Scores by counting equal those of the sorted list, whatever the tiles and the ties."""

from __future__ import annotations

import attrs
import pytest
import torch

from reidcore.errors import ReidError
from reidcore.evaluation.fast_metrics import TILE, count_queries
from reidcore.evaluation.metrics import PRECISIONS, TIES, PerQuery, rank_queries
from reidcore.evaluation.relevance import Judgements, Relevance
from tests.distance_problems import problem

TILES = [(1, 1), (7, 3), (64, 13), TILE]


def same(found: PerQuery, expected: PerQuery) -> None:
    assert torch.equal(found.first, expected.first)
    assert torch.equal(found.matches, expected.matches)
    torch.testing.assert_close(found.ap, expected.ap, rtol=1e-14, atol=0)
    torch.testing.assert_close(found.inp, expected.inp, rtol=1e-14, atol=0)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_equals_the_sorted_list(ties, precision, decimals):
    """First rank, AP, INP and matches, where distances differ, often tie, or are all 0 or 1, for
    tiles of one pair, odd ones and the whole."""
    for seed in range(4):
        distances, match, ignored = problem(seed, decimals=decimals)
        judged = Judgements.of_masks(match, ignored)
        expected = rank_queries(distances, match, ignored, ties, precision)
        before = distances.clone()
        for tile in TILES:
            same(count_queries(distances, judged, ties, precision, tile), expected)
        assert torch.equal(distances, before)


@pytest.mark.parametrize("ties", TIES)
def test_infinite_distances_rank_last(ties):
    """Matches and strangers at infinity tie with each other and not with what is left out."""
    distances, match, ignored = problem(5)
    distances[:, ::3] = torch.inf
    distances[3] = torch.inf
    judged = Judgements.of_masks(match, ignored)
    for precision in PRECISIONS:
        expected = rank_queries(distances, match, ignored, ties, precision)
        for tile in TILES:
            same(count_queries(distances, judged, ties, precision, tile), expected)


def known(count: int, seed: int, places: int = 3) -> tuple[torch.Tensor, ...]:
    """(identity, file, place) with unknown places and few files, so that all of them meet."""
    draw = torch.Generator().manual_seed(seed)
    identity, file = (torch.randint(0, n, (count,), generator=draw) for n in (6, 40))
    return identity, file, torch.randint(-1, places, (count,), generator=draw)


@pytest.mark.parametrize("rule", ["drop", "drop_all", "keep"])
def test_pairs_are_judged_as_the_rules_say(rule):
    """Matches are equal identities; own files are ignored, and by the rule matches of the place, or
    all of the place, or neither; unknown places are nobody's. Parts of the queries agree."""
    query, gallery = known(11, 0), known(50, 1)
    relevance = Relevance(query, gallery, rule)
    match, ignored = relevance.rows(0, 11).masks()
    for q in range(11):
        for g in range(50):
            same_place = query[2][q] == gallery[2][g] != -1
            matches = query[0][q] == gallery[0][g]
            dropped = {"drop": same_place and matches, "drop_all": same_place, "keep": False}[rule]
            assert match[q, g] == matches
            assert ignored[q, g] == bool(dropped or query[1][q] == gallery[1][g])
    for start, stop in ((0, 11), (3, 4), (5, 5), (2, 9)):
        for part in (relevance.rows(start, stop), relevance.rows(0, 11).rows(start, stop)):
            found = part.masks()
            assert torch.equal(found[0], match[start:stop])
            assert torch.equal(found[1], ignored[start:stop])
            dropped = ignored[start:stop][part.row, part.column]
            assert torch.equal(part.match & part.ignored, part.match & dropped)


@pytest.mark.parametrize("rule", ["drop", "drop_all", "keep"])
def test_places_count_as_in_masks(rule):
    """A rule by places gives the scores of its masks, in float32 and float64."""
    query, gallery = known(11, 2), known(50, 3)
    judged = Relevance(query, gallery, rule).rows(0, 11)
    draw = torch.Generator().manual_seed(4)
    for dtype in (torch.float32, torch.float64):
        distances = torch.rand(11, 50, generator=draw, dtype=dtype).mul(20).round()
        expected = rank_queries(distances, *judged.masks())
        assert expected.matches.any()
        for tile in TILES:
            same(count_queries(distances, judged, tile=tile), expected)


def test_any_order_of_the_gallery():
    """Where distances differ, scores do not depend on the gallery's order."""
    distances, match, ignored = problem(6)
    expected = count_queries(distances, Judgements.of_masks(match, ignored))
    order = torch.randperm(distances.shape[1], generator=torch.Generator().manual_seed(0))
    mixed = Judgements.of_masks(match[:, order], ignored[:, order])
    same(count_queries(distances[:, order], mixed), expected)


@pytest.mark.parametrize("place", [(0, 7), (4, 39), (8, 0)])
def test_nan_is_refused_by_place(place):
    """Wherever it is, at a match or a stranger, whatever the tile."""
    distances, match, ignored = problem(7)
    distances[place] = torch.nan
    says = f"query {place[0]} and gallery picture {place[1]};"
    for marked in (match, ~match):
        for tile in TILES:
            with pytest.raises(ReidError, match=says):
                count_queries(distances, Judgements.of_masks(marked, ignored & False), tile=tile)


def test_empty_sides():
    """No query, no gallery, or nothing that matches."""
    for queries, gallery in ((0, 5), (3, 0), (3, 5)):
        nothing = torch.zeros(queries, gallery, dtype=torch.bool)
        found = count_queries(torch.rand(queries, gallery), Judgements.of_masks(nothing, nothing))
        for field in attrs.fields(PerQuery):
            assert getattr(found, field.name).tolist() == [0] * queries


def test_wrong_shapes_and_modes_are_refused():
    distances, match, ignored = problem(8)
    judged = Judgements.of_masks(match, ignored)
    with pytest.raises(ValueError, match=r"distances \[9, 39\] for \[9, 40\] judged pairs"):
        count_queries(distances[:, :39], judged)
    with pytest.raises(ValueError, match="ties is 'gallery'"):
        count_queries(distances, judged, ties="none")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ties", TIES)
def test_a_gpu_gives_the_same_scores(ties):
    distances, match, ignored = problem(0, decimals=1)
    judged = Judgements.of_masks(match, ignored)
    found = count_queries(distances.cuda(), judged.to("cuda"), ties)
    expected = count_queries(distances, judged, ties)
    for field in attrs.fields(PerQuery):
        assert torch.equal(getattr(found, field.name).cpu(), getattr(expected, field.name))
