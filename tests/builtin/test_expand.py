"""`core.expand` against loops over its definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from running import TINY
from torch import Tensor

from reidcore.api import Feature, Given, Matching, TensorSpec, WiringError
from reidcore.builtin import settings
from reidcore.builtin.matchers import build_cosine, build_euclidean
from reidcore.builtin.query_expansion import Expand
from reidcore.cli.main import main
from reidcore.modules import Context, Matcher
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.resources import Resources
from reidcore.ranking.sides import Sides
from tests.fused_rankings import SCALE, Power, fused, meta, vectors

SPEC = Matching({"v": TensorSpec((4,))}, pair_bytes=16)
QUERIES, GALLERY = 5, 9


def ranking_of(
    matcher: Matcher, key: str = "v", gallery: Tensor | None = None, **options
) -> MatcherRanking:
    """A ranking of random vectors by one matcher, or of the given gallery."""
    gallery = vectors(GALLERY, 1) if gallery is None else gallery
    templates = {"query": {"look": {key: vectors(QUERIES, 0)}}, "gallery": {"look": {key: gallery}}}
    share = Share("look", matcher, SPEC)
    pictures = Sides(meta(QUERIES), meta(len(gallery)), templates)
    return MatcherRanking(Fusion([share]), pictures, Resources(**options))


def expand(ranking: MatcherRanking, top: int) -> Tensor:
    distances = ranking.between("query", "gallery", 0, len(ranking.query))
    return Expand(settings.Expand(top=top))(distances, ranking)


def by_loops(query: Tensor, gallery: Tensor, top: int, measure) -> Tensor:
    """Each query's vector averaged with those of its nearest, equally near ones in the gallery's
    order, and measured again; float64."""
    rows = []
    for one in query.double():
        distances = [measure(one, other) for other in gallery.double()]
        order = sorted(range(len(gallery)), key=lambda j: (distances[j], j))
        near = [one, *(gallery[j].double() for j in order[:top])]
        mean = sum(near) / len(near)
        rows.append([measure(mean, other) for other in gallery.double()])
    return torch.tensor(rows, dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return ((1 - (a @ b) / (a.norm() * b.norm())) / 2).item()


def euclidean(a: Tensor, b: Tensor) -> float:
    return (a - b).norm().item()


@pytest.mark.parametrize("top", [1, 3, GALLERY, 100])
@pytest.mark.parametrize(
    ("build", "config", "measure"),
    [
        (build_cosine, settings.Cosine, cosine),
        (build_euclidean, settings.Euclidean, euclidean),
    ],
    ids=["cosine", "euclidean"],
)
def test_distances_are_those_of_the_mean_vector(build, config, measure, top):
    """With a vector matcher the result is the distance of the mean of the query and its `top`
    nearest gallery pictures, or of all if there are fewer."""
    given = Given((8, 8), features={"x.v": Feature.vector(4)})
    matcher = build(config(features=["x.v"]), Context(given, "look"))
    ranking = ranking_of(matcher, "vector")
    found = expand(ranking, top)
    expected = by_loops(vectors(QUERIES, 0), vectors(GALLERY, 1), top, measure)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    plain = ranking.between("query", "gallery", 0, QUERIES)
    assert (found.argsort(1) != plain.argsort(1)).any()


class Brightest(Power):
    """Merges views by their maximum, which no mean is."""

    merged = 0

    def merge(self, views):
        stacked = torch.stack([view["v"] for view in views])
        self.merged = max(self.merged, stacked.numel())
        return {"v": stacked.amax(0)}


def test_the_matcher_merges():
    """It is the matcher's own `merge` that joins a query with its neighbours."""
    found = expand(ranking_of(Brightest(2)), 2)
    query, gallery = vectors(QUERIES, 0), vectors(GALLERY, 1)
    near = Power(2).distance({"v": query}, {"v": gallery}).argsort(1)[:, :2]
    merged = torch.maximum(query, gallery[near].amax(1))
    torch.testing.assert_close(found, Power(2).distance({"v": merged}, {"v": gallery}))


def test_memory_bounds_what_is_merged_at_once():
    """With little memory queries are expanded a few at a time, with the same result."""
    expected = expand(ranking_of(Brightest(2)), 3)
    matcher = Brightest(2)
    room = 2 * 16 * 4 * 2  # two queries with three neighbours of 16 bytes, and copies of them
    found = expand(ranking_of(matcher, memory=room / 2**30), 3)
    assert torch.equal(found, expected)
    assert matcher.merged == 4 * 2 * 4


def test_a_fused_distance_is_expanded_in_each_of_its_matchers():
    """The neighbours are those of the fused distance; each matcher's template is merged with them,
    and its distances are scaled and weighted as before."""
    context, sides, shares = fused(SCALE)
    distances = context.between("query", "gallery", 0, 5)
    near = distances.argsort(1)[:, :2]
    expected = torch.zeros(5, 8)
    for share, change in zip(shares, (SCALE, lambda d: d), strict=True):
        query, gallery = (sides[side][share.name]["v"] for side in ("query", "gallery"))
        merged = torch.cat([query[:, None], gallery[near]], 1).mean(1)
        raw = share.matcher.distance({"v": merged}, {"v": gallery})
        expected += share.weight * change(raw)
    torch.testing.assert_close(expand(context, 2), expected)


def test_of_equally_near_pictures_the_first_are_taken():
    """Neighbours among ties follow the gallery's order."""
    gallery = torch.tensor([[9.0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    ranking = ranking_of(Power(1), gallery=gallery)
    ranking.sides.templates["query"]["look"]["v"] = torch.zeros(QUERIES, 4)
    merged = gallery[[1, 2, 3]].sum(0) / 4
    expected = Power(1).distance({"v": merged[None]}, {"v": gallery}).expand(QUERIES, -1)
    torch.testing.assert_close(expand(ranking, 3), expected)


def test_the_order_of_pictures_does_not_matter():
    """Distances follow their pictures, and no query knows of the others."""
    whole = expand(ranking_of(Power(2)), 3)
    order = torch.randperm(GALLERY, generator=torch.Generator().manual_seed(3))
    moved = expand(ranking_of(Power(2), gallery=vectors(GALLERY, 1)[order]), 3)
    torch.testing.assert_close(moved, whole[:, order])
    ranking = ranking_of(Power(2))
    distances = ranking.between("query", "gallery", 0, QUERIES)
    ranking.sides.templates["query"]["look"]["v"] = vectors(QUERIES, 0)[2:3]
    alone = Expand(settings.Expand(top=3))(distances[2:3], ranking)
    torch.testing.assert_close(alone, whole[2:3])


def test_a_query_that_is_in_the_gallery_finds_itself_first():
    """A query's own file in the gallery takes a place among its neighbours: with `top` 1 nothing
    changes."""
    gallery = torch.cat([vectors(GALLERY, 1), vectors(QUERIES, 0)])
    ranking = ranking_of(Power(2), gallery=gallery)
    plain = ranking.between("query", "gallery", 0, QUERIES)
    torch.testing.assert_close(expand(ranking, 1), plain)
    assert not torch.allclose(expand(ranking, 2), plain)


@pytest.mark.parametrize(("queries", "gallery"), [(0, 4), (3, 0), (0, 0)])
def test_empty_sides_stay_empty(queries, gallery):
    """Without queries or without a gallery the matrix keeps its shape."""
    templates = {
        side: {"look": {"v": torch.rand(size, 4)}}
        for side, size in (("query", queries), ("gallery", gallery))
    }
    pictures = Sides(meta(queries), meta(gallery), templates)
    ranking = MatcherRanking(Fusion([Share("look", Power(1), SPEC)]), pictures)
    found = Expand(settings.Expand())(torch.zeros(queries, gallery), ranking)
    assert found.shape == (queries, gallery)


@pytest.mark.parametrize("unit", [False, True])
def test_the_promise_is_that_of_the_distances_before(unit):
    """Expanded distances are in [0, 1] where the ranking's are."""
    assert settings.Expand().check(Given((8, 8), unit=unit)) is unit


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"first": False}, "must be the first postprocessor"),
        ({"by_row": True}, "row_minmax"),
        ({"shortlisted": True}, "without a shortlist"),
    ],
)
def test_where_the_matcher_cannot_be_asked_it_is_refused(given, message):
    """Behind another postprocessor, on rows stretched by themselves, and on a shortlist the
    expanded queries' distances would not compare."""
    with pytest.raises(WiringError, match=message):
        settings.Expand().check(Given((8, 8), **given))


TABLES = """
[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.pooled"]

[[ranking]]
name = "short"
matcher = "look"
shortlist = { by = "far", top = 3 }
post = ["wider"]

[[post]]
name = "wider"
use = "core.expand"
"""


def test_a_check_refuses_it_behind_a_shortlist(tmp_path, monkeypatch, capsys):
    """`reid check` names the table and what would fit; without the shortlist the file is fine, and
    its dry run expands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    Path("tiny.toml").write_text(TINY + TABLES)
    assert main(["check", "tiny.toml"]) == 2
    error = capsys.readouterr().err
    assert "postprocessor 'wider' (core.expand)" in error
    assert "use it in a ranking without a shortlist" in error
    listed = 'shortlist = { by = "far", top = 3 }\n'
    Path("tiny.toml").write_text((TINY + TABLES).replace(listed, ""))
    assert main(["check", "tiny.toml"]) == 0
    assert "short: look -> wider" in capsys.readouterr().out
