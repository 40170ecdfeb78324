"""Ranking metrics against loops over sorted lists, and their invariants."""

from __future__ import annotations

import pytest
import torch

from reidcore import metrics
from reidcore.errors import DataError, ReidError
from reidcore.metrics import PerQuery, rank_queries, summarize


def by_loop(distances, match, ignored, grouped=False) -> tuple[int, float, float, int]:
    """(first, ap, inp, matches) of one query; lists of numbers."""
    kept = sorted(
        (d, position)
        for position, (d, skip) in enumerate(zip(distances, ignored, strict=True))
        if not skip
    )
    ranks = [rank for rank, (_, position) in enumerate(kept, 1) if match[position]]
    if not ranks:
        return 0, 0.0, 0.0, 0
    precisions = []
    for rank in ranks:
        end = rank
        if grouped:
            end = sum(d <= kept[rank - 1][0] for d, _ in kept)
        precisions.append(sum(r <= end for r in ranks) / end)
    return ranks[0], sum(precisions) / len(ranks), len(ranks) / ranks[-1], len(ranks)


def problem(seed: int, queries: int = 9, gallery: int = 40, decimals: int | None = None):
    """Random distances and masks; the second query has no match, the third only ignored ones."""
    generator = torch.Generator().manual_seed(seed)
    distances = torch.rand(queries, gallery, generator=generator, dtype=torch.float64)
    if decimals is not None:
        distances = distances.round(decimals=decimals)
    match = torch.rand(queries, gallery, generator=generator) < 0.15
    ignored = torch.rand(queries, gallery, generator=generator) < 0.1
    match[1] = False
    ignored[2] |= match[2]
    return distances, match, ignored


@pytest.mark.parametrize("ties", ["gallery", "grouped"])
@pytest.mark.parametrize("decimals", [None, 1])
def test_scores_equal_a_loop_over_the_sorted_list(ties, decimals):
    """First rank, AP, INP and number of matches equal their definitions, ties included."""
    distances, match, ignored = problem(0, decimals=decimals)
    each = rank_queries(distances, match, ignored, ties=ties)
    for query in range(len(distances)):
        row = (distances[query].tolist(), match[query].tolist(), ignored[query].tolist())
        first, ap, inp, matches = by_loop(*row, grouped=ties == "grouped")
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


@pytest.mark.parametrize("ties", ["gallery", "grouped"])
def test_blocks_of_queries_give_the_scores_of_the_whole(ties, monkeypatch):
    """Ranking in small blocks changes nothing."""
    distances, match, ignored = problem(5, decimals=1)
    whole = rank_queries(distances, match, ignored, ties=ties)
    monkeypatch.setattr(metrics, "_BLOCK", 2 * distances.shape[1])
    parts = rank_queries(distances, match, ignored, ties=ties)
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
@pytest.mark.parametrize("ties", ["gallery", "grouped"])
def test_no_match_at_all_is_an_error_with_counts(gallery, ties):
    """Without any match, or without a gallery, there is no score but an error."""
    none = torch.zeros(3, gallery, dtype=torch.bool)
    each = rank_queries(torch.rand(3, gallery), none, none, ties=ties)
    assert each.first.tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="none of the 3 queries"):
        summarize([each])


def test_wrong_shapes_and_modes_are_refused():
    """Masks of another shape and unknown ways with ties are errors."""
    distances, match, ignored = problem(10)
    with pytest.raises(ValueError, match="must have one shape"):
        rank_queries(distances, match[:, 1:], ignored)
    with pytest.raises(ValueError, match="'gallery' or 'grouped'"):
        rank_queries(distances, match, ignored, ties="random")  # type: ignore[arg-type]


def test_float32_distances_are_summed_in_float64():
    """Scores are float64 also for float32 distances, with the same ranks."""
    distances, match, ignored = problem(11, decimals=2)
    one, other = (rank_queries(d, match, ignored) for d in (distances, distances.float()))
    assert isinstance(other, PerQuery) and other.ap.dtype == other.inp.dtype == torch.float64
    assert torch.equal(one.ap, other.ap)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ties", ["gallery", "grouped"])
def test_a_gpu_gives_the_same_scores(ties):
    """Ranks and scores on the GPU are those on the CPU, ties included."""
    tensors = problem(12, decimals=1)
    one = rank_queries(*tensors, ties=ties)
    other = rank_queries(*(tensor.cuda() for tensor in tensors), ties=ties)
    assert torch.equal(one.first, other.first.cpu()) and torch.equal(one.inp, other.inp.cpu())
    torch.testing.assert_close(one.ap, other.ap.cpu(), rtol=1e-12, atol=0)
