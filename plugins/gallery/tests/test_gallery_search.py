"""What a gallery answers: the same as `reid rank` and as a naive search."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")

import pyarrow as pa
import torch

from reid_gallery import Gallery
from reid_gallery.scan import Best, Nearest, Score, fragments_of, merged, search_tiles, tiles
from reid_gallery.searching import Searcher
from reidcore.cli.main import main
from reidcore.errors import DataError, ReidError, UsageError


@pytest.fixture(scope="module")
def gallery(work, trained):
    """A gallery of all gallery pictures, in two shards."""
    made = Gallery.create(work / "run", work / "searched", device="cpu")
    made._search = trained
    assert made.add(work / "gallery.csv").added == len(made) > 0
    return made


@pytest.mark.parametrize(
    "ranking", ["plain", "fused", "stretched", "pairs", "short", "mutual", "again", "lifted"]
)
def test_the_same_answers_as_reid_rank(work, trained, gallery, ranking):
    """With as many candidates as there are pictures the order and the distances are those of
    `reid rank`, whatever the ranking is made of."""
    from reidcore.tools import rows_of

    queries = rows_of(work / "query.csv")
    count = len(gallery)
    expected = trained.rank(list(queries), work / "gallery.csv", count, ranking)
    found = gallery.search(work / "query.csv", top=count, ranking=ranking, candidates=count)
    assert [answer.query for answer in found] == [row.name for row in queries]
    for answer, index, distance in zip(found, expected.index, expected.distance, strict=True):
        there = index >= 0
        assert len(answer.matches) == int(there.sum())
        own = torch.tensor([match.distance for match in answer.matches])
        torch.testing.assert_close(own, distance[there], atol=2e-6, rtol=1e-5)
        wanted = [expected.gallery[place].path for place in index[there].tolist()]
        paths = [match.source for match in answer.matches]
        # Rounding may swap pictures that are equally near.
        ties = [at for at, (a, b) in enumerate(zip(paths, wanted, strict=True)) if a != b]
        assert sorted(paths) == sorted(wanted)
        assert all(
            min(abs(own[at] - own[[k for k in range(len(own)) if k != at]])) < 2e-6 for at in ties
        )


@pytest.mark.parametrize("ranking", ["short", "mutual"])
def test_a_shortlist_beyond_what_is_asked(work, trained, gallery, ranking):
    """A shortlist of 7 is rescored, by QAConv's or IPAD's pairwise matcher, also where 3 are asked
    for, among all pictures. Both matchers' templates lie in the table of maps."""
    assert gallery.origin.of(frozenset(["pairs", "mutual"]), wide=True)[-1].matcher == "mutual"
    expected = trained.rank(work / "query.csv", work / "gallery.csv", 3, ranking)
    found = gallery.search(work / "query.csv", top=3, ranking=ranking)
    for answer, places in zip(found, expected.index.tolist(), strict=True):
        wanted = [expected.gallery[place].path for place in places]
        assert [match.source for match in answer.matches] == wanted


def test_what_is_known_of_a_match(work, gallery):
    """Camera, time and the user's columns come with the types that they have."""
    (answer,) = gallery.search([work / "query.csv"][0], top=1)[:1]
    (match,) = answer.matches
    assert match.rank == 1 and match.camera and isinstance(match.time, float)
    assert isinstance(match.columns["speed"], int) and match.columns["note"].startswith("note-")
    assert match.columns["split"] == "gallery" and match.identity
    assert 0 <= match.probability <= 1
    assert json.loads(json.dumps(answer.table()))["matches"][0]["speed"] == match.columns["speed"]


def test_filters_are_those_of_a_naive_search(work, gallery):
    """Each condition alone and all together leave what a loop over the rows leaves."""
    everything = gallery.search(work / "query.csv", top=len(gallery))
    for given, keeps in [
        ({"camera": "1"}, lambda m: m.camera == "1"),
        ({"camera": ["1", "2"]}, lambda m: m.camera in "12"),
        ({"after": 300}, lambda m: m.time >= 300),
        ({"before": "300"}, lambda m: m.time < 300),
        ({"where": "speed = 3 OR speed = 4"}, lambda m: m.columns["speed"] in (3, 4)),
        (
            {"camera": "2", "after": 200, "before": 500, "where": "speed = 3 OR speed = 4"},
            lambda m: m.camera == "2" and 200 <= m.time < 500 and m.columns["speed"] in (3, 4),
        ),
    ]:
        found = gallery.search(work / "query.csv", top=5, **given)
        for answer, whole in zip(found, everything, strict=True):
            wanted = [match.source for match in whole.matches if keeps(match)][:5]
            assert [match.source for match in answer.matches] == wanted


def test_dates_are_seconds_since_1970(work, gallery):
    found = gallery.search(work / "query.csv", top=50, before="1970-01-01T00:05:00")
    times = {match.time for answer in found for match in answer.matches}
    assert times and max(times) < 300


def test_a_query_of_the_gallery_is_not_its_own_match(work, gallery):
    """Its file is left out, be it named by another path."""
    known = gallery.search(work / "query.csv", top=1)[0].matches[0].source
    link = work / "link.jpg"
    link.unlink(missing_ok=True)
    link.symlink_to(known)
    for path in (known, link):
        for ranking in ("plain", "short", "again"):
            found = gallery.search([path], top=len(gallery), ranking=ranking)[0].matches
            assert len(found) == len(gallery) - 1
            assert known not in [match.source for match in found]


def test_unknown_below_a_probability(work, gallery):
    """A query is unknown if no match has the probability."""
    found = gallery.search(work / "query.csv", top=3)
    best = sorted(max(match.probability for match in answer.matches) for answer in found)
    limit = (best[len(best) // 2 - 1] + best[len(best) // 2]) / 2
    told = gallery.search(work / "query.csv", top=3, unknown_above=limit)
    for answer in told:
        assert answer.unknown == all(match.probability < limit for match in answer.matches)
    assert {answer.unknown for answer in told} == {True, False}


def test_half_precision_takes_half_the_room(work, trained, gallery):
    """And ranks as the rounded vectors do."""
    half = Gallery.create(work / "run", work / "half", "float16", device="cpu")
    half._search = trained
    half.add(work / "gallery.csv")
    sizes = [sum(column.bytes for column in one.origin.columns) for one in (gallery, half)]
    assert sizes[0] == 2 * sizes[1]
    for ranking in ("plain", "short"):
        for a, b in zip(
            gallery.search(work / "query.csv", top=5, ranking=ranking),
            half.search(work / "query.csv", top=5, ranking=ranking),
            strict=True,
        ):
            for one, other in zip(a.matches, b.matches, strict=True):
                assert one.distance == pytest.approx(other.distance, abs=2e-3)


def test_map_of_reid_eval(work, gallery, capsys):
    """The mean average precision of the gallery's lists is that of `reid eval`."""
    (work / "eval.toml").write_text(
        f'format = 1\n[data]\ntest = [{{ manifest = "{work}/people.csv" }}]\n'
        '[[ranking]]\nname = "plain"\nmatcher = "look"\n'
    )
    scores = work / "eval.json"
    assert main(["eval", str(work / "run"), str(work / "eval.toml"), "-o", str(scores)]) == 0
    (rankings,) = json.loads(scores.read_text()).values()
    expected = rankings["plain"]["plain"]["mAP"]
    from reid_gallery.rows import entries_of

    labels = {
        entry.row.path: (entry.cells["identity"], entry.row.camera)
        for entry in entries_of(work / "query.csv")
    }
    found = []
    for answer in gallery.search(work / "query.csv", top=len(gallery), ranking="plain"):
        pid, camera = labels[answer.query]
        counted = [m for m in answer.matches if (m.identity, m.camera) != (pid, camera)]
        hits = np.array([match.identity == pid for match in counted])
        if hits.any():
            precision = hits.cumsum() / np.arange(1, len(hits) + 1)
            found.append(precision[hits].mean())
    assert np.mean(found) == pytest.approx(expected, abs=1e-6)


def test_an_empty_gallery(work, trained):
    """It answers with no match; so does one of which nothing meets the conditions."""
    empty = Gallery.create(work / "run", work / "empty", device="cpu")
    empty._search = trained
    for ranking in ("plain", "short", "again", "stretched", "pairs"):
        found = empty.search(work / "query.csv", ranking=ranking)
        assert found and not any(answer.matches for answer in found)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"where": "camra = '1'"}, "no column 'camra', did you mean 'camera'"),
        ({"where": "camera = 3"}, "3 is a number, but the column holds texts"),
        ({"where": "speed = 'x'"}, "x is text, but the column holds"),
        ({"where": "speed >"}, "is no condition in SQL"),
        ({"where": "speed"}, "is no condition in SQL"),
        ({"where": "speed = 1) OR (speed = 2"}, "is no condition in SQL"),
        ({"where": "/* ( */ true) OR (true /* ) */"}, "without comments"),
        ({"where": " true -- (\n) OR (true -- )\n"}, "without comments"),
        ({"where": "$$($$ = '') OR ('' = $$)$$"}, "has $$, expected a condition in SQL without"),
        ({"where": r"note = E'\'' OR (note = E'\''"}, "has E'"),
        ({"where": "camera = :p"}, "has something that Lance does not know"),
        ({"where": "? = 1"}, "has no placeholders such as ? and :name"),
        ({"where": "speed / 0 = 1"}, "--where 'speed / 0 = 1' cannot be told of every row: Arrow"),
        ({"where": "regexp_match(camera, '(')"}, "Regular expression did not compile"),
        ({"camera": 3}, "camera is 3, of the type int; cameras are texts"),
        ({"camera": "camera-1"}, "no camera 'camera-1', did you mean '1'?; it has 1, 2, 3"),
        ({"after": "noon"}, "after is 'noon', expected seconds"),
        ({"before": float("nan")}, "before is nan, expected seconds"),
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"ranking": "plian"}, "no ranking 'plian', did you mean 'plain'"),
        ({"unknown_above": 2}, "a probability between 0 and 1, got 2"),
    ],
)
def test_what_cannot_be_asked(work, gallery, given, message):
    with pytest.raises(UsageError) as refused:
        gallery.search(work / "query.csv", **given)
    assert message in str(refused.value) and len(str(refused.value)) < 1000


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_query_that_is_not_finite_is_told(work, trained, gallery, value):
    """It has no nearest picture, and "no match" would be a lie; only what ranks counts."""
    query = trained.templates(work / "query.csv")
    query.parts["far"]["vector"][2, 5] = value
    picture = query.rows[2].name
    with pytest.raises(
        ReidError, match=r"template far\.vector of picture .* is not finite"
    ) as told:
        gallery.search(query, ranking="fused")
    assert picture in str(told.value)
    assert all(answer.matches for answer in gallery.search(query, ranking="plain"))


def test_postprocessors_rank_no_more_than_they_can_hold(work, gallery, monkeypatch):
    monkeypatch.setattr("reid_gallery.searching.MOST_CANDIDATES", 10)
    with pytest.raises(UsageError, match="more than 10; search fewer pictures at once"):
        gallery.search(work / "query.csv", ranking="again")


def naive(distances, ids, count):
    order = [
        sorted(range(len(ids)), key=lambda at: (row[at], ids[at]))[:count] for row in distances
    ]
    return [[ids[at] for at in row] for row in order]


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_nearest_of_tiles_with_ties(levels):
    """Whatever the tiles are, and in whatever order fragments are merged, the list is that of a
    sort by distance and id, though many distances are equal."""
    draw = np.random.default_rng(levels)
    distances = draw.integers(0, levels, (5, 400)).astype(np.float32)
    ids = draw.permutation(4000)[:400]
    for count in (1, 7, 60, 500):
        wanted = naive(distances, ids.tolist(), count)
        for width in (1, 13, 64, 400):
            parts = []
            for half in (slice(200, 400), slice(0, 200)):
                nearest = Nearest(5, count)
                for start in range(half.start, half.stop, width):
                    some = slice(start, min(start + width, half.stop))
                    nearest.add(torch.from_numpy(distances[:, some]), ids[some], ids[some] * 2)
                parts.append(nearest.best())
            found = merged([Best.none(5), *parts], count)
            assert found.id.tolist() == wanted
            assert (found.row == found.id * 2).all()


def test_threads_change_no_bit(work, gallery, monkeypatch):
    """Tiles are scored by several threads, in whatever order; distances and order are the same."""
    monkeypatch.setattr("reid_gallery.scan.TILE", 7)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers = gallery.search(work / "query.csv", top=9, ranking="plain")
            assert torch.get_num_threads() == threads
            lists = [[(m.source, m.distance) for m in answer.matches] for answer in answers]
            found.append(lists)
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2] and all(len(one) == 9 for one in found[0])


def test_an_error_of_a_thread_is_that_of_the_search(gallery):
    """A tile that cannot be scored ends the search."""

    def fails(batch: pa.RecordBatch) -> torch.Tensor:
        raise DataError("the gallery is damaged")

    view = gallery.view()
    (fragment, *_) = fragments_of(view.dataset)
    read = tiles(view.dataset, fragment, [], None)
    with pytest.raises(DataError, match="damaged"):
        search_tiles(read, Nearest(1, 5), Score(fails, parallel=True))


def test_maps_that_have_gone(work, trained):
    """A row without its maps is told as damage."""
    lost = Gallery.create(work / "run", work / "lost", device="cpu")
    lost._search = trained
    lost.add(work / "gallery.csv")
    lost.tables.open_maps(lost.origin).delete("true")
    with pytest.raises(DataError, match="lacks the maps of the row"):
        lost.search(work / "query.csv", ranking="short")
    assert lost.search(work / "query.csv", ranking="plain")


def test_a_run_without_training_pairs(work, trained, gallery, monkeypatch):
    """It gives no probabilities, and nothing is unknown by them."""
    monkeypatch.setattr(trained.model, "pairs", {})
    found = gallery.search(work / "query.csv", top=1, ranking="plain")
    assert all(answer.matches[0].probability is None for answer in found)
    with pytest.raises(UsageError, match="gives no probabilities"):
        gallery.search(work / "query.csv", top=1, ranking="plain", unknown_above=0.5)


def test_a_searcher_of_one_version(work, gallery):
    """A view keeps answering from its version while rows are added."""
    view = gallery.view()
    query = gallery.search_run.templates(work / "query.csv")
    from reid_gallery.request import Request

    before = Searcher(gallery.search_run, view).answers(query, Request())
    gallery.tables.append(
        "pictures.lance",
        gallery.tables.write(
            "pictures.lance",
            view.dataset.to_table()
            .slice(0, 3)
            .set_column(0, view.dataset.schema.field("id"), pa.array([1, 2, 3])),
        ),
    )
    assert Searcher(gallery.search_run, view).answers(query, Request()) == before
    view.dataset.checkout_version(view.dataset.latest_version).delete("id < 4")
    assert issubclass(DataError, ReidError)
