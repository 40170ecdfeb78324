"""The core's matchers against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch

from reidcore.api import Feature, Given
from reidcore.builtin import settings
from reidcore.builtin.matchers import build_cosine, build_euclidean
from reidcore.modules import Context, Matcher

LENGTHS = {"x.a": 5, "x.b": 3}
GIVEN = Given((8, 8), features={name: Feature.vector(size) for name, size in LENGTHS.items()})

CONFIGS = [
    settings.Cosine(features=["x.a", "x.b"]),
    settings.Cosine(features=["x.a", "x.b"], each=True),
    settings.Euclidean(features=["x.a", "x.b"]),
    settings.Euclidean(features=["x.a", "x.b"], squared=True),
    settings.Euclidean(features=["x.a", "x.b"], unit="merged"),
]
ids = ["cosine", "cosine-each", "euclidean", "euclidean-squared", "euclidean-merged"]
every_matcher = pytest.mark.parametrize("config", CONFIGS, ids=ids)


def build(config) -> Matcher:
    make = build_cosine if isinstance(config, settings.Cosine) else build_euclidean
    return make(config, Context(GIVEN, "look"))


def features(count: int, seed: int, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(count, size, generator=generator, dtype=dtype)
        for name, size in LENGTHS.items()
    }


def by_loop(
    config, a: dict[str, torch.Tensor], i: int, b: dict[str, torch.Tensor], j: int
) -> float:
    def joined(side, row):
        parts = [side[name][row].tolist() for name in LENGTHS]
        if getattr(config, "each", False):
            parts = [[v / math.hypot(*part) for v in part] for part in parts]
        return [v for part in parts for v in part]

    p, q = joined(a, i), joined(b, j)
    if getattr(config, "unit", "none") != "none":
        p, q = ([v / math.hypot(*x) for v in x] for x in (p, q))
    if isinstance(config, settings.Cosine):
        dot = sum(x * y for x, y in zip(p, q, strict=True))
        return (1 - dot / math.hypot(*p) / math.hypot(*q)) / 2
    square = sum((x - y) ** 2 for x, y in zip(p, q, strict=True))
    return square if config.squared else math.sqrt(square)


@every_matcher
def test_distances_equal_a_loop_over_pairs(config):
    """Every distance equals its definition."""
    matcher = build(config)
    a, b = features(4, 0), features(6, 1)
    distances = matcher.distance(matcher.template(a), matcher.template(b))
    for i in range(4):
        for j in range(6):
            assert distances[i, j].item() == pytest.approx(by_loop(config, a, i, b, j), rel=1e-10)


@every_matcher
def test_promises_hold(config):
    """Templates and distances are as declared: shapes, float32, symmetric, and in [0, 1] where
    promised, equal and opposite vectors included."""
    matcher, promise = build(config), config.describe(GIVEN)
    x = features(7, 2, torch.float32)
    x = {name: torch.cat([value, value, -value]) for name, value in x.items()}
    template = matcher.template(x)
    assert {name: value.shape[1:] for name, value in template.items()} == {
        name: spec.shape for name, spec in promise.template.items()
    }
    assert all(value.dtype == torch.float32 for value in template.values())
    distances = matcher.distance(template, template)
    assert distances.dtype == torch.float32 and distances.isfinite().all()
    assert promise.symmetric
    torch.testing.assert_close(distances, distances.T)
    assert distances.min() >= 0
    assert promise.unit is isinstance(config, settings.Cosine)
    if promise.unit:
        assert distances.max() <= 1
        torch.testing.assert_close(distances[:7, 14:].diagonal(), torch.ones(7))


@every_matcher
def test_a_tile_is_a_part_of_the_whole(config):
    """Distances between parts of two lists are parts of the distances between the lists."""
    matcher = build(config)
    a = matcher.template(features(9, 3, torch.float32))
    b = matcher.template(features(11, 4, torch.float32))
    whole = matcher.distance(a, b)
    for rows, columns in ((slice(0, 4), slice(5, 11)), (slice(8, 9), slice(0, 1))):
        tile = matcher.distance(
            {name: value[rows] for name, value in a.items()},
            {name: value[columns] for name, value in b.items()},
        )
        torch.testing.assert_close(tile, whole[rows, columns], rtol=1e-5, atol=1e-5)


@every_matcher
def test_distances_are_float32_under_autocast(config):
    """Half precision around the matcher changes neither the type nor the values of distances."""
    matcher = build(config)
    x = features(5, 5, torch.float32)
    plain = matcher.distance(matcher.template(x), matcher.template(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = matcher.distance(matcher.template(x), matcher.template(x))
    assert cast.dtype == torch.float32 and torch.equal(plain, cast)


@pytest.mark.parametrize("each", [False, True])
def test_cosine_ignores_length(each):
    """Scaling a picture's vectors changes no cosine distance."""
    matcher = build(settings.Cosine(features=["x.a", "x.b"], each=each))
    x, y = features(4, 6), features(4, 7)
    template = matcher.template(y)
    scale = torch.tensor([[1e-6], [0.5], [3.0], [1e6]])
    scaled = {name: value * scale for name, value in x.items()}
    torch.testing.assert_close(
        matcher.distance(matcher.template(scaled), template),
        matcher.distance(matcher.template(x), template),
    )


def test_each_makes_features_weigh_the_same():
    """With `each` the scale of one feature does not matter; without, the longer one dominates."""
    x, y = features(4, 8), features(4, 9)
    larger = {"x.a": x["x.a"] * 1000, "x.b": x["x.b"]}
    for each, close in ((True, True), (False, False)):
        matcher = build(settings.Cosine(features=["x.a", "x.b"], each=each))
        template = matcher.template(y)
        one = matcher.distance(matcher.template(x), template)
        other = matcher.distance(matcher.template(larger), template)
        assert torch.allclose(one, other) is close


@every_matcher
def test_zero_vectors_have_finite_distances_and_gradients(config):
    """A vector of zeros gives no NaN, neither in the distance nor in the gradient."""
    matcher = build(config)
    x = {name: torch.zeros(2, size, requires_grad=True) for name, size in LENGTHS.items()}
    distances = matcher.distance(
        matcher.template(x), matcher.template(features(3, 10, torch.float32))
    )
    distances = distances + matcher.distance(matcher.template(x), matcher.template(x))[:, :1]
    assert distances.isfinite().all()
    distances.sum().backward()
    assert all(value.grad.isfinite().all() for value in x.values())


@every_matcher
def test_views_are_merged_before_normalisation(config):
    """Merged views score as the mean of their features does, whatever their lengths."""
    matcher = build(config)
    x, y, z = features(3, 11), features(3, 12), features(4, 13)
    merged = matcher.merge([matcher.template(x), matcher.template(y)])
    mean = matcher.template({name: (x[name] + y[name]) / 2 for name in x})
    torch.testing.assert_close(
        matcher.distance(merged, matcher.template(z)),
        matcher.distance(mean, matcher.template(z)),
        rtol=1e-5,
        atol=1e-5,
    )


def test_euclidean_distance_of_near_duplicates_is_as_exact_as_stated():
    """In float32 a distance is within 1e-3 of the vectors' norm, identical vectors included, and
    distances of a hundredth of the norm are right to 1%."""
    given = Given((8, 8), features={"x.a": Feature.vector(2048)})
    matcher = build_euclidean(settings.Euclidean(features=["x.a"]), Context(given, "look"))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(64, 2048, generator=generator)
    shift = torch.randn(64, 2048, generator=generator)
    norm = x.norm(dim=1)
    for size in (0.0, 1e-2):
        y = x + size * shift * (norm / shift.norm(dim=1))[:, None]
        actual = matcher.distance({"vector": x}, {"vector": y}).diagonal().double()
        expected = (x.double() - y.double()).norm(dim=1)
        assert ((actual - expected).abs() < 1e-3 * norm).all()
        if size:
            torch.testing.assert_close(actual, expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("unit", ["none", "merged", "views"])
def test_lengths_of_views_count_as_set(unit):
    """The mean over views, that mean at unit length, or the mean of views at unit length."""
    matcher = build(settings.Euclidean(features=["x.a", "x.b"], unit=unit))
    views, other = [features(3, seed) for seed in (0, 1)], features(4, 2)
    joined = [torch.cat([view["x.a"], view["x.b"]], 1) for view in (*views, other)]
    if unit == "views":
        joined = [one / one.norm(dim=1, keepdim=True) for one in joined]
    a, b = (joined[0] + joined[1]) / 2, joined[2]
    if unit == "merged":
        a, b = (one / one.norm(dim=1, keepdim=True) for one in (a, b))
    found = matcher.distance(
        matcher.merge([matcher.template(view) for view in views]),
        matcher.merge([matcher.template(other)]),
    )
    torch.testing.assert_close(found, (a[:, None] - b).norm(dim=2))
