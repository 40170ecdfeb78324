"""The mutual-guided distance, `ipad.mutual`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from plugins.ipad.tests.ipad_branches import compression_of, controller_of
from reid_ipad import mutual
from reid_ipad.mutual import Mutual, build_mutual
from reid_ipad.settings_matchers import Mutual as Settings
from reidcore.api import Feature, Given, WiringError
from reidcore.modules import Context, Template
from tests.oracles import Vectors, oracle

NORMS = ("none", "pre", "post")
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
VIEWS = ("plain", "flip")


def given(length: int, filters: int, views=("plain",)) -> Given:
    features = {"x.vector": Feature.vector(length), "x.kernel": Feature.tensor(filters, length)}
    return Given((8, 8), features=features, views=views)


def build(length: int, filters: int | None = None, views=("plain",), **settings) -> Mutual:
    config = Settings(feature="x.vector", kernel="x.kernel", **settings)
    seen = given(length, filters or length, views)
    config.describe(seen)
    return build_mutual(config, Context(seen, "mutual"))


def of(matcher: Mutual, *views: tuple[Tensor, Tensor]) -> Template:
    """The stored template of pictures whose views have these kernels and vectors."""
    return matcher.merge(
        [matcher.template({"x.kernel": kernel, "x.vector": vector}) for kernel, vector in views]
    )


def pictures(
    count: int, filters: int = 5, length: int = 5, seed: int = 0, dtype=torch.float64
) -> tuple[Tensor, Tensor]:
    """Kernels of Frobenius length 1 and vectors, neither negative, as the heads give them."""
    draw = torch.Generator().manual_seed(seed)
    kernels = torch.rand(count, filters, length, generator=draw, dtype=torch.float64)
    kernels /= kernels.flatten(1).norm(dim=1)[:, None, None]
    vectors = torch.rand(count, length, generator=draw, dtype=torch.float64)
    return kernels.to(dtype), vectors.to(dtype)


def but_near(array: np.ndarray) -> np.ndarray:
    """The distances without those of a nearly equal pair, which are compared on their own."""
    return np.where(array < 1e-5, 0, array)


@pytest.mark.oracle
@pytest.mark.parametrize("tile", [(1, 1), (2, 3), mutual.CACHED])
def test_distances_equal_the_transcription(tile, monkeypatch):
    """Equation 3 under every norm, with exact and near duplicates, a zero vector, one kernel for
    all and the identity, in tiles of several sizes."""
    monkeypatch.setattr(mutual, "CACHED", tile)
    with oracle("ipad/mutual_distance") as vectors:
        queries = vectors.input("a_Kq"), vectors.input("a_fq")
        gallery = vectors.input("a_Kg"), vectors.input("a_fg")
        length = queries[1].shape[1]
        words = r"j=(\d+) nearly duplicates query \d+", r"nearly duplicates query (\d+)"
        near_by, query = (int(vectors.number("a_fg", pattern)) for pattern in words)
        for norm in NORMS:
            for dtype, close, near in (
                (torch.float64, CLOSE, 1e-9),
                (torch.float32, {"rtol": 2e-5, "atol": 2e-6}, 1e-6),
            ):
                matcher = build(length, feature_norm=norm)
                a, b = (
                    of(matcher, (kernels.to(dtype), values.to(dtype)))
                    for kernels, values in (queries, gallery)
                )
                found = matcher.distance(a, b)
                assert found.dtype == dtype
                vectors.compare(f"a_d_{norm}", found, **close, through=but_near)
                vectors.compare(f"a_d_{norm}", found, rtol=close["rtol"], atol=max(near, 2e-6))
                twin = vectors.arrays[f"a_d_{norm}"][query, near_by]
                assert abs(float(found[query, near_by]) - twin) <= near
        matcher = build(length)
        a = of(matcher, queries)
        vectors.compare("a_dqq_none", matcher.distance(a, a), **CLOSE)
        identity = torch.eye(length, dtype=torch.float64)
        for name, kernel in (("a_d_constK", queries[0][0]), ("a_d_eye", identity)):
            a, b = (
                of(matcher, (kernel.expand(len(values), -1, -1), values))
                for values in (queries[1], gallery[1])
            )
            vectors.compare(name, matcher.distance(a, b), rtol=1e-9, atol=1e-9)
        whole_branch(vectors)


def whole_branch(vectors: Vectors) -> None:
    """From backbone maps of two views to distances, by mean parts and by equal views."""
    for kind, norm in product(("relu", "lin"), ("filter", "frobenius")):
        sides: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for side, view in product("qg", (0, 1)):
            maps = vectors.input(f"b_X{side}{view}")
            values = compression_of(vectors, "b")(maps).mean((2, 3))
            vectors.compare(f"b_f{side}{view}", values, rtol=1e-10, atol=1e-12)
            controller = controller_of(
                vectors, "b", values.shape[1], tuple(maps.shape[2:]), kind == "relu", norm
            )
            kernels = controller(maps)
            vectors.compare(f"b_K{side}{view}_{kind}_{norm}", kernels, rtol=1e-10, atol=1e-12)
            sides.setdefault(side, []).append((kernels.detach(), values.detach()))
        length = values.shape[1]
        for feature_norm in NORMS:
            one, both = (
                build(length, feature_norm=feature_norm, views=v) for v in (("plain",), VIEWS)
            )
            a, b = (of(one, sides[side][0]) for side in "qg")
            vectors.compare(f"b_d_{kind}_{norm}_{feature_norm}", one.distance(a, b), **CLOSE)
            a, b = (of(both, *sides[side]) for side in "qg")
            vectors.compare(
                f"b_dflip_parts_{kind}_{norm}_{feature_norm}", both.distance(a, b), **CLOSE
            )
        if f"b_dflip_matched_{kind}_{norm}_none" in vectors.arrays:
            matched = build(length, flip_mode="matched", views=VIEWS)
            a, b = (of(matched, *sides[side]) for side in "qg")
            vectors.compare(f"b_dflip_matched_{kind}_{norm}_none", matched.distance(a, b), **CLOSE)


def naive(kernels_i, vector_i, kernels_j, vector_j, norm: str) -> float:
    """Equation 3 of one pair in single numbers."""

    def unit(values: list[float]) -> list[float]:
        length = sum(value**2 for value in values) ** 0.5
        return [value / max(length, 1e-12) for value in values]

    def times(kernel, vector) -> list[float]:
        vector = unit(vector.tolist()) if norm == "pre" else vector.tolist()
        found = [sum(k * v for k, v in zip(row, vector, strict=True)) for row in kernel.tolist()]
        return unit(found) if norm == "post" else found

    x, y = times(kernels_i, vector_j), times(kernels_j, vector_i)
    return sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) ** 0.5


@pytest.mark.parametrize("tile", [(1, 1), (2, 2), mutual.CACHED])
@pytest.mark.parametrize("norm", NORMS)
def test_distances_equal_a_loop_over_pairs(norm, tile, monkeypatch):
    """Tiled and differentiable distances are the definition's, with more filters than channels and
    a zero vector."""
    monkeypatch.setattr(mutual, "CACHED", tile)
    matcher = build(4, 6, feature_norm=norm)
    queries, gallery = pictures(3, 6, 4), pictures(5, 6, 4, seed=1)
    gallery[1][2] = 0
    expected = torch.tensor(
        [
            [naive(*queries_i, *gallery_j, norm) for gallery_j in zip(*gallery, strict=True)]
            for queries_i in zip(*queries, strict=True)
        ],
        dtype=torch.float64,
    )
    a, b = of(matcher, queries), of(matcher, gallery)
    torch.testing.assert_close(matcher.distance(a, b), expected, rtol=1e-10, atol=1e-12)
    a["vector"].requires_grad_()
    found = matcher.distance(a, b)
    assert found.requires_grad
    torch.testing.assert_close(found.detach(), expected, rtol=1e-10, atol=1e-12)


def orthogonal(size: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))[0]


CHANGES: dict[str, tuple[Callable, float]] = {
    "kernels times 3": (lambda k, f: (3 * k, f), 3),
    "vectors times 5": (lambda k, f: (k, 5 * f), 5),
    "filters turned": (lambda k, f: (orthogonal(5, 3) @ k, f), 1),
    "channels turned": (lambda k, f: (k @ orthogonal(5, 4).T, f @ orthogonal(5, 4).T), 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_leaves_distances_and_what_scales_them(change):
    """Scaling all kernels or all vectors scales distances; one orthogonal matrix before all
    filters, or through all channels, leaves them."""
    make, factor = CHANGES[change]
    matcher = build(5)
    queries, gallery = pictures(4), pictures(6, seed=1)
    before = matcher.distance(of(matcher, queries), of(matcher, gallery))
    after = matcher.distance(of(matcher, make(*queries)), of(matcher, make(*gallery)))
    torch.testing.assert_close(after, factor * before, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_distances_are_symmetric_and_zero_for_duplicates(norm, dtype):
    matcher = build(5, feature_norm=norm)
    a = of(matcher, pictures(6, dtype=dtype))
    b = of(matcher, pictures(7, seed=1, dtype=dtype))
    there, back = matcher.distance(a, b), matcher.distance(b, a)
    torch.testing.assert_close(there, back.T, rtol=1e-5, atol=1e-7)
    own = matcher.distance(a, a)
    assert own.diagonal().max() < torch.finfo(dtype).eps < there.min()


def test_one_kernel_for_all_is_a_linear_map():
    """The same kernel everywhere gives |K (f_j - f_i)|, the identity Euclidean distances."""
    matcher = build(5)
    (kernel, *_), vectors = pictures(6)
    for one in (kernel, torch.eye(5, dtype=torch.float64)):
        a = of(matcher, (one.expand(6, -1, -1), vectors))
        mapped = vectors @ one.T
        torch.testing.assert_close(
            matcher.distance(a, a), torch.cdist(mapped, mapped), rtol=1e-9, atol=1e-7
        )


def test_the_triangle_inequality_can_fail():
    """Pictures are farther apart than by way of a third, so that indices for metric spaces would
    miss matches."""
    matcher = build(5)
    a = of(matcher, pictures(30))
    found = matcher.distance(a, a)
    detour = (found[:, :, None] + found[None]).amin(1)
    assert (found - detour).max() > 0.01


def test_near_duplicates_are_told_apart_in_float32():
    """Planted distances down to 1e-6 of the length of what is compared keep three digits or an
    absolute error at rounding; the expanded square would lose them."""
    kernels, vectors = pictures(1, 64, 64)
    vectors = vectors.repeat(4, 1)
    draw = torch.randn(3, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for row, size in enumerate((1e-2, 1e-4, 1e-6), start=1):
        vectors[row] += size * draw[row - 1]
    kernels = kernels.repeat(4, 1, 1)
    matcher = build(64)
    exact = of(matcher, (kernels, vectors))
    single = {key: value.float() for key, value in exact.items()}
    expected, found = matcher.distance(exact, exact), matcher.distance(single, single)
    length = (kernels[0] @ vectors[0]).norm()
    assert (found - expected).abs().max() < 1e-6 * length
    assert float(found[0, 2]) == pytest.approx(float(expected[0, 2]), rel=0.02)


def test_unit_products_are_told_apart_in_float32():
    """With post, a distance of 6e-5 between unit vectors is right to 1e-7, where 2 - 2 cos in
    float32 would be off by 7e-4."""
    kernels, vectors = pictures(1, 64, 64)
    other = vectors + 1e-3 * pictures(1, 64, 64, seed=2)[1]
    matcher = build(64, feature_norm="post")
    a, b = of(matcher, (kernels, vectors)), of(matcher, (kernels, other))
    expected = matcher.distance(a, b)
    single = [{key: value.float() for key, value in side.items()} for side in (a, b)]
    assert 1e-6 < expected.item() < 1e-4
    assert matcher.distance(*single).item() == pytest.approx(expected.item(), abs=3e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_equal_finite_differences(norm):
    """Of kernels and vectors; pictures that are exactly equal get none instead of NaN."""
    matcher = build(3, 4, feature_norm=norm)
    kernels, vectors = pictures(3, 4, 3)

    def distances(kernels: Tensor, vectors: Tensor) -> Tensor:
        a = matcher.template({"x.kernel": kernels, "x.vector": vectors})
        return matcher.distance(a, a)[~torch.eye(3, dtype=torch.bool)]

    inputs = kernels.clone().requires_grad_(), vectors.clone().requires_grad_()
    assert torch.autograd.gradcheck(distances, inputs)
    a = matcher.template(
        {"x.kernel": inputs[0][[0, 0]], "x.vector": inputs[1][[0, 0]]}
    )  # twice the same picture
    matcher.distance(a, a).sum().backward()
    assert all(value.grad.isfinite().all() for value in inputs)


@pytest.mark.parametrize(
    ("store", "median", "worst"), [("float16", 2e-4, 2e-3), ("bfloat16", 2e-3, 2e-2)]
)
def test_kernels_stored_in_16_bits(store, median, worst):
    """Half the memory; distances stay float32 and nearly what they are, in tiles too."""
    plain, small = build(64), build(64, store=store)
    a, b = pictures(20, 64, 64, dtype=torch.float32), pictures(30, 64, 64, 1, torch.float32)
    expected = plain.distance(of(plain, a), of(plain, b))
    kept = of(small, a), of(small, b)
    promised = Settings(feature="x.vector", kernel="x.kernel", store=store).describe(given(64, 64))
    for side in kept:
        assert {key: str(value.dtype) for key, value in side.items()} == {
            key: f"torch.{spec.dtype}" for key, spec in promised.template.items()
        }
    found = small.distance(*kept)
    assert found.dtype == torch.float32
    relative = ((found - expected) / expected).abs()
    assert 0 < relative.median() < median and relative.max() < worst


def test_views_are_averaged_by_parts_or_matched():
    """parts: the mean over all four pairs of views; matched: over both equal ones. Means of kernels
    are not normalised again."""
    views = [pictures(3, seed=seed) for seed in (0, 1)]
    others = [pictures(4, seed=seed) for seed in (2, 3)]

    def mean(pairs) -> Tensor:
        """|mean of K_i^u f_j^v - K_j^v f_i^u over pairs of views|."""
        total = sum(
            torch.einsum("aoc,bc->abo", views[u][0], others[v][1])
            - torch.einsum("boc,ac->abo", others[v][0], views[u][1])
            for u, v in pairs
        )
        return (total / len(pairs)).norm(dim=2)

    for mode, pairs in (("parts", product((0, 1), (0, 1))), ("matched", ((0, 0), (1, 1)))):
        matcher = build(5, views=VIEWS, flip_mode=mode)
        a, b = of(matcher, *views), of(matcher, *others)
        torch.testing.assert_close(
            matcher.distance(a, b), mean(list(pairs)), rtol=1e-10, atol=1e-12
        )
        promised = Settings(feature="x.vector", kernel="x.kernel", flip_mode=mode)
        for key, spec in promised.describe(given(5, 5, VIEWS)).template.items():
            assert a[key].shape[1:] == spec.shape
        # Query expansion merges pictures, not views.
        twice = matcher.merge([a, {key: 3 * value for key, value in a.items()}])
        torch.testing.assert_close(twice["kernel"], 2 * a["kernel"])


def test_the_plan_states_the_costs_of_the_paper():
    """FLOP of a pair and bytes of a picture, persons and vehicles."""
    for length, flops, size in ((128, 65_920, 66_048), (256, 262_912, 263_168)):
        promised = Settings(feature="x.vector", kernel="x.kernel").describe(given(length, length))
        assert promised.pair_flops == flops and promised.pair_bytes == 8
        assert sum(spec.bytes for spec in promised.template.values()) == size
        assert promised.symmetric and not promised.unit


def test_a_kernel_of_another_head_is_refused():
    with pytest.raises(WiringError, match=r"is 6x4, but 'x.vector' of length 5 needs filters x 5"):
        features = {"x.vector": Feature.vector(5), "x.kernel": Feature.tensor(6, 4)}
        config = Settings(feature="x.vector", kernel="x.kernel")
        config.describe(Given((8, 8), features=features))


def test_figure_6():
    """The Euclidean distance of the vectors and the mutual-guided one, of a pair of pictures."""
    matcher = build(5)
    (kernels, vectors), (others, more) = pictures(1), pictures(1, seed=1)
    a, b = of(matcher, (kernels, vectors)), of(matcher, (others, more))
    table = matcher.explain(a, b)["distances"]
    after = naive(kernels[0], vectors[0], others[0], more[0], "none")
    before = (vectors - more).norm().item()
    assert table.columns == ("before", "after")
    assert table.rows == ((pytest.approx(before), pytest.approx(after)),)


@pytest.mark.parametrize("norm", NORMS)
def test_graphs_have_the_distances_of_tiles(norm, monkeypatch):
    """What is traced for export, one product for all pairs, beside the tiles of an evaluation."""
    matcher = build(6, 5, feature_norm=norm)
    matcher.eval()
    draw = torch.Generator().manual_seed(0)
    a, b = (
        {
            "kernel": torch.randn(count, 5, 6, generator=draw),
            "vector": torch.randn(count, 6, generator=draw),
        }
        for count in (4, 9)
    )
    tiled = matcher.distance(a, b)
    monkeypatch.setattr(mutual, "is_exporting", lambda: True)
    torch.testing.assert_close(matcher.distance(a, b), tiled, rtol=1e-5, atol=1e-6)
