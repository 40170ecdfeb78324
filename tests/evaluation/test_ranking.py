"""Protocol, tiles and score stages."""

from __future__ import annotations

import attrs
import pytest
import torch

from reidcore.api import Matching, Row, TensorSpec
from reidcore.data.datasets import DataPlan, Loaded
from reidcore.errors import DataError
from reidcore.evaluation.labelled_set import make_labelled_set, require_matches
from reidcore.evaluation.metrics import rank_queries, summarize
from reidcore.evaluation.score_table import score_table
from reidcore.evaluation.trial_scores import as_json, wanted_ranks
from reidcore.modules import Matcher, Meta
from reidcore.protocols.cross_camera import CrossCamera
from reidcore.ranking.distances import compute_distances, tile_shape
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.sides import Sides
from reidcore.runfiles.runfile import Source
from reidcore.runfiles.tables import Eval
from reidcore.support.repeats import mean_scores

VECTOR = Matching({"v": TensorSpec((4,))}, pair_bytes=16)


class Squared(Matcher):
    """Squared Euclidean distance, pair by pair, noting the tiles it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.tiles: list[tuple[int, int]] = []

    def template(self, features):
        return {"v": features["v"]}

    def distance(self, a, b):
        self.tiles.append((len(a["v"]), len(b["v"])))
        return (a["v"][:, None] - b["v"]).square().sum(-1)


def pictured(query: list[Row], gallery: list[Row], same_camera: str = "drop"):
    """Pictures of the splits query and gallery, under cross_camera."""
    rows = [attrs.evolve(row, split="query") for row in query]
    rows += [attrs.evolve(row, split="gallery") for row in gallery]
    source = Source("test", ("data", "test"), name="t")
    loaded = Loaded(source, tuple(rows), None, protocol=CrossCamera())
    return make_labelled_set(loaded, DataPlan((), (loaded,)).numbering, same_camera)


def masks(found) -> tuple[list[list[bool]], list[list[bool]]]:
    """(match, ignored) of all its queries and gallery pictures."""
    (task,) = found.tasks
    (trial,) = task.trials
    relevance = found.relevance(torch.tensor(trial.query), torch.tensor(trial.gallery))
    match, ignored = relevance.rows(0, len(trial.query)).masks()
    return match.tolist(), ignored.tolist()


@pytest.mark.parametrize(
    ("rule", "ignored"),
    [
        ("drop", [True, False, False, False, True]),
        ("drop_all", [True, False, True, False, True]),
        ("keep", [False, False, False, False, True]),
    ],
)
def test_same_camera_rules(rule: str, ignored: list[bool]):
    """drop ignores the identity's pictures of the camera, drop_all the camera's, keep neither; the
    query's own file is always ignored."""
    query = [Row("q", "a", "1")]
    gallery = [
        Row("g0", "a", "1"),
        Row("g1", "a", "2"),
        Row("g2", "b", "1"),
        Row("g3", "b", "2"),
        Row("q", "a", "2"),
    ]
    match, found = masks(pictured(query, gallery, rule))
    assert match == [[True, True, False, False, True]]
    assert found == [ignored]


def test_unknown_cameras_are_never_the_same():
    """Without a camera column nothing is dropped for its camera."""
    _, ignored = masks(pictured([Row("q", "a")], [Row("g", "a")]))
    assert ignored == [[False]]


def test_no_match_is_explained_with_counts():
    """When no query has a match the error counts why, and says what to do."""
    rows = [
        Row("q0", "a", "1", "query"),
        Row("q1", "b", "1", "query"),
        Row("q2", "c", "1", "query"),
        Row("g0", "a", "1", "gallery"),
        Row("q1", "b", "1", "gallery"),
    ]
    with pytest.raises(DataError) as caught:
        require_matches(rows, "own", CrossCamera(), "drop")
    assert str(caught.value) == (
        "[data] test 'own': none of the 3 queries has a match in the gallery: 1 have an identity "
        "that is not in the gallery, 1 have gallery pictures of their identity from their own "
        "camera only (eval.same_camera = 'drop'; the data have 1 cameras), 1 find only their own "
        'file. With one camera, set eval.same_camera = "keep".'
    )
    require_matches(rows, "own", CrossCamera(), "keep")
    require_matches(rows, "own", CrossCamera(same_camera="keep"), "drop")
    with pytest.raises(DataError, match=r'With one camera, set protocol\.same_camera = "keep"'):
        require_matches(rows, "own", CrossCamera(same_camera="drop"), "keep")
    with pytest.raises(DataError, match="Check the pids of the query and gallery splits"):
        require_matches(rows[2:], "own", CrossCamera(), "drop")


@pytest.mark.parametrize("memory_pairs", [1, 7, 50, 10_000])
def test_tile_equals_whole(memory_pairs: int):
    """Any tile size gives the same distances, and no tile holds more pairs than allowed."""
    draw = torch.Generator().manual_seed(0)
    a = {"v": torch.rand(13, 4, generator=draw)}
    b = {"v": torch.rand(29, 4, generator=draw)}
    matcher = Squared()
    tiled = compute_distances(
        matcher, VECTOR, a, b, memory=memory_pairs * VECTOR.pair_bytes / 2**30
    )
    assert max(rows * columns for rows, columns in matcher.tiles) <= memory_pairs
    assert torch.equal(tiled, Squared().distance(a, b))


def test_tiles_halve_when_memory_runs_out():
    """A tile that does not fit is halved until it does, and every distance is filled in."""

    class Small(Squared):
        def distance(self, a, b):
            if len(a["v"]) * len(b["v"]) > 6:
                raise torch.OutOfMemoryError("too large")
            return super().distance(a, b)

    a, b = {"v": torch.rand(9, 4)}, {"v": torch.rand(11, 4)}
    assert torch.equal(compute_distances(Small(), VECTOR, a, b), Squared().distance(a, b))


def test_tile_shape_is_within_the_sides():
    """Tiles are at least one pair and at most the matrix."""
    assert tile_shape(5, 9, 10**12, 0.1) == (1, 1)
    assert tile_shape(5, 9, 1, 1.0) == (5, 9)
    rows, columns = tile_shape(3, 10**6, 4, 4e-6)
    assert rows * columns * 4 <= 4e-6 * 2**30 and rows >= 1


def make_context() -> MatcherRanking:
    draw = torch.Generator().manual_seed(1)
    templates = {
        "query": {"look": {"v": torch.rand(5, 4, generator=draw)}},
        "gallery": {"look": {"v": torch.rand(8, 4, generator=draw)}},
    }

    def meta(size: int) -> Meta:
        zeros = torch.zeros(size, dtype=torch.int64)
        return Meta(zeros, torch.zeros(size, dtype=torch.float64), zeros)

    share = Share("look", Squared(), VECTOR)
    return MatcherRanking(Fusion([share]), Sides(meta(5), meta(8), templates))


def test_ranking_answers_agree_with_each_other():
    """Rows, listed pairs and the expansion by nobody are one and the same matrix."""
    context = make_context()
    whole = context.between("query", "gallery", 0, 5)
    assert torch.equal(context.between("query", "gallery", 2, 4), whole[2:4])
    i, j = torch.tensor([4, 0, 4, 2]), torch.tensor([7, 7, 0, 3])
    torch.testing.assert_close(context.pairs("query", i, "gallery", j), whole[i, j])
    nobody = torch.zeros(5, 0, dtype=torch.int64)
    torch.testing.assert_close(context.expanded(nobody), whole)
    within = context.between("gallery", "gallery", 0, 8)
    assert within.diagonal().abs().max() == 0


def test_expansion_is_the_merge_of_templates():
    """A query expanded by one gallery picture is scored by the mean of both."""
    context = make_context()
    neighbours = torch.tensor([[3], [1], [0], [7], [2]])
    query, gallery = (context.sides.templates[side]["look"]["v"] for side in ("query", "gallery"))
    merged = (query + gallery[neighbours[:, 0]]) / 2
    expected = (merged[:, None] - gallery).square().sum(-1)
    torch.testing.assert_close(context.expanded(neighbours), expected)


def test_ranks_beyond_fifty_and_the_best_epochs_rank_are_reported():
    """rank-60 is the share within 60, not within the 50 of the usual curve; train.best adds its
    rank to those asked for."""
    assert wanted_ranks(Eval(ranks=[1, 60]), "rank-7") == [1, 60, 7]
    assert wanted_ranks(Eval(ranks=[1]), "mAP") == [1]
    distances = torch.arange(70.0)[None]
    match = torch.arange(70)[None] == 54
    parts = [rank_queries(distances, match, torch.zeros(1, 70, dtype=torch.bool))]
    found = as_json(summarize(parts, 60), [50, 54, 55, 60])
    assert [found[f"rank-{k}"] for k in (50, 54, 55, 60)] == [0, 0, 1, 1]


def test_scores_table_and_repeats():
    """Scores print in percent; repeats give means and sample deviations."""
    results = []
    for flip in (False, True):
        distances = torch.tensor([[0.1, 0.2], [0.2, 0.1]])
        match = torch.tensor([[True, False], [flip, not flip]])
        parts = [rank_queries(distances, match, torch.zeros(2, 2, dtype=torch.bool))]
        results.append({"set": {"main": {"plain": as_json(summarize(parts), [1, 5])}}})
    plain = results[1]["set"]["main"]["plain"]
    assert plain["mAP"] == 0.75 and plain["rank-1"] == 0.5 and plain["rank-5"] == 1.0
    assert "75.0" in score_table(results[1]) and "rank-5" in score_table(results[1])
    mean = mean_scores(results)["set"]["main"]["plain"]["mAP"]
    assert mean["mean"] == pytest.approx(0.875)
    assert mean["deviation"] == pytest.approx(0.125 * 2**0.5)
    assert "87.5 ± 17.7" in score_table(mean_scores(results))
