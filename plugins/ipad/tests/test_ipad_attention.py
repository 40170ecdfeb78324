"""Self-attention and co-attention in place of the dynamic layers."""

from __future__ import annotations

import math
from itertools import product

import attrs
import pytest
import torch
from torch import Tensor

from plugins.ipad.tests.ipad_branches import given_map, images_of, random_maps
from reid_ipad.attention import build_co_attention, build_self_attention
from reid_ipad.settings_heads import SelfAttention
from reid_ipad.settings_matchers import CoAttention
from reidcore.modules import Context
from tests.oracles import oracle

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def self_attention(shape: tuple[int, int, int], keys: int | None = None):
    """The head without compression: what it reads is what is attended."""
    config = SelfAttention(
        source="x.map", channels=shape[0], keys=keys, compress_widths=[], compress_last="none"
    )
    head = build_self_attention(config, Context(given_map(*shape), "own", {"map", "vector"}))
    head.compression = torch.nn.Identity()
    return head.double()


def co_attention(
    shape: tuple[int, int, int], keys: int | None = None, form="pooled_query", views=("plain",)
):
    config = CoAttention(feature="x.map", form=form, keys=keys)
    given = attrs.evolve(given_map(*shape), views=views)
    promised = config.describe(given)
    assert promised.template["map"].shape == (shape[0], len(views) * shape[1], shape[2])
    torch.manual_seed(0)
    return build_co_attention(config, Context(given, "mutual")).double()


@pytest.mark.oracle
def test_both_equal_the_transcription():
    with oracle("ipad/attention_variant") as vectors, torch.no_grad():
        maps = vectors.input("F")
        theta, phi, g = (vectors.input(f"W_{name}") for name in ("theta", "phi", "g"))
        head = self_attention(maps.shape[1:], len(theta))
        for layer, weight in ((head.theta, theta), (head.phi, phi), (head.g, g)):
            layer.weight.copy_(weight[:, :, None, None])
        found = head({"x.map": maps}, images_of(len(maps)))
        vectors.compare("self_attn_map", found["map"], **CLOSE)
        vectors.compare("self_attn_feat", found["vector"], **CLOSE)

        matcher = co_attention(maps.shape[1:], len(theta))
        matcher.theta.weight.copy_(theta)
        matcher.phi.weight.copy_(phi)
        template = matcher.merge([matcher.template({"x.map": maps})])
        of_b, of_a = matcher.attended(template, template)
        vectors.compare("co_attn_feat", of_b, **CLOSE)
        vectors.compare("co_attn_feat", of_a.transpose(0, 1), **CLOSE)
        vectors.compare("co_attn_dist", matcher.distance(template, template), **CLOSE)


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def locations(maps: Tensor) -> list[Tensor]:
    return list(maps.flatten(1).T)


def test_self_attention_equals_loops_over_locations():
    shape = (6, 3, 2)
    head, maps = self_attention(shape), random_maps(2, *shape)
    assert head.theta.out_channels == 3
    theta, phi, g = (layer.weight[:, :, 0, 0] for layer in (head.theta, head.phi, head.g))
    with torch.no_grad():
        found = head({"x.map": maps}, images_of(2))["map"]
        for picture in range(2):
            places = locations(maps[picture])
            for p, q in zip(places, locations(found[picture]), strict=True):
                weights = softmax([float((theta @ p) @ (phi @ r)) / math.sqrt(3) for r in places])
                gathered = sum(w * (g @ r) for w, r in zip(weights, places, strict=True))
                torch.testing.assert_close(q, p + gathered)


def naive_attended(looks: list[Tensor], at: list[Tensor], theta: Tensor, phi: Tensor) -> Tensor:
    """`at` pooled by the mean of what each of `looks` attends to."""
    total = torch.zeros_like(at[0])
    for one in looks:
        logits = [float((theta @ one) @ (phi @ other)) / math.sqrt(len(theta)) for other in at]
        total += sum(w * other for w, other in zip(softmax(logits), at, strict=True))
    return total / len(looks)


def test_co_attention_equals_loops_over_pairs():
    """The pooled query looks with its mean; the dense form with every location, the query's through
    theta and the gallery's through phi on both sides."""
    shape = (6, 3, 2)
    a, b = random_maps(2, *shape), random_maps(3, *shape, seed=1)
    for form in ("pooled_query", "dense"):
        matcher = co_attention(shape, form=form)
        theta, phi = matcher.theta.weight.detach(), matcher.phi.weight.detach()
        found = matcher.distance({"map": a}, {"map": b})
        for i, j in product(range(2), range(3)):
            x, y = locations(a[i]), locations(b[j])
            if form == "dense":
                of_b, of_a = naive_attended(x, y, theta, phi), naive_attended(y, x, phi, theta)
            else:
                of_b = naive_attended([sum(x) / len(x)], y, theta, phi)
                of_a = naive_attended([sum(y) / len(y)], x, theta, phi)
            assert found[i, j].item() == pytest.approx((of_b - of_a).norm().item(), rel=1e-9)


def test_without_preferences_distances_are_those_of_means():
    """Logits of 0 weigh all locations alike."""
    shape = (6, 3, 2)
    maps = random_maps(4, *shape)
    means = maps.mean((2, 3))
    for form in ("pooled_query", "dense"):
        matcher = co_attention(shape, form=form)
        torch.nn.init.zeros_(matcher.phi.weight)
        found = matcher.distance({"map": maps}, {"map": maps})
        torch.testing.assert_close(found, torch.cdist(means, means), rtol=1e-6, atol=1e-7)


def test_sizes_are_near_those_of_the_dynamic_layers():
    """524,288 weights beside the controller's 542,976, and 98,304 FLOP of a pair."""
    config = SelfAttention(source="x.map")
    head = build_self_attention(config, Context(given_map(2048, 16, 8), "own", {"vector"}))
    layers = (head.theta, head.phi, head.g)
    assert sum(layer.weight.numel() for layer in layers) == 524_288
    promised = CoAttention(feature="x.map").describe(given_map(128, 16, 8))
    assert promised.pair_flops == 98_304 and promised.symmetric
    assert not CoAttention(feature="x.map", form="dense").describe(given_map(8, 4, 2)).symmetric


def test_the_locations_of_all_views_are_weighed_together():
    shape = (6, 3, 2)
    matcher = co_attention(shape, views=("plain", "flip"))
    views = [matcher.template({"x.map": random_maps(2, *shape, seed=seed)}) for seed in (0, 1)]
    merged = matcher.merge(views)
    assert merged["map"].shape == (2, 6, 6, 2)
    torch.testing.assert_close(
        matcher.distance(merged, merged), matcher.distance(*[matcher.merge(views[::-1])] * 2)
    )
    twice = matcher.merge([merged, {"map": 3 * merged["map"]}])
    torch.testing.assert_close(twice["map"], 2 * merged["map"])
