"""Ranking metrics against loops over sorted lists, and their invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reidcore.errors import DataError, ReidError
from reidcore.evaluation import metrics
from reidcore.evaluation.metrics import (
    PRECISIONS,
    TIES,
    PerQuery,
    draw_shots,
    rank_queries,
    summarize,
)
from tests.distance_problems import problem


def kept_list(distances, match, ignored, ties="gallery") -> list[tuple[float, int]]:
    """(distance, position) of one query's list, as it is ranked."""
    before = {"optimistic": lambda p: not match[p], "pessimistic": lambda p: match[p]}
    order = before.get(ties, lambda p: 0)
    kept = [(d, p) for p, d in enumerate(distances) if not ignored[p]]
    return sorted(kept, key=lambda entry: (entry[0], order(entry[1]), entry[1]))


def by_loop(
    distances, match, ignored, ties="gallery", precision="step", identity=None
) -> tuple[int, float, float, int]:
    """(first, ap, inp, matches) of one query; lists of numbers. Average precision walks along the
    points of the curve, one for each place, or with grouped ties one for each distance."""
    kept = kept_list(distances, match, ignored, ties)
    hits = [match[position] for _, position in kept]
    ranks = [rank for rank, hit in enumerate(hits, 1) if hit]
    if not ranks:
        return 0, 0.0, 0.0, 0
    ends = range(1, len(kept) + 1)
    if ties == "grouped":
        ends = [sum(d <= value for d, _ in kept) for value in sorted({d for d, _ in kept})]
    area, before, seen = 0.0, 1.0, 0
    for end in ends:
        found = sum(hits[:end])
        here = found / end
        height = here if precision == "step" else (before + here) / 2
        area += (found - seen) / len(ranks) * height
        before, seen = here, found
    first = ranks[0]
    if identity is not None:
        first = len({identity[position] for _, position in kept[:first]})
    return first, area, len(ranks) / ranks[-1], len(ranks)


def with_identities(seed: int, decimals: int | None = None):
    """As `problem`, where matches follow from identities, whose numbers have gaps; the gallery's
    are the last of the four. One of them has a single picture."""
    distances, _, ignored = problem(seed, decimals=decimals)
    draw = torch.Generator().manual_seed(seed + 99)
    identity = torch.randint(0, 9, distances.shape[1:], generator=draw) * 7 + 3
    identity[5] = 500
    wanted = torch.tensor([3, 9999, 10, 17, 500, 24, 31, 38, 45])
    match = identity == wanted[:, None]
    ignored[2] |= match[2]
    return distances, match, ignored, identity


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("by_identity", [False, True], ids=["pictures", "identities"])
def test_scores_equal_a_loop_over_the_sorted_list(ties, precision, decimals, by_identity):
    """First rank, AP, INP and number of matches equal their definitions, ties included."""
    distances, match, ignored = problem(0, decimals=decimals)
    identity = None
    if by_identity:
        distances, match, ignored, identity = with_identities(0, decimals)
    each = rank_queries(distances, match, ignored, ties, precision, identity)
    for query in range(len(distances)):
        row = (distances[query].tolist(), match[query].tolist(), ignored[query].tolist())
        listed = identity.tolist() if identity is not None else None
        first, ap, inp, matches = by_loop(*row, ties, precision, listed)
        assert (each.first[query].item(), each.matches[query].item()) == (first, matches)
        assert each.ap[query].item() == pytest.approx(ap, rel=1e-12)
        assert each.inp[query].item() == pytest.approx(inp, rel=1e-12)


def test_summary_equals_means_over_valid_queries():
    """mAP, mINP and CMC are means over the queries that have a match; the others are counted."""
    distances, match, ignored = problem(1)
    scores = summarize([rank_queries(distances, match, ignored)], max_rank=5)
    rows = [
        by_loop(d.tolist(), m.tolist(), i.tolist())
        for d, m, i in zip(distances, match, ignored, strict=True)
    ]
    found = [row for row in rows if row[3]]
    assert (scores.valid, scores.total) == (len(found), len(rows)) and len(found) < len(rows)
    assert scores.map == pytest.approx(sum(row[1] for row in found) / len(found), rel=1e-12)
    assert scores.minp == pytest.approx(sum(row[2] for row in found) / len(found), rel=1e-12)
    expected = [sum(row[0] <= k for row in found) / len(found) for k in range(1, 6)]
    assert scores.cmc.tolist() == pytest.approx(expected, rel=1e-12)
    assert scores.cmc.dtype == torch.float64


def test_all_queries_may_count():
    """Over all queries, those without a match are zeros in every mean."""
    distances, match, ignored = problem(1)
    each = rank_queries(distances, match, ignored)
    valid, every = summarize([each]), summarize([each], counted="all")
    share = valid.valid / valid.total
    assert 0 < share < 1 and (every.valid, every.total) == (valid.valid, valid.total)
    assert every.map == pytest.approx(each.ap.mean().item(), rel=1e-12)
    assert every.minp == pytest.approx(each.inp.mean().item(), rel=1e-12)
    torch.testing.assert_close(every.cmc, valid.cmc * share)


def test_a_known_list_by_trapezoids():
    """Matches at ranks 1, 3 and 6: the precision before the first is 1, before the others that of
    ranks 2 and 5."""
    match = torch.tensor([[True, False, True, False, False, True]])
    given = torch.arange(6.0)[None], match, torch.zeros_like(match)
    each = rank_queries(*given, precision="trapezoid")
    pieces = (1 + 1) / 2, (1 / 2 + 2 / 3) / 2, (2 / 5 + 3 / 6) / 2
    assert each.ap.item() == pytest.approx(sum(pieces) / 3)


def test_orders_of_ties_enclose_all_others():
    """Whatever order a gallery has, AP lies between the two that put matches last and first."""
    distances, match, ignored = problem(13, decimals=1)
    worst, best = (
        rank_queries(distances, match, ignored, ties).ap for ties in ("pessimistic", "optimistic")
    )
    assert (worst < best).any()
    for seed in range(5):
        order = torch.randperm(distances.shape[1], generator=torch.Generator().manual_seed(seed))
        ap = rank_queries(distances[:, order], match[:, order], ignored[:, order]).ap
        assert (worst - 1e-12 <= ap).all() and (ap <= best + 1e-12).all()


def test_identities_rank_no_worse_than_pictures():
    """A list of identities is at most as long; with one picture each, it is the same."""
    *given, identity = with_identities(14)
    pictures = rank_queries(*given).first
    alone = torch.arange(len(identity))
    assert torch.equal(rank_queries(*given, identity=alone).first, pictures)
    found = rank_queries(*given, identity=identity).first
    assert (found <= pictures).all() and (found < pictures).any()
    assert torch.equal(found == 0, pictures == 0)


def shots_by_loop(distances, match, ignored, identity, draw, repeats) -> list[int]:
    """Ranks of one query's match, in galleries that are drawn one by one."""
    kept = [position for _, position in kept_list(distances, match, ignored)]
    if not any(match[position] for position in kept):
        return [0] * repeats
    pictures: dict[int, list[int]] = {}
    for rank, position in enumerate(kept):
        pictures.setdefault(identity[position], []).append(rank)
    ranks = []
    for _ in range(repeats):
        drawn = sorted(draw.choice(found) for found in pictures.values())
        ranks.append(1 + [match[kept[place]] for place in drawn].index(True))
    return ranks


@pytest.mark.parametrize("decimals", [None, 1])
def test_drawn_galleries_equal_a_loop(decimals):
    """Ranks among one drawn picture of each identity equal those of a loop that draws by
    `RandomState.choice`; identities with one picture draw nothing."""
    *given, identity = with_identities(15, decimals)
    found = draw_shots(*given, identity, np.random.RandomState(6), repeats=4)
    draw = np.random.RandomState(6)
    rows = zip(*(tensor.tolist() for tensor in given), strict=True)
    expected = [shots_by_loop(*row, identity.tolist(), draw, 4) for row in rows]
    assert found.tolist() == expected
    assert expected[1] == expected[2] == [0] * 4 and len({tuple(row) for row in expected}) > 4


def test_a_known_list():
    """Matches at ranks 1, 3 and 6 give AP (1 + 2/3 + 3/6) / 3 and INP 3/6."""
    match = torch.tensor([[True, False, True, False, False, True]])
    each = rank_queries(torch.arange(6.0)[None], match, torch.zeros_like(match))
    assert each.ap.item() == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert (each.first.item(), each.inp.item()) == (1, 0.5)


def test_ties_follow_the_gallery_or_share_a_threshold():
    """With all distances equal, "gallery" ranks by position and "grouped" gives the share of
    matches, wherever they stand."""
    distances = torch.zeros(2, 4)
    match = torch.tensor([[True, False, False, False], [False, False, False, True]])
    none = torch.zeros_like(match)
    assert rank_queries(distances, match, none).ap.tolist() == [1, 0.25]
    assert rank_queries(distances, match, none, ties="grouped").ap.tolist() == [0.25, 0.25]


@pytest.mark.parametrize(("ties", "decimals"), [("gallery", None), ("grouped", 1)])
def test_order_of_the_gallery_does_not_matter(ties, decimals):
    """Another order of the gallery gives the same AP where distances differ or ties are grouped."""
    distances, match, ignored = problem(2, decimals=decimals)
    order = torch.randperm(distances.shape[1], generator=torch.Generator().manual_seed(0))
    one = rank_queries(distances, match, ignored, ties=ties)
    other = rank_queries(distances[:, order], match[:, order], ignored[:, order], ties=ties)
    torch.testing.assert_close(one.ap, other.ap)
    if ties == "gallery":
        assert torch.equal(one.first, other.first) and torch.equal(one.inp, other.inp)


def test_only_the_order_of_distances_matters():
    """An increasing function of the distances changes no score."""
    distances, match, ignored = problem(3)
    one = rank_queries(distances, match, ignored)
    other = rank_queries(distances.pow(3) * 100 - 5, match, ignored)
    assert torch.equal(one.ap, other.ap) and torch.equal(one.first, other.first)


def test_ignored_pictures_might_as_well_be_absent():
    """Ignoring pictures for all queries gives the scores of a gallery without them."""
    distances, match, _ = problem(4, decimals=1)
    gone = torch.arange(distances.shape[1]) % 3 == 0
    one = rank_queries(distances, match, gone.expand_as(match), ties="grouped")
    rest = rank_queries(
        distances[:, ~gone], match[:, ~gone], torch.zeros_like(match[:, ~gone]), ties="grouped"
    )
    torch.testing.assert_close(one.ap, rest.ap, rtol=1e-12, atol=0)
    assert torch.equal(one.inp, rest.inp) and torch.equal(one.first, rest.first)


@pytest.mark.parametrize("ties", TIES)
def test_blocks_of_queries_give_the_scores_of_the_whole(ties, monkeypatch):
    """Ranking in small blocks changes nothing."""
    *given, identity = with_identities(5, decimals=1)
    whole = rank_queries(*given, ties, "trapezoid", identity)
    monkeypatch.setattr(metrics, "_BLOCK", 2 * len(identity))
    parts = rank_queries(*given, ties, "trapezoid", identity)
    for name in ("first", "ap", "inp", "matches"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))


def test_summary_does_not_depend_on_the_parts():
    """Scores of parts add up to the scores of the whole, exactly."""
    distances, match, ignored = problem(6)
    whole = summarize([rank_queries(distances, match, ignored)])
    cut = [slice(0, 2), slice(2, 7), slice(7, 9)]
    parts = summarize([rank_queries(distances[c], match[c], ignored[c]) for c in cut])
    assert (whole.map, whole.minp) == (parts.map, parts.minp)
    assert torch.equal(whole.cmc, parts.cmc)


def test_cmc_goes_on_behind_the_end_of_the_gallery():
    """Where the gallery is smaller than the highest rank, the curve keeps its last value."""
    distances, match, ignored = problem(7, gallery=12)
    short = summarize([rank_queries(distances, match, ignored)], max_rank=12).cmc
    scores = summarize([rank_queries(distances, match, ignored)], max_rank=30)
    assert torch.equal(scores.cmc[:12], short)
    assert torch.equal(scores.cmc[12:], short[-1].expand(18))


def test_infinite_distances_rank_last():
    """Distances of infinity stand behind all others, and ignored ones among them do not count."""
    distances = torch.tensor([[torch.inf, 0.1, torch.inf, 0.2]])
    match = torch.tensor([[False, False, True, False]])
    ignored = torch.tensor([[True, False, False, False]])
    assert rank_queries(distances, match, ignored).first.tolist() == [3]


def test_nan_is_refused_by_place():
    """NaN distances are an error that says how many there are and where the first is."""
    distances, match, ignored = problem(8)
    distances[4, 7] = distances[5, 0] = torch.nan
    with pytest.raises(ReidError, match="2 distances are NaN, the first between query 4 and gall"):
        rank_queries(distances, match, ignored)


def test_nan_in_a_later_block_is_named_by_its_own_number(monkeypatch):
    """The query's number in the message counts from the first block."""
    distances, match, ignored = problem(9)
    distances[6, 3] = torch.nan
    monkeypatch.setattr(metrics, "_BLOCK", 1)
    with pytest.raises(ReidError, match="query 6 and gallery picture 3"):
        rank_queries(distances, match, ignored)


@pytest.mark.parametrize("gallery", [0, 5])
@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_match_at_all_is_an_error_with_counts(gallery, ties, precision):
    """Without any match, or without a gallery, there is no score but an error."""
    none = torch.zeros(3, gallery, dtype=torch.bool)
    identity = torch.arange(gallery)
    each = rank_queries(torch.rand(3, gallery), none, none, ties, precision, identity)
    assert each.first.tolist() == [0, 0, 0] == each.ap.tolist()
    draw = np.random.RandomState(0)
    assert draw_shots(torch.rand(3, gallery), none, none, identity, draw, 2).sum() == 0
    with pytest.raises(DataError, match="none of the 3 queries"):
        summarize([each])


def test_wrong_shapes_and_modes_are_refused():
    """Masks of another shape and unknown ways with ties are errors."""
    distances, match, ignored = problem(10)
    with pytest.raises(ValueError, match="must have one shape"):
        rank_queries(distances, match[:, 1:], ignored)
    with pytest.raises(ValueError, match="ties is 'gallery' or 'grouped' or"):
        rank_queries(distances, match, ignored, ties="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision is 'step' or 'trapezoid', got 'area'"):
        rank_queries(distances, match, ignored, precision="area")  # type: ignore[arg-type]


def test_float32_distances_are_summed_in_float64():
    """Scores are float64 also for float32 distances, with the same ranks."""
    distances, match, ignored = problem(11, decimals=2)
    one, other = (rank_queries(d, match, ignored) for d in (distances, distances.float()))
    assert isinstance(other, PerQuery) and other.ap.dtype == other.inp.dtype == torch.float64
    assert torch.equal(one.ap, other.ap)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ties", TIES)
def test_a_gpu_gives_the_same_scores(ties):
    """Ranks and scores on the GPU are those on the CPU, ties included."""
    *given, identity = with_identities(12, decimals=1)
    one = rank_queries(*given, ties, "trapezoid", identity)
    other = rank_queries(*(one.cuda() for one in given), ties, "trapezoid", identity.cuda())
    assert torch.equal(one.first, other.first.cpu()) and torch.equal(one.inp, other.inp.cpu())
    torch.testing.assert_close(one.ap, other.ap.cpu(), rtol=1e-12, atol=0)
