"""`qaconv.tlift` against published results and a reference with a loop over queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from reid_qaconv.settings_tlift import TLift as Settings
from reid_qaconv.tlift import TLift, leading, nearby_queries
from reidcore.api import Given, WiringError
from reidcore.builtin import settings as core
from reidcore.builtin.reranking import Rerank
from reidcore.errors import DataError, PluginError
from reidcore.modules import Meta
from tests.oracles import Vectors, oracle


@attrs.frozen(eq=False)
class Places:
    """A ranking of which only the pictures' cameras and times are known."""

    query: Meta
    gallery: Meta
    mask: Tensor | None = None

    def scored(self, start: int, stop: int) -> Tensor | None:
        return None if self.mask is None else self.mask[start:stop]


@attrs.frozen(eq=False)
class Matrix(Places):
    """One whose distances between all pictures, queries first, are known too."""

    full: Tensor = attrs.field(kw_only=True)
    symmetric = False

    def within(self, side: str, entries: int) -> Iterator[tuple[int, int, Tensor]]:
        yield 0, 0, self.full[self._side(side), self._side(side)]

    def of_gallery(self, key: str, make: Callable[[], Any]) -> Any:
        return make()

    def everyone(self, value: Tensor) -> list[Tensor]:
        return [value]

    def between(self, a: str, b: str, start: int, stop: int) -> Tensor:
        return self.full[self._side(a), self._side(b)][start:stop]

    def pairs(self, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        return self.full[self._side(a), self._side(b)][i, j]

    def _side(self, side: str) -> slice:
        queries = len(self.query)
        return slice(0, queries) if side == "query" else slice(queries, None)


def meta(camera: Tensor, time: Tensor) -> Meta:
    return Meta(camera, time.double(), torch.zeros_like(camera))


def by_loops(scores: Tensor, places: Places, config: Settings) -> Tensor:
    """(p + alpha) * s by the text of the paper, one query and one camera at a time, in float64."""
    query, gallery = places.query, places.gallery
    result = torch.empty(scores.shape, dtype=torch.float64)
    for a, row in enumerate(scores.double()):
        same = query.camera == query.camera[a]
        near = same & ((query.time - query.time[a]).abs() < config.tau)
        for camera in range(int(gallery.camera.max()) + 1):
            columns = torch.nonzero(gallery.camera == camera)[:, 0].tolist()
            votes = [
                (float(scores[b, j]), float(gallery.time[j]))
                for b in torch.nonzero(near)[:, 0].tolist()
                for j in columns
                if places.mask is None or places.mask[b, j]
            ]
            least = sorted(value for value, _ in votes)[-config.k :][:1]
            pivots = [time for value, time in votes if value >= least[0]]
            apart = gallery.time[columns].numpy()[:, None] - np.array(pivots)
            p = np.exp(-np.square(apart / config.sigma)).sum(1) / max(1, len(pivots))
            if config.skip_same_camera and camera == query.camera[a]:
                p *= 0
            if config.skip_high_cameras and query.camera[a] > gallery.camera.max():
                p *= 0
            result[a, columns] = (torch.from_numpy(p) + config.alpha) * row[columns]
    return result


def drawn(
    queries: int = 20, gallery: int = 60, cameras: int = 4, span: float = 1500.0, seed: int = 0
) -> tuple[Tensor, Places]:
    """Random similarities in float64, cameras, and times within `span` seconds."""
    draw = torch.Generator().manual_seed(seed)

    def side(count: int) -> Meta:
        camera = torch.randint(cameras, (count,), generator=draw)
        return meta(camera, span * torch.rand(count, generator=draw, dtype=torch.float64))

    places = Places(side(queries), side(gallery))
    return torch.rand(queries, gallery, generator=draw, dtype=torch.float64), places


def lifted(
    scores: Tensor, places: Places, config: Settings, entries: int = 2**20, device: str = "cpu"
) -> Tensor:
    query, gallery = places.query.to(device), places.gallery.to(device)
    return TLift(config, entries).lift(scores.clone().to(device), query, gallery).cpu()


def temporal(scores: Tensor, places: Places, config: Settings) -> Tensor:
    """p [Q, G], by lifting similarities that say the same of who is near: alpha is 0, s is 1 or
    close to it."""
    flat = 1 + 1e-6 * scores
    return lifted(flat, places, attrs.evolve(config, alpha=0.0)) / flat


def places_of(vectors: Vectors) -> Places:
    sides = [meta(vectors.input(f"{s}_cam"), vectors.input(f"{s}_time")) for s in ("prob", "gal")]
    return Places(*sides)


def config_of(vectors: Vectors, case: str, **more) -> Settings:
    tau, sigma, k, alpha = vectors.input(f"{case}_params").tolist()
    return Settings(tau=tau, sigma=sigma, k=int(k), alpha=alpha, **more)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "name", ["default_and_settings", "ties", "float32", "query_camera_not_in_gallery"]
)
def test_equals_the_authors_code(name, device):
    """Lifted similarities, temporal probabilities and the number of nearby queries, for many
    settings, with ties, in float32, and with queries of a camera above all of the gallery's."""
    with oracle(f"qaconv/tlift_{name}") as vectors:
        scores, places = vectors.input("in_score"), places_of(vectors)
        assert int(vectors.input("num_cams")) == int(places.gallery.camera.max()) + 1
        precision = str(scores.dtype).removeprefix("torch.")
        tolerance = vectors.sidecar["suggested_tolerance"][precision]
        for case in [array.removesuffix("_params") for array in vectors.names("s*_params")]:
            config = config_of(vectors, case, skip_high_cameras=True)
            result = lifted(scores, places, config, device=device)
            assert result.dtype == scores.dtype
            vectors.compare(f"{case}_out", result, atol=tolerance)
            plain = lifted(scores, places, attrs.evolve(config, alpha=0.0), device=device)
            vectors.compare(f"{case}_pt", plain / scores, atol=tolerance)
            nearby = nearby_queries(places.query.to(device), config.tau)
            vectors.compare(f"{case}_num_nearby", nearby.count.cpu())


@pytest.mark.oracle
def test_a_camera_without_gallery_pictures_is_skipped(device):
    """Its number is among the gallery's, and queries are from it; the authors' code fails there."""
    with oracle("qaconv/tlift_empty_gallery_camera") as vectors:
        scores, places = vectors.input("in_score"), places_of(vectors)
        held = set(places.gallery.camera.tolist())
        assert set(range(int(vectors.input("num_cams")))) - held & set(places.query.camera.tolist())
        assert vectors.input("authors_code_raises_IndexError").all()
        tolerance = vectors.sidecar["suggested_tolerance"]["float64"]
        for case in [array.removesuffix("_params") for array in vectors.names("s*_params")]:
            result = lifted(scores, places, config_of(vectors, case), device=device)
            vectors.compare(f"{case}_out", result, atol=tolerance)


def rank1_and_map(distances: Tensor, ids: tuple[Tensor, Tensor], places: Places) -> list[float]:
    """Rank-1 and the mean area under precision and recall by trapezoids (Market-1501's rules)."""
    first, areas = [], []
    for q, row in enumerate(distances.double()):
        match = ids[1] == ids[0][q]
        kept = ~(match & (places.gallery.camera == places.query.camera[q]))
        values, hits = row[kept], match[kept].double()
        if not hits.any():
            continue
        first.append(float(hits[values.argmin()]))
        shown = [values <= value for value in values.unique()]
        precision = [1.0, *(float(hits[seen].mean()) for seen in shown)]
        recall = [0.0, *(float(hits[seen].sum() / hits.sum()) for seen in shown)]
        mean = (np.array(precision[1:]) + precision[:-1]) / 2
        areas.append(float(mean @ np.diff(recall)))
    return [float(np.mean(first)), float(np.mean(areas))]


def stated(vectors: Vectors, array: str, *names: str) -> list[float]:
    """Settings in the words of an array's meaning, such as `tau=100`."""
    return [vectors.number(array, rf"\b{name}=([\d.]*\d)") for name in names]


@pytest.mark.oracle
def test_behind_the_reranker_it_equals_the_authors_evaluation(device):
    """Distances, re-ranked by the core's re-ranker, then lifted, with the scores of each stage."""
    with oracle("qaconv/pipeline_16_60") as vectors:
        query = meta(vectors.input("query_cams"), vectors.input("query_times"))
        gallery = meta(vectors.input("gallery_cams"), vectors.input("gallery_times"))
        ids = vectors.input("query_ids"), vectors.input("gallery_ids")
        full, queries = vectors.input("full_dist"), len(query)
        # In the authors' matrix, within a side, a row's picture is not on the query side.
        for side in (slice(0, queries), slice(queries, None)):
            full[side, side] = full[side, side].T.clone()
        vectors.compare("dist_pg", full[:queries, queries:])
        k1, k2, weight = stated(vectors, "rerank_authors", "k1", "k2", "lambda")
        tau, sigma, k, alpha = stated(vectors, "tlift_score_authors", "tau", "sigma", "K", "alpha")
        lifting = TLift(Settings(tau=tau, sigma=sigma, k=int(k), alpha=alpha))
        tolerance = vectors.sidecar["suggested_tolerance"]
        for half, precision, kind, atol in (
            (False, torch.float64, "float64", tolerance["vs float64"]),
            (True, torch.float32, "authors", tolerance["rerank/tlift vs authors"]),
        ):
            there = full.to(precision).to(device)
            ranking = Matrix(query.to(device), gallery.to(device), full=there)
            plain = ranking.between("query", "gallery", 0, queries).clone()
            config = core.Rerank(k1=int(k1), k2=int(k2), weight=weight, variant="qaconv", half=half)
            reranked = Rerank(config)(plain.clone(), ranking)
            vectors.compare(f"rerank_{kind}", reranked.cpu(), atol=atol)
            result = lifting(reranked.clone(), ranking)
            vectors.compare(f"tlift_score_{kind}", 1 - result.cpu(), atol=atol)
        # Scores are those of the authors' half precision, whose ties and neighbours count.
        for stage, distances in (("qaconv", plain), ("rerank", reranked), ("rerank_tlift", result)):
            found = rank1_and_map(distances.cpu(), ids, Places(query, gallery))
            vectors.compare(f"rank1_map_{stage}", found, atol=1e-6)
        vectors.inputs_only("prob_fea", "gal_fea", *vectors.names("*bn_*"), *vectors.names("fc_*"))


CONFIGS = [
    {},
    {"tau": 1e-3},
    {"tau": 1e6, "k": 3},
    {"k": 1, "alpha": 0.0},
    {"k": 10_000},
    {"sigma": 5.0, "alpha": 1.5},
    {"skip_same_camera": True},
    {"skip_high_cameras": True},
]


def random_places() -> tuple[Tensor, Places]:
    return drawn()


def tied() -> tuple[Tensor, Places]:
    """Six different similarities and eleven different times."""
    scores, places = drawn(seed=1)
    sides = (meta(one.camera, one.time.div(150).round() * 150) for one in vars_of(places))
    return scores.mul(5).round() / 5, Places(*sides)


def duplicated() -> tuple[Tensor, Places]:
    """Every picture of either side is there three times."""
    scores, places = drawn(10, 30, seed=2)
    return scores.repeat(3, 3), Places(*(repeated(one, 3) for one in vars_of(places)))


def one_camera() -> tuple[Tensor, Places]:
    return drawn(20, 60, cameras=1, seed=3)


def equal() -> tuple[Tensor, Places]:
    """All pairs are as good as each other."""
    scores, places = drawn(12, 70, seed=4)
    return torch.zeros_like(scores), places


def few() -> tuple[Tensor, Places]:
    """Cameras with a picture or none, and queries of cameras that the gallery lacks."""
    scores, places = drawn(9, 5, cameras=7, seed=5)
    return scores, Places(meta(places.query.camera + 1, places.query.time), places.gallery)


def crowded() -> tuple[Tensor, Places]:
    """More pictures of a camera than are looked at one by one."""
    return drawn(6, 500, cameras=2, seed=6)


def since_1970() -> tuple[Tensor, Places]:
    scores, places = drawn(seed=7)
    sides = (meta(one.camera, one.time + 1.8e9) for one in vars_of(places))
    return scores, Places(*sides)


def vars_of(places: Places) -> tuple[Meta, Meta]:
    return places.query, places.gallery


def repeated(one: Meta, times: int) -> Meta:
    return meta(one.camera.repeat(times), one.time.repeat(times))


CASES = [random_places, tied, duplicated, one_camera, equal, few, crowded, since_1970]
every_case = pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)


@every_case
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_equals_loops(make, config):
    """In float64 to rounding, and in float32 to its, whatever the size of the blocks."""
    scores, places = make()
    config = Settings(**config)
    expected = by_loops(scores, places, config)
    for entries in (1, 2**20):
        result = lifted(scores, places, config, entries)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    single = lifted(scores.float(), places, config)
    expected = by_loops(scores.float(), places, config)
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=2e-6)


@every_case
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_what_a_shortlist_leaves_out_is_no_pivot(make, config):
    """Whatever stands there, the others are lifted by the votes of scored pairs alone; a camera
    without any has no vote."""
    scores, places = make()
    draw = torch.Generator().manual_seed(10)
    config = Settings(**config)
    for listed in (0, 1, 7):
        chosen = torch.rand(scores.shape, generator=draw).argsort(1)[:, :listed]
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, chosen, True)
        known = attrs.evolve(places, mask=mask)
        expected = by_loops(scores, known, config)[mask]
        for hidden in (0.0, 1.0):
            given = 1 - scores.where(mask, hidden)
            for entries in (1, 2**20):
                found = 1 - TLift(config, entries)(given.clone(), known)[mask]
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@every_case
@pytest.mark.parametrize("config", [{}, {"k": 3, "tau": 400.0}], ids=str)
def test_the_order_of_pictures_does_not_matter(make, config):
    """Queries and gallery in another order give the same in that order."""
    scores, places = make()
    draw = torch.Generator().manual_seed(9)
    rows, columns = (torch.randperm(size, generator=draw) for size in scores.shape)
    mixed = Places(places.query[rows], places.gallery[columns])
    config = Settings(**config)
    there = lifted(scores, places, config)[rows][:, columns]
    torch.testing.assert_close(
        lifted(scores[rows][:, columns], mixed, config), there, rtol=0, atol=1e-14
    )


@every_case
def test_cameras_do_not_see_each_other(make):
    """Another camera's gallery pictures, and their similarities, change nothing."""
    scores, places = make()
    mine = places.gallery.camera == places.gallery.camera[0]
    alone = Places(places.query, places.gallery[mine])
    expected = lifted(scores, places, Settings())[:, mine]
    torch.testing.assert_close(lifted(scores[:, mine], alone, Settings()), expected)


def test_probabilities_lie_between_0_and_1():
    """Also where all pivots are at the picture's own time, and where they are days away."""
    for make in CASES:
        scores, places = make()
        found = temporal(scores, places, Settings())
        assert found.min() >= 0 and found.max() <= 1 + 1e-12
    query = meta(torch.zeros(2).long(), torch.tensor([0.0, 1e6]))
    gallery = meta(torch.zeros(3).long(), torch.tensor([0.0, 0.0, 1e6]))
    scores = torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.1, 0.9]], dtype=torch.float64)
    found = temporal(scores, Places(query, gallery), Settings(k=1))
    torch.testing.assert_close(found.float(), torch.tensor([[1.0, 1, 0], [0, 0, 1]]))


def test_people_who_walk_together_vote_for_each_other():
    """Of two people of equal looks, the one who arrives with the query's companion is lifted; the
    query's own second camera and a companion who came too late do not help."""
    query = meta(torch.tensor([0, 0]), torch.tensor([10.0, 15.0]))
    gallery = meta(torch.tensor([1, 1, 1]), torch.tensor([300.0, 4000.0, 303.0]))
    scores = torch.tensor([[0.5, 0.5, 0.1], [0.1, 0.1, 0.9]], dtype=torch.float64)
    config = Settings(k=1, alpha=0.0)
    result = lifted(scores, Places(query, gallery), config)
    assert result[0, 0] > 0.49 and result[0, 1] < 1e-9
    late = meta(query.camera, torch.tensor([10.0, 110.0]))
    result = lifted(scores, Places(late, gallery), config)
    assert result[0, 0] == pytest.approx(result[0, 1])
    other = meta(torch.tensor([0, 1]), query.time)
    result = lifted(scores, Places(other, gallery), config)
    assert result[0, 0] == pytest.approx(result[0, 1])


@pytest.mark.parametrize("apart", [100.0, 100.0 + 1e-9, 100.0 - 1e-9, 0.3])
@pytest.mark.parametrize("start", [0.0, 0.3, 1.8e9, -77.7])
def test_nearby_is_less_than_tau(start, apart):
    """Exactly as |t_B - t_A| < tau computes it, at the bound and beside it."""
    times = torch.tensor([start, start + apart], dtype=torch.float64)
    expected = 1 + int((times[1] - times[0]).abs() < 100.0)
    nearby = nearby_queries(meta(torch.zeros(2).long(), times), 100.0)
    assert nearby.count.tolist() == [expected] * 2


def test_leading_entries_are_all_there():
    """At least `count` of each row, with all that are equal to the last of them, each once."""
    draw = torch.Generator().manual_seed(0)
    for width, count, levels in ((5, 10, 3), (40, 10, 4), (900, 10, 2000), (900, 10, 12)):
        scores = torch.randint(levels, (6, width), generator=draw).float()
        values, columns = leading(scores, count)
        for row, found, where in zip(scores, values, columns, strict=True):
            least = row.sort(descending=True).values[min(count, width) - 1]
            where = where[found > -torch.inf]
            assert len(where.unique()) == len(where)
            assert set((row >= least).nonzero()[:, 0].tolist()) <= set(where.tolist())
            assert torch.equal(row[where], found[found > -torch.inf])


def distances_of(scores: Tensor) -> Tensor:
    return (1 - scores).float()


def test_distances_are_one_minus_lifted_similarities():
    """In place, in float32, below 0 where alpha lifts beyond 1, and in [0, 1] where it is 0."""
    scores, places = drawn()
    distances = distances_of(scores)
    result = TLift(Settings())(distances, places)
    assert result.dtype == torch.float32 and result.data_ptr() == distances.data_ptr()
    expected = 1 - by_loops(scores, places, Settings())
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-6)
    result = TLift(Settings(alpha=3.0))(distances_of(scores), places)
    assert -3 <= result.min() < 0
    result = TLift(Settings(alpha=0.0))(distances_of(scores), places)
    assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("score_scale", [10.0, 3.0])
def test_sharpened_similarities_are_those_of_the_logits(score_scale):
    """Behind sigmoid(z / score_scale) a sharpness of score_scale lifts sigmoid(z)."""
    scores, places = drawn()
    logits = 16 * scores - 12
    distances = torch.sigmoid(-logits / score_scale)
    result = TLift(Settings(sharpness=score_scale))(distances, places)
    expected = 1 - by_loops(torch.sigmoid(logits), places, Settings())
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prior", [0.9, 0.01, 1e-6])
@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_a_prior_changes_the_odds_of_every_pair(prior, sharpness):
    """The odds of a match are those of equally many right and wrong pairs, sharpened, times the
    prior's."""
    scores, places = drawn()
    odds = (scores / (1 - scores)) ** sharpness * prior / (1 - prior)
    result = TLift(Settings(prior=prior, sharpness=sharpness))(distances_of(scores), places)
    expected = 1 - by_loops(odds / (1 + odds), places, Settings())
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=2e-6)


def test_certain_distances_stay_so_when_they_are_sharpened():
    """0 and 1, and what rounding puts beyond them."""
    scores, places = drawn(3, 4)
    distances = distances_of(scores)
    distances[0] = torch.tensor([0.0, 1.0, -5e-7, 1 + 5e-7])
    sharp = torch.sigmoid(10 * torch.logit(scores))
    sharp[0] = torch.tensor([1.0, 0.0, 1.0, 0.0])
    result = TLift(Settings(sharpness=10.0))(distances, places)
    expected = 1 - by_loops(sharp, places, Settings())
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-5)


def test_empty_sides_stay_empty():
    none = meta(torch.zeros(0).long(), torch.zeros(0))
    _, places = drawn(3, 4)
    for ranking in (Places(none, places.gallery), Places(places.query, none)):
        shape = (len(ranking.query), len(ranking.gallery))
        assert TLift(Settings())(torch.zeros(shape), ranking).shape == shape


@pytest.mark.parametrize("value", [-1e-3, 1.001, float("nan")])
def test_distances_outside_the_promise_are_refused(value):
    """Rounding is not."""
    scores, places = drawn(6, 8)
    distances = distances_of(scores)
    distances[0, 0], distances[1, 1] = -5e-7, 1 + 5e-7
    TLift(Settings())(distances.clone(), places)
    distances[2, 3] = value
    with pytest.raises(PluginError, match=r"needs distances in \[0, 1\], but .* gives"):
        TLift(Settings())(distances, places)


@pytest.mark.parametrize("side", ["query", "gallery"])
@pytest.mark.parametrize("column", ["time", "camera"])
def test_pictures_without_time_or_camera_are_refused(side, column):
    scores, places = drawn(6, 8)
    one = getattr(places, side)
    getattr(one, column)[[1, 2]] = -1 if column == "camera" else torch.nan
    with pytest.raises(DataError) as error:
        TLift(Settings())(distances_of(scores), places)
    assert f"the {column} of every picture, but 2 of {len(one)} {side} pictures" in str(error.value)


def test_wiring():
    """It asks for cameras, times and distances in [0, 1], and promises these where alpha is 0."""
    given = Given((1, 1), test_columns=frozenset({"camera", "time"}), unit=True)
    assert Settings().check(given) is False
    assert Settings(alpha=0).check(given) is True
    for missing, text in (("camera", "column camera"), ("time", "column time")):
        left = attrs.evolve(given, test_columns=given.test_columns - {missing})
        with pytest.raises(WiringError, match=text):
            Settings().check(left)
    with pytest.raises(WiringError, match="unbounded"):
        Settings().check(attrs.evolve(given, unit=False))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@every_case
def test_a_gpu_gives_the_same(make):
    scores, places = make()
    there = Places(*(one.to("cuda") for one in vars_of(places)))
    for precision, atol in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        here = lifted(scores.to(precision), places, Settings())
        found = lifted(scores.to("cuda", precision), there, Settings())
        torch.testing.assert_close(found.cpu(), here, rtol=0, atol=atol)
