"""The head `qaconv.local` and the matcher `qaconv.matcher`."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from reid_qaconv import matching
from reid_qaconv.local import Local as LocalHead
from reid_qaconv.local import build_local
from reid_qaconv.matching import (
    QAConv,
    best_matches,
    build_matcher,
    pixel_centres,
    plain_matches,
)
from reid_qaconv.settings_matching import Local, Matcher
from reidcore.api import Feature, Given, Matching, TensorSpec, WiringError
from reidcore.builtin.query_expansion import Expand
from reidcore.builtin.settings.postprocessors import Expand as Settings
from reidcore.modules import Context, Images, Meta
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.sides import Sides
from tests.oracles import Vectors, folder, oracle

PARAMETERS = ("bn_weight", "bn_bias", "fc_weight", "fc_bias", "logit_bn_weight", "logit_bn_bias")
STATISTICS = ("bn_running_mean", "bn_running_var", "logit_bn_running_mean", "logit_bn_running_var")


def oracles(pattern: str) -> list[str]:
    return sorted(f"qaconv/{path.stem}" for path in (folder() / "qaconv").glob(f"{pattern}.npz"))


def images_of(batch: int) -> Images:
    none = torch.zeros(batch, dtype=torch.int64)
    return Images(torch.zeros(batch, 3, 1, 1), none, none)


def build(shape: tuple[int, ...], image: tuple[int, int] = (1, 1), **settings) -> QAConv:
    """The matcher of maps of this shape, in float64."""
    given = Given(image, features={"x.map": Feature.map(*shape)})
    config = Matcher(feature="x.map", **settings)
    return build_matcher(config, Context(given, "pairs")).double()


def local(shape: tuple[int, ...], **settings) -> LocalHead:
    given = Given((1, 1), features={"x.map": Feature.map(*shape)})
    return build_local(Local(source="x.map", **settings), Context(given, "local", {"map"}))


def maps(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Random unit vectors at every location, float64."""
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, *shape, generator=draw, dtype=torch.float64), dim=1)


def with_random_state(matcher: QAConv, seed: int = 1) -> QAConv:
    """Parameters and running statistics that are nothing special."""
    draw = torch.Generator().manual_seed(seed)
    for value in (*matcher.parameters(), *matcher.buffers()):
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=draw, dtype=value.dtype)
            value.data.copy_(0.2 + noise)
    return matcher


def restored(vectors: Vectors, head: str) -> QAConv:
    """The matcher with an oracle's weights and statistics, evaluating."""
    stated = {}
    for array in ("score_gp", "score_pg"):
        if array in vectors.arrays:
            stated["score_scale"] = vectors.number(array, r"sigmoid\(logit/([\d.]+)\)")
    matcher = build(vectors.arrays["prob_fea"].shape[1:], head=head, **stated).eval()
    state = {
        name.replace("bn_", "bn.").replace("fc_", "fc."): vectors.input(name)
        for name in (*PARAMETERS, *STATISTICS)
    }
    missing, unexpected = matcher.load_state_dict(state, strict=False)
    assert not missing and not unexpected
    return matcher


class Seen:
    """What passes the two norms of a matcher during a call."""

    def __init__(self, matcher: QAConv, pairs: tuple[int, int]):
        matcher.bn.register_forward_hook(self.note("bn"))
        matcher.logit_bn.register_forward_hook(self.note("logit_bn"))
        self.pairs = pairs
        self.values: dict[str, tuple[Tensor, Tensor]] = {}

    def note(self, name):
        def hook(module, inputs, output):
            self.values[name] = (inputs[0], output)

        return hook

    def halves(self, after: bool) -> Tensor:
        """[2, A, B, L], gallery-indexed first, before or after the first norm."""
        return self.values["bn"][after].view(2, *self.pairs, -1)


@pytest.mark.oracle
@pytest.mark.parametrize("tile", [1, matching.CACHED])
@pytest.mark.parametrize("name", oracles("sim_v1_*"))
def test_distances_equal_version_1(name, tile, monkeypatch):
    """Every stage of the published matcher in float64 and its score in float32, with zero vectors
    and without a positive cosine, computed pair by pair and at once."""
    monkeypatch.setattr(matching, "CACHED", tile)
    with oracle(name) as vectors:
        close = {"rtol": vectors.sidecar["suggested_tolerance"]["float64"]}
        close["atol"] = close["rtol"]
        sides = {}
        for side in ("prob", "gal"):
            raw = vectors.input(f"{side}_raw")
            head = local(raw.shape[1:], channels=0)
            sides[side] = head({"x.map": raw}, images_of(len(raw)))
            vectors.compare(f"{side}_fea", sides[side]["map"], **close)
        a, b = sides["prob"], sides["gal"]
        matcher = restored(vectors, "untied")
        seen = Seen(matcher, (len(a["map"]), len(b["map"])))
        with torch.no_grad():
            logits, distances = matcher.logits(a, b), matcher.distance(a, b)
        for array, after in (("maxsim_gp", False), ("bn_out_gp", True)):
            gallery, query = seen.halves(after)
            vectors.compare(array, torch.cat([gallery, query], 2).transpose(0, 1), **close)
        vectors.compare("fc_out_gp", seen.values["logit_bn"][0].view_as(logits).T, **close)
        vectors.compare("logit_gp", logits.T, **close)
        vectors.compare("prob_unscaled_gp", logits.sigmoid().T, **close)
        vectors.compare("score_gp", 1 - distances.T, **close)
        vectors.compare("dist_pg", distances, **close)
        vectors.compare("score_swapped_pg", 1 - matcher.distance(b, a).T, **close)

        a, b = ({"map": side["map"].float()} for side in (a, b))
        score = 1 - matcher.float().distance(a, b)
        assert score.dtype == torch.float32
        tolerance = vectors.sidecar["suggested_tolerance"]["float32"]
        vectors.compare("score_gp_float32", score.T, atol=tolerance)


@pytest.mark.oracle
@pytest.mark.parametrize("name", oracles("later_v12_sim_*") + oracles("later_head_sim_*"))
def test_logits_equal_later_versions(name):
    """The best matches and logits of version 1.2, and with shared weights of the last one."""
    shared = "later_head" in name
    with oracle(name) as vectors:
        close = {"rtol": vectors.sidecar["suggested_tolerance"]["float64"]}
        close["atol"] = close["rtol"]
        a, b = ({"map": vectors.input(array)} for array in ("prob_fea", "gal_fea"))
        matcher = restored(vectors, "shared" if shared else "untied")
        seen = Seen(matcher, (len(a["map"]), len(b["map"])))
        vectors.compare("logit_pg", matcher.logits(a, b), **close)
        gallery, query = seen.halves(after=False)
        if shared:
            joined = torch.stack([query, gallery], 2).flatten(0, 2)
        else:
            joined = torch.cat([gallery, query], 2).transpose(0, 1).flatten(0, 1)
        vectors.compare("bn_input", joined.unsqueeze(1), **close)
        seen.pairs = seen.pairs[::-1]
        vectors.compare("logit_swapped_gp", matcher.logits(b, a), **close)


@pytest.mark.oracle
@pytest.mark.parametrize("name", oracles("match_v1_*"))
def test_correspondences_equal_version_1(name):
    """Indices, contributions, drawn matches and scores of the published matching script, in which
    the gallery is the kernel side."""
    with oracle(name) as vectors:
        close = {"rtol": vectors.sidecar["suggested_tolerance"]["float64"]}
        close["atol"] = close["rtol"]
        probe, gallery = ({"map": vectors.input(array)} for array in ("prob_fea", "gal_fea"))
        matcher = restored(vectors, "untied")
        of_gallery, of_probe = matcher.correspondences(gallery, probe)
        for index, score, found in (
            ("index_in_gal", "prob_score", of_probe),
            ("index_in_prob", "gal_score", of_gallery),
        ):
            vectors.compare(index, found.index.transpose(0, 1))
            vectors.compare(score, found.contribution.transpose(0, 1), **close)
        drawn = torch.zeros(of_probe.index.transpose(0, 1).shape, dtype=torch.bool)
        for i, j in product(range(len(probe["map"])), range(len(gallery["map"]))):
            pair = {"map": gallery["map"][j : j + 1]}, {"map": probe["map"][i : i + 1]}
            lines = matcher.explain(*pair)["to_query"]
            drawn[i, j] = torch.from_numpy(lines.weight > lines.above).view(drawn.shape[2:])
        vectors.compare("shown", drawn)
        vectors.compare("num_matches", drawn.sum((2, 3)))
        score = 1 - matcher.distance(gallery, probe).T
        vectors.compare("score_pg", score, **close)
        vectors.compare("evaluator_score_with_gallery_as_kernel", score, **close)


def patch(x: Tensor, row: int, column: int, size: int) -> Tensor:
    """The vectors [C, size, size] around a location of a map [C, H, W], zero beyond its border."""
    half = size // 2
    return F.pad(x, (half,) * 4)[:, row : row + size, column : column + size]


def naive_matches(a: Tensor, b: Tensor, size: int) -> tuple[list[list[float]], list[list[int]]]:
    """Of one pair: the largest responses of the gallery's and of the query's locations, and where
    they are, one product after another."""
    grid = [(row, column) for row in range(a.shape[1]) for column in range(a.shape[2])]
    products = [
        [float((patch(b, *j, size) * patch(a, *i, size)).sum()) for i in grid] for j in grid
    ]
    turned = [list(column) for column in zip(*products, strict=True)]
    values = [[max(row) for row in side] for side in (products, turned)]
    places = [[row.index(max(row)) for row in side] for side in (products, turned)]
    return values, places


def naive_norm(values: list[float], norm: torch.nn.BatchNorm1d, training: bool) -> list[float]:
    """One-channel batch normalisation, by the values themselves or by the running statistics."""
    mean, variance = norm.running_mean.item(), norm.running_var.item()
    if training:
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
    scale = norm.weight.item() / math.sqrt(variance + norm.eps)
    return [(value - mean) * scale + norm.bias.item() for value in values]


def naive_logits(matcher: QAConv, a: Tensor, b: Tensor, size: int, training: bool) -> Tensor:
    weights = matcher.fc.weight.flatten().tolist()
    shared = len(weights) == a[0, 0].numel()
    if shared:
        weights = weights * 2
    sides = [naive_matches(x, y, size)[0] for x in a for y in b]
    best = [value for gallery, query in sides for value in (*gallery, *query)]
    normed = naive_norm(best, matcher.bn, training)
    scores = []
    for start in range(0, len(normed), len(weights)):
        values = normed[start : start + len(weights)]
        score = sum(value * weight for value, weight in zip(values, weights, strict=True))
        scores.append(score + matcher.fc.bias.item() * (2 if shared else 1))
    logits = naive_norm(scores, matcher.logit_bn, training)
    return torch.tensor(logits, dtype=torch.float64).view(len(a), len(b))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("head", ["untied", "shared"])
def test_logits_equal_loops_over_locations(head, size, training):
    """Definition 3.3 word by word: patches of the query as kernels, two global maxima, both norms,
    by the batch in training, the linear layer."""
    shape = (4, 3, 4)
    matcher = with_random_state(build(shape, head=head, kernel=size)).train(training)
    a, b = maps(3, shape), maps(2, shape, seed=1)
    expected = naive_logits(matcher, a, b, size, training)
    with torch.no_grad():
        torch.testing.assert_close(
            matcher.logits({"map": a}, {"map": b}), expected, rtol=1e-9, atol=1e-10
        )


def test_statistics_are_those_of_the_whole_call(monkeypatch):
    """In training both norms see all values of all pairs once, however the pairs are tiled; the
    running variances are unbiased, with momentum 0.1."""
    shape = (4, 3, 2)
    a, b = {"map": maps(5, shape)}, {"map": maps(7, shape, seed=1)}
    x, y = (side["map"].flatten(2).transpose(1, 2) for side in (a, b))
    matchers = [with_random_state(build(shape)).train() for _ in range(2)]
    before = {name: value.clone() for name, value in matchers[0].named_buffers()}
    whole = matchers[0].logits(a, b)
    monkeypatch.setattr(matching, "CACHED", 1)
    torch.testing.assert_close(matchers[1].logits(a, b), whole, rtol=1e-12, atol=1e-12)
    best = best_matches(x, y)
    for matcher in matchers:
        for name, value in (("mean", best.mean()), ("var", best.var())):
            expected = 0.9 * before[f"bn.running_{name}"] + 0.1 * value
            torch.testing.assert_close(getattr(matcher.bn, f"running_{name}"), expected)
        assert int(matcher.bn.num_batches_tracked) == 1
        assert int(matcher.logit_bn.num_batches_tracked) == 1


def dense_logits(matcher: QAConv, a: Tensor, b: Tensor) -> Tensor:
    """The untied form from all responses at once, for automatic differentiation."""
    responses = torch.einsum("pchw,gcyx->pgyxhw", a, b)
    responses = responses.flatten(2, 3).flatten(3)
    best = torch.cat([responses.max(3).values, responses.max(2).values], 2)
    scores = matcher.fc(matcher.bn(best.flatten(0, 1).unsqueeze(1)))
    return matcher.logit_bn(scores).view(len(a), len(b))


@pytest.mark.parametrize("tile", [1, 150, matching.CACHED])
@pytest.mark.parametrize("wanted", ["query", "gallery", "both", "itself"])
def test_gradients_equal_those_of_the_dense_form(wanted, tile, monkeypatch):
    """Gradients of both sides and of all parameters through batch statistics, where responses are
    recomputed in blocks; "itself": a batch matched with itself, as pairwise losses do."""
    monkeypatch.setattr(matching, "CACHED", tile)
    shape = (5, 4, 2)
    weight = torch.rand(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def gradients(logits_of) -> list[Tensor | None]:
        matcher = with_random_state(build(shape)).train()
        a = maps(3, shape).requires_grad_(wanted != "gallery")
        b = a if wanted == "itself" else maps(3, shape, 1).requires_grad_(wanted != "query")
        (logits_of(matcher, a, b).sin() * weight).sum().backward()
        return [a.grad, b.grad, *(value.grad for value in matcher.parameters())]

    actual = gradients(lambda matcher, a, b: matcher.logits({"map": a}, {"map": b}))
    expected = gradients(dense_logits)
    assert [value is None for value in actual] == [value is None for value in expected]
    for one, other in zip(actual, expected, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pairs", [1, 2, 5, 9, 14, 100])
def test_pictures_with_themselves_are_as_with_a_copy(pairs, monkeypatch):
    """Half of the pairs are looked at, in tiles of any form; equal locations still give the
    gradient to the first."""
    shape = (4, 3, 2)
    monkeypatch.setattr(matching, "CACHED", pairs * 6**2)
    weight = torch.rand(2, 7, 7, 6, generator=torch.Generator().manual_seed(2)).double()

    def matched(copied: bool) -> tuple[Tensor, Tensor]:
        x = maps(7, shape)
        x[2], x[5, :, 0] = 0, x[5, :, 1]
        x = x.flatten(2).transpose(1, 2).contiguous().requires_grad_()
        best = best_matches(x, x.clone() if copied else x)
        (best * weight).sum().backward()
        return best.detach(), x.grad

    for own, copied in zip(matched(False), matched(True), strict=True):
        torch.testing.assert_close(own, copied, rtol=1e-12, atol=1e-12)


def test_equal_matches_give_the_gradient_to_the_first():
    """Two equal locations: the first is the match, in the index and in the gradient; and a memory
    of zeros gives the query no gradient at all."""
    x = torch.eye(3, dtype=torch.float64)[None, [0, 0, 1]].requires_grad_()
    y = torch.eye(3, dtype=torch.float64)[None, [0, 1, 2]].requires_grad_()
    gallery, _ = best_matches(x, y)
    gallery[0, 0, 0].backward()
    assert x.grad[0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    index = matching.located_matches(x, y)[1]
    assert index[:, 0, 0].tolist() == [[0, 2, 0], [0, 0, 1]]

    shape = (4, 3, 2)
    matcher = build(shape).train()
    a = maps(3, shape).requires_grad_()
    logits = matcher.logits({"map": a}, {"map": torch.zeros(5, *shape, dtype=torch.float64)})
    logits.sin().sum().backward()
    assert not a.grad.any()


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for value in found if isinstance(found, tuple | list) else [found]:
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return found


def test_responses_of_all_pairs_never_exist(monkeypatch):
    """Training and scoring hold nothing larger than the best matches of all pairs."""
    shape = (2, 8, 4)
    a = maps(12, shape).requires_grad_()
    b = maps(40, shape, seed=1)
    best = 2 * len(a) * len(b) * 32
    monkeypatch.setattr(matching, "CACHED", best // 4)
    matcher = build(shape).train()
    with Largest() as training:
        matcher.logits({"map": a}, {"map": b}).sum().backward()
    with Largest() as scoring, torch.no_grad():
        matcher.eval().distance({"map": a}, {"map": b})
    assert a.grad is not None
    assert training.elements == scoring.elements == best


def test_distances_follow_their_pictures():
    """Each pair's distance is its own: pictures in another order, or one pair alone."""
    shape = (4, 3, 2)
    matcher = with_random_state(build(shape)).eval()
    a, b = maps(4, shape), maps(6, shape, seed=1)
    distances = matcher.distance({"map": a}, {"map": b})
    order = torch.tensor([3, 0, 2, 1]), torch.tensor([5, 1, 4, 0, 3, 2])
    turned = matcher.distance({"map": a[order[0]]}, {"map": b[order[1]]})
    torch.testing.assert_close(turned, distances[order[0]][:, order[1]])
    alone = matcher.distance({"map": a[2:3]}, {"map": b[4:5]})
    torch.testing.assert_close(alone, distances[2:3, 4:5])


def test_only_shared_weights_make_distances_symmetric():
    """Untied halves see the query and the gallery differently; shared ones start as a mean."""
    shape = (4, 3, 2)
    a, b = {"map": maps(4, shape)}, {"map": maps(6, shape, seed=1)}
    shared = build(shape, head="shared")
    assert shared.fc.weight.flatten().tolist() == pytest.approx([1 / 6] * 6)
    shared, untied = with_random_state(shared).eval(), with_random_state(build(shape)).eval()
    torch.testing.assert_close(shared.distance(a, b), shared.distance(b, a).T)
    assert (untied.distance(a, b) - untied.distance(b, a).T).abs().max() > 1e-3
    given = Given((1, 1), features={"x.map": Feature.map(*shape)})
    promises = [
        Matcher(feature="x.map", head=head).describe(given) for head in ("shared", "untied")
    ]
    assert [promise.symmetric for promise in promises] == [True, False]


@pytest.mark.parametrize("scale", [10.0, 1.0])
def test_distance_is_one_minus_the_scaled_sigmoid(scale):
    """Also for logits whose sigmoid is 1 in float32: the nearest distances still differ."""
    shape = (4, 3, 2)
    matcher = with_random_state(build(shape, score_scale=scale)).float().eval()
    a, b = ({"map": maps(count, shape, count).float()} for count in (4, 6))
    logits, distances = matcher.logits(a, b), matcher.distance(a, b)
    torch.testing.assert_close(distances, 1 - torch.sigmoid(logits / scale))
    matcher.logit_bn.bias.data.fill_(20 * scale)
    near = matcher.distance(a, b)
    assert 0 < near.min() < near.max() < 1e-8
    matcher.logit_bn.bias.data.fill_(-1000 * scale)
    assert matcher.distance(a, b).eq(1).all()


def test_mixed_precision_changes_neither_maps_nor_distances():
    """Under autocast the head's maps are unit vectors in float32 and distances stay exact."""
    head = local((8, 3, 2), channels=4).eval()
    raw = torch.randn(5, 8, 3, 2, generator=torch.Generator().manual_seed(0))
    matcher = with_random_state(build((4, 3, 2))).float().eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = head({"x.map": raw}, images_of(5))["map"]
        template = matcher.template({"x.map": found})
        distances = matcher.distance(template, template)
    assert found.dtype == distances.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5, 3, 2))
    assert torch.equal(distances, matcher.distance(template, template))


def test_views_are_merged_to_unit_vectors():
    """Several views: the mean's direction at every location; a single view stays as it is."""
    shape = (4, 3, 2)
    matcher = build(shape)
    views = [{"map": maps(3, shape, seed)} for seed in (0, 1)]
    merged = matcher.merge(views)["map"]
    torch.testing.assert_close(merged, F.normalize(views[0]["map"] + views[1]["map"], dim=1))
    assert torch.equal(matcher.merge(views[:1])["map"], views[0]["map"])


def test_an_expanded_query_is_a_map_of_unit_vectors():
    """`core.expand` compares the gallery with the locations' means of a query and its neighbours,
    scaled to unit vectors, as loops over locations do."""
    shape = (6, 3, 2)
    matcher = with_random_state(build(shape)).eval()
    query, gallery = maps(2, shape, seed=3), maps(5, shape, seed=4)
    matching = Matching({"map": TensorSpec(shape, "float64")})
    none = torch.zeros(5, dtype=torch.int64)
    meta = Meta(none, none.double(), none)
    sides = {"query": {"pairs": {"map": query}}, "gallery": {"pairs": {"map": gallery}}}
    fusion = Fusion([Share("pairs", matcher, matching)])
    context = MatcherRanking(fusion, Sides(meta[:2], meta, sides))
    plain = context.between("query", "gallery", 0, 2)
    found = Expand(Settings(top=2))(plain, context)

    merged = torch.zeros_like(query)
    for row in range(2):
        order = sorted(range(5), key=lambda column: (float(plain[row, column]), column))
        views = [query[row], *(gallery[column] for column in order[:2])]
        for place in product(range(3), range(2)):
            mean = sum(view[:, *place] for view in views) / 3
            merged[row, :, *place] = mean / math.sqrt(sum(float(x) ** 2 for x in mean))
    logits = naive_logits(matcher, merged, gallery, 1, training=False)
    expected = torch.sigmoid(-logits / matcher.score_scale)
    torch.testing.assert_close(found, expected.float())


@pytest.mark.parametrize("size", [1, 3])
def test_correspondences_equal_loops_over_locations(size):
    """Both directions: the first best location, its cosine, and what it adds to the score."""
    shape = (4, 3, 2)
    matcher = with_random_state(build(shape, kernel=size)).train()
    before = {name: value.clone() for name, value in matcher.state_dict().items()}
    a, b = maps(2, shape), maps(3, shape, seed=1)
    b[1, :, 2, 1] = b[1, :, 0, 0]
    query, gallery = matcher.correspondences({"map": a}, {"map": b})
    weights = matcher.fc.weight.flatten().tolist()
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            values, places = naive_matches(x, y, size)
            for found, half in ((gallery, 0), (query, 1)):
                normed = naive_norm(values[half], matcher.bn, training=False)
                added = [v * w for v, w in zip(normed, weights[half * 6 :], strict=False)]
                assert found.index[i, j].flatten().tolist() == places[half]
                assert found.cosine[i, j].flatten().tolist() == pytest.approx(values[half])
                assert found.contribution[i, j].flatten().tolist() == pytest.approx(added)
    matcher.eval()
    total = (query.contribution + gallery.contribution).sum((2, 3)) + matcher.fc.bias
    logits = matcher.logit_bn(total.view(-1, 1)).view(2, 3)
    torch.testing.assert_close(logits, matcher.logits({"map": a}, {"map": b}))
    assert all(torch.equal(value, before[name]) for name, value in matcher.state_dict().items())


@pytest.mark.parametrize("drawn", ["contribution", "cosine"])
def test_lines_join_what_matches(drawn):
    """Both directions begin at every location and end at its match, at the right places of both
    pictures, with the numbers of the correspondences; what weighs them is a setting."""
    shape, image = (4, 3, 2), (48, 32)
    settings = {"drawn": drawn, "drawn_scale": 3.0, "drawn_above": 0.25}
    matcher = with_random_state(build(shape, image=image, **settings)).eval()
    a, b = {"map": maps(1, shape)}, {"map": maps(1, shape, seed=1)}
    explained = matcher.explain(a, b)
    directions = zip(("gallery", "query"), matcher.correspondences(a, b), strict=True)
    for towards, found in directions:
        lines = explained[f"to_{towards}"]
        assert (lines.towards, lines.above) == (towards, 0.25)
        own, other = ("query", "gallery") if towards == "gallery" else ("gallery", "query")
        for location, match in enumerate(found.index.flatten().tolist()):
            for side, index in ((own, location), (other, match)):
                y, x = (index // 2 + 0.5) / 3, (index % 2 + 0.5) / 2
                assert getattr(lines, side)[location].tolist() == pytest.approx([x, y])
                assert lines.numbers[f"{side}_index"][location] == index
                assert lines.numbers[f"{side}_pixel_x"][location] == pytest.approx(x * image[1])
                assert lines.numbers[f"{side}_pixel_y"][location] == pytest.approx(y * image[0])
        contribution = found.contribution.flatten().numpy()
        cosine = found.cosine.flatten().numpy()
        assert lines.weight == pytest.approx(cosine if drawn == "cosine" else 3 * contribution)
        assert drawn in lines.meaning and ("3" in lines.meaning) == (drawn == "contribution")
        assert lines.numbers["contribution"] == pytest.approx(contribution)
        assert lines.numbers["cosine"] == pytest.approx(cosine)


def test_pixel_centres_lie_in_the_middle_of_their_stride():
    """x before y, in row-major order; 24 x 8 locations of 384 x 128 pixels have stride 16."""
    centres = pixel_centres((24, 8), (384, 128))
    assert centres.shape == (192, 2)
    for location in (0, 7, 8, 191):
        row, column = divmod(location, 8)
        assert centres[location].tolist() == [(column + 0.5) * 16, (row + 0.5) * 16]


def test_necks_are_the_published_ones():
    """Version 1.0: 3 x 3, no bias, with normalisation, 1,179,904 parameters from layer3; 2.1 with
    bias and without normalisation; the paper's 1 x 1; and none at all."""
    sizes = {
        (): 1_179_904,
        (("bn", False), ("bias", True)): 128 * 1024 * 9 + 128,
        (("kernel", 1),): 128 * 1024 + 2 * 128,
        (("channels", 0),): 0,
    }
    for settings, expected in sizes.items():
        head = local((1024, 24, 8), **dict(settings))
        assert sum(value.numel() for value in head.parameters()) == expected, settings


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_neck_keeps_the_extents_and_normalises_each_location(kernel):
    """The map is the convolution's, over its length at each location; zero stays zero."""
    head = local((3, 5, 4), channels=6, kernel=kernel, bn=False)
    raw = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    raw[:, :, :2] = 0
    found = head({"x.map": raw}, images_of(2))["map"]
    plain = F.conv2d(raw, head.neck[0].weight, padding=kernel // 2)
    torch.testing.assert_close(found, plain / plain.norm(dim=1, keepdim=True).clamp(min=1e-12))
    assert found.shape == (2, 6, 5, 4)
    assert not found[:, :, 0].any()
    given = Given((1, 1), features={"x.map": Feature.map(3, 5, 4)})
    assert Local(source="x.map", channels=0).outputs(given) == {"map": Feature.map(3, 5, 4)}


def test_what_does_not_fit_is_refused():
    """Even kernels, kernels larger than the map, and maps of another size."""
    with pytest.raises(ValueError, match="expected an odd number, got 2"):
        Matcher(feature="x.map", kernel=2)
    given = Given((1, 1), features={"x.map": Feature.map(4, 5, 2)})
    with pytest.raises(WiringError, match=r"kernel is 3, but 'x.map' has only 5 x 2 locations"):
        Matcher(feature="x.map", kernel=3).describe(given)
    matcher = build((4, 3, 2))
    fits, larger = {"map": maps(1, (4, 3, 2))}, {"map": maps(1, (4, 2, 3))}
    for sides in ((fits, larger), (larger, fits)):
        with pytest.raises(
            ValueError, match="maps are 4x2x3, but this matcher was built for 4x3x2"
        ):
            matcher.logits(*sides)


def test_costs_are_those_of_the_published_size():
    """384 x 128 pixels: 9.44 MFLOP for a pair, 389 parameters, 96 KiB for a picture."""
    shape = (128, 24, 8)
    given = Given((384, 128), features={"x.map": Feature.map(*shape)})
    promise = Matcher(feature="x.map").describe(given)
    assert promise.pair_flops == pytest.approx(9.44e6, rel=1e-3)
    assert promise.template["map"].bytes == 96 * 1024
    assert sum(value.numel() for value in build(shape).parameters()) == 389


@pytest.mark.parametrize("shape", [(1, 1, 2, 4), (5, 3, 18, 16), (2, 7, 6, 128), (70, 80, 18, 8)])
def test_graphs_match_as_tiles_do(shape):
    """Whole numbers, whose products have no rounding: every bit is the same, however they are
    added up. (70, 80) pictures take several tiles."""
    queries, gallery, length, depth = shape
    draw = torch.Generator().manual_seed(0)
    a, b = (
        torch.randint(-9, 10, (count, length, depth), generator=draw).float()
        for count in (queries, gallery)
    )
    assert torch.equal(plain_matches(a, b), best_matches(a, b))
    a, b = F.normalize(a, dim=2), F.normalize(b, dim=2)
    torch.testing.assert_close(plain_matches(a, b), best_matches(a, b), rtol=0, atol=1e-6)
