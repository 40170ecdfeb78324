"""Attention-based pooling, global context and the head against loops and stored vectors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reid_airnet.context import GlobalContext
from reid_airnet.pool import AttentionPool, Maximum, build_pool
from reid_airnet.settings_pool import Pool as PoolSettings
from reidcore.api import BatchShape, Feature, Given, WiringError
from reidcore.builtin import settings
from reidcore.builtin.losses import build_softmax
from reidcore.modules import Context, Images
from reidcore.search.drawing import enlarged, scaled
from reidcore.search.heatmaps import cams, identity_score
from tests.oracles import Vectors, oracle

KINDS = ("sum", "mean", "softmax")


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def maps_of(*shape: int, seed: int = 0) -> Tensor:
    """Not negative, as after a ReLU."""
    return random(*shape, seed=seed).relu()


def pool_of(w_v: Tensor, w_u: Tensor, weights="sum", bias: Tensor | None = None) -> AttentionPool:
    """The layer with W_v [in, out] and W_u [in] of the paper."""
    pool = AttentionPool(len(w_u), weights, bias=bias is not None).double()
    with torch.no_grad():
        pool.value.weight.copy_(w_v.T)
        pool.attention.weight.copy_(w_u[None])
        if bias is not None:
            pool.value.bias.copy_(bias)
    return pool


def attention_by_loop(x: Tensor, w_v: Tensor, w_u: Tensor, kind: str, bias=None) -> list[float]:
    """Equation 3 of one map [C, H, W]: V = X^T W_v + b, a = X^T W_u, I = V^T a, place by place."""
    channels = len(x)
    places = x.flatten(1).T.tolist()
    w_v, w_u = w_v.tolist(), w_u.tolist()
    shift = [0.0] * channels if bias is None else bias.tolist()
    a = [sum(place[c] * w_u[c] for c in range(channels)) for place in places]
    if kind == "softmax":
        total = sum(math.exp(one) for one in a)
        a = [math.exp(one) / total for one in a]
    elif kind == "mean":
        a = [one / len(places) for one in a]
    out = []
    for j in range(channels):
        values = [sum(p[c] * w_v[c][j] for c in range(channels)) + shift[j] for p in places]
        out.append(sum(v * one for v, one in zip(values, a, strict=True)))
    return out


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_pooling_equals_a_loop(kind, biased):
    """In float64 in both memory formats, in float32 also under autocast, where 16 bits would not
    do."""
    x, w_v, w_u = maps_of(3, 5, 4, 3), random(5, 5, seed=1), random(5, seed=2)
    bias = random(5, seed=3) if biased else None
    pool = pool_of(w_v, w_u, kind, bias)
    expected = [attention_by_loop(one, w_v, w_u, kind, bias) for one in x]
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(pool(given).tolist(), expected, rtol=1e-12, atol=1e-12)
    expected = torch.tensor(expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = pool.float()(x.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_attention_pooling_has_its_symmetries():
    """The order of positions does not matter, disjoint positions add up, a map t times as large
    gives t^2 times as much, and W_v and W_u are linear."""
    x, w_v, w_u = maps_of(2, 5, 4, 3), random(5, 5, seed=1), random(5, seed=2)
    pool = pool_of(w_v, w_u)
    whole = pool(x)
    close = {"rtol": 1e-12, "atol": 1e-12}
    mixed = x.flatten(2)[..., torch.randperm(12)].unflatten(2, (4, 3))
    torch.testing.assert_close(pool(mixed), whole, **close)
    torch.testing.assert_close(pool(x[:, :, :1]) + pool(x[:, :, 1:]), whole, **close)
    torch.testing.assert_close(pool(3 * x), 9 * whole, **close)
    torch.testing.assert_close(pool_of(2 * w_v, w_u)(x), 2 * whole, **close)
    torch.testing.assert_close(pool_of(w_v, 2 * w_u)(x), 2 * whole, **close)


def test_attention_pooling_has_the_stated_gradients():
    """With r = dL/dI: dL/dX_p = (W_v r) a_p + W_u (r . V_p), and so on, by loops."""
    x, w_v, w_u = maps_of(1, 4, 3, 2).requires_grad_(), random(4, 4, seed=1), random(4, seed=2)
    r = random(4, seed=3)
    pool = pool_of(w_v, w_u)
    (pool(x)[0] @ r).backward()
    places = x.detach()[0].flatten(1).T
    on_x = torch.zeros(6, 4, dtype=torch.float64)
    on_v, on_u = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for p, place in enumerate(places):
        a, along = place @ w_u, r @ (place @ w_v)
        on_x[p] = (w_v @ r) * a + w_u * along
        on_v += a * torch.outer(place, r)
        on_u += place * along
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(x.grad[0].flatten(1).T, on_x, **close)
    torch.testing.assert_close(pool.value.weight.grad.T, on_v, **close)
    torch.testing.assert_close(pool.attention.weight.grad[0], on_u, **close)


def test_attention_pooling_learns_from_the_start():
    """Neither of its weights starts where the other has no gradient."""
    pool = AttentionPool(6).double()
    pool(maps_of(2, 6, 3, 2)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in pool.parameters())


def test_attention_pooling_costs_what_pooling_first_costs():
    """4 C HW + 2 C^2 operations on the paper's map, 10.7 million, not the 2.4 billion of W_v at
    every position."""
    channels, height, width = 2048, 24, 12
    with FlopCounterMode(display=False) as counter:
        AttentionPool(channels)(torch.zeros(1, channels, height, width))
    expected = 4 * channels * height * width + 2 * channels**2
    assert counter.get_total_flops() == expected == 10_747_904


@pytest.mark.oracle
def test_attention_pooling_gives_the_stored_vectors():
    """Values in all three forms, weights, gradients, and the maximum of the same maps."""
    with oracle("airnet/attention_pooling") as vectors:
        close = {"rtol": 1e-10, "atol": 1e-12}
        for case in vectors.sidecar["cases"]:
            prefix = case["prefix"]
            x = vectors.input(f"{prefix}_X").requires_grad_()
            w_v, w_u = vectors.input(f"{prefix}_W_v"), vectors.input(f"{prefix}_W_u")
            pool = pool_of(w_v, w_u)
            out = pool(x)
            vectors.compare(f"{prefix}_I", out, **close)
            vectors.compare(f"{prefix}_a", pool.weights(x), **close)
            (out * vectors.input(f"{prefix}_R")).sum().backward()
            vectors.compare(f"{prefix}_gradX", x.grad, **close)
            vectors.compare(f"{prefix}_gradW_v", pool.value.weight.grad.T, **close)
            vectors.compare(f"{prefix}_gradW_u", pool.attention.weight.grad[0], **close)
            soft, mean = pool_of(w_v, w_u, "softmax"), pool_of(w_v, w_u, "mean")
            vectors.compare(f"{prefix}_I_softmax", soft(x), **close)
            vectors.compare(f"{prefix}_a_softmax", soft.weights(x), **close)
            vectors.compare(f"{prefix}_I_mean", mean(x), **close)
            # With W_v = 1 and W_u a unit vector it gives a column of the Gram matrix.
            eye = torch.eye(len(w_u), dtype=torch.float64)
            columns = [pool_of(eye, one)(x) for one in eye]
            vectors.compare(f"{prefix}_gram", torch.stack(columns, 2), **close)
            vectors.compare(f"{prefix}_gmp", Maximum()(x), rtol=0)
            single = pool.float()(x.detach().float())
            # Terms of both signs round by the size of the largest.
            atol = 1e-6 * float(out.detach().abs().max())
            vectors.compare(f"{prefix}_I", single, rtol=1e-4, atol=atol)


def context_by_loop(x: Tensor, block: GlobalContext) -> Tensor:
    """One map [C, H, W] through the block, place by place and channel by channel."""
    places = x.flatten(1).T.tolist()
    if block.mask is None:
        weights = [1 / len(places)] * len(places)
    else:
        w = block.mask.weight[0].tolist()
        logits = [math.exp(sum(a * b for a, b in zip(w, place, strict=True))) for place in places]
        weights = [one / sum(logits) for one in logits]
    context = [sum(w * p[c] for w, p in zip(weights, places, strict=True)) for c in range(len(x))]

    def transformed(transform: nn.Sequential) -> list[float]:
        def linear(layer: nn.Linear, values: list[float]) -> list[float]:
            return [
                sum(w * value for w, value in zip(row, values, strict=True)) + shift
                for row, shift in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
            ]

        inner = linear(transform.squeeze, context)
        mean = sum(inner) / len(inner)
        deviation = math.sqrt(sum((one - mean) ** 2 for one in inner) / len(inner) + 1e-5)
        scale, shift = transform.norm.weight.tolist(), transform.norm.bias.tolist()
        inner = [
            max(0.0, (one - mean) / deviation * s + t)
            for one, s, t in zip(inner, scale, shift, strict=True)
        ]
        return linear(transform.excite, inner)

    out = x.clone()
    if block.mul is not None:
        for c, one in enumerate(transformed(block.mul)):
            out[c] /= 1 + math.exp(-one)
    if block.add is not None:
        for c, one in enumerate(transformed(block.add)):
            out[c] += one
    return out


def drawn_block(channels: int, **options) -> GlobalContext:
    block = GlobalContext(channels, **options).double()
    for seed, parameter in enumerate(block.parameters()):
        parameter.data.copy_(random(*parameter.shape, seed=seed) / 2)
    return block


@pytest.mark.parametrize("pool", ["attention", "average"])
@pytest.mark.parametrize("fusion", ["add", "mul", "both"])
def test_context_equals_a_loop(fusion, pool):
    block = drawn_block(8, ratio=0.4, fusion=fusion, pool=pool)
    x = maps_of(2, 8, 3, 2)
    expected = torch.stack([context_by_loop(one, block) for one in x])
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(block(given), expected.detach(), rtol=1e-12, atol=1e-12)
    half = block.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = half(x.float())
    torch.testing.assert_close(found.float(), expected.float(), rtol=0.05, atol=0.05)


def test_a_new_context_block_changes_nothing():
    """Pretrained weights around it stay right; with mul everything is halved alike."""
    x = maps_of(2, 32, 3, 2).float()
    assert torch.equal(GlobalContext(32)(x), x)
    torch.testing.assert_close(GlobalContext(32, fusion="mul")(x), x / 2)


def test_context_blocks_have_the_published_size():
    sizes = {c: sum(p.numel() for p in GlobalContext(c).parameters()) for c in (512, 1024, 2048)}
    assert sizes == {512: 33_889, 1024: 133_313, 2048: 528_769}


@pytest.mark.oracle
def test_context_gives_the_stored_maps():
    """Weights, context, transform, and the map of every form; the maximum behind the block."""
    with oracle("airnet/gc_block") as vectors:
        x = vectors.input("X")
        channels = x.shape[1]
        ratio = len(vectors.input("b1")) / channels
        close = {"rtol": 1e-10, "atol": 1e-12}
        blocks = {
            "out_add": ("add", "attention"),
            "out_mul": ("mul", "attention"),
            "out_both": ("both", "attention"),
            "out_avg_add": ("add", "average"),
        }
        for array, (fusion, pool) in blocks.items():
            block = GlobalContext(channels, ratio, fusion, pool).double()
            with torch.no_grad():
                if block.mask is not None:
                    block.mask.weight.copy_(vectors.input("w_mask")[None])
                    block.mask.bias.copy_(vectors.input("b_mask"))
                for transform, suffix in ((block.add, ""), (block.mul, "_mul")):
                    if transform is not None:
                        fill(transform, vectors, suffix)
            vectors.compare(array, block(x), **close)
            if array == "out_add":
                vectors.compare("attn", block.weights(x.flatten(2).transpose(1, 2)), **close)
                vectors.compare("context", block.context(x), **close)
                vectors.compare("add_term", block.add(block.context(x)), **close)
                vectors.compare("gmp_out_add", Maximum()(block(x)), **close)


def fill(transform: nn.Sequential, vectors: Vectors, suffix: str) -> None:
    transform.squeeze.weight.copy_(vectors.input(f"W1{suffix}"))
    transform.squeeze.bias.copy_(vectors.input(f"b1{suffix}"))
    transform.norm.weight.copy_(vectors.input(f"ln_w{suffix}"))
    transform.norm.bias.copy_(vectors.input(f"ln_b{suffix}"))
    transform.excite.weight.copy_(vectors.input(f"W2{suffix}"))
    transform.excite.bias.copy_(vectors.input(f"b2{suffix}"))


def given(**changes) -> Given:
    features = {"x.a": Feature.map(6, 3, 2), "x.b": Feature.map(4, 5, 4), "x.v": Feature.vector(3)}
    defaults = {"features": features, "identities": 5, "batch": BatchShape(4, 2, 2)}
    return Given((8, 8), **(defaults | changes))


def no_images(count: int) -> Images:
    none = torch.zeros(count, dtype=torch.int64)
    return Images(torch.zeros(count, 3, 1, 1), none, none)


def test_every_vector_names_its_map():
    """Any vector of any map, by its own pooling; only what is wanted is built and computed."""
    config = PoolSettings(a1="x.a", a2="x.b", i="x.b", m="x.a", gc_ratio=0.5)
    declared = config.outputs(given())
    assert {name: feature.shape for name, feature in declared.items()} == {
        "a1": (6,),
        "a2": (4,),
        "i": (4,),
        "m": (6,),
        "a1_bn": (6,),
        "a2_bn": (4,),
        "i_bn": (4,),
        "m_bn": (6,),
    }
    features = {"x.a": maps_of(4, 6, 3, 2), "x.b": maps_of(4, 4, 5, 4, seed=1)}
    head = build_pool(config, Context(given(), "pool", declared)).double()
    out = head(features, no_images(4))
    assert out.keys() == declared.keys()
    assert torch.equal(out["a1"], features["x.a"].amax((2, 3)))
    assert torch.equal(out["a2"], features["x.b"].amax((2, 3)))
    assert torch.equal(out["m"], features["x.a"].amax((2, 3)))  # a new block changes nothing
    torch.testing.assert_close(out["i"], head.pools["i"](features["x.b"]))
    for name in ("a1", "a2", "i", "m"):
        centred = out[name] - out[name].mean(0)
        expected = centred / (centred.square().mean(0) + 1e-5).sqrt()
        torch.testing.assert_close(out[f"{name}_bn"], expected)
    part = build_pool(config, Context(given(), "pool", {"i_bn", "a1"})).double()
    assert {name.split(".")[1] for name, _ in part.named_parameters()} == {"i"}
    assert part(features, no_images(4)).keys() == {"i_bn", "a1"}


def test_the_shift_is_frozen_unless_it_is_asked_for():
    for shift in (False, True):
        config = PoolSettings(a1="x.a", shift=shift)
        head = build_pool(config, Context(given(), "pool", {"a1_bn"}))
        assert head.norms["a1"].bias.requires_grad is shift


def test_mistakes_are_told():
    with pytest.raises(WiringError, match="pools nothing: name a map for at least one of a1, a2"):
        PoolSettings().outputs(given())
    with pytest.raises(WiringError, match="needs at least two pictures"):
        PoolSettings(a1="x.a").outputs(given(batch=BatchShape(1)))


def test_attention_is_explained():
    """The weights of all positions, on the map's grid; without i there is nothing."""
    x = {"x.a": maps_of(2, 6, 3, 2).float()}
    head = build_pool(PoolSettings(i="x.a"), Context(given(), "pool", {"i"}))
    values = head.explain(x, no_images(2))["i"].values
    expected = torch.einsum("bchw,c->bhw", x["x.a"], head.pools["i"].attention.weight[0])
    torch.testing.assert_close(torch.from_numpy(values), expected.detach())
    head = build_pool(PoolSettings(a1="x.a"), Context(given(), "pool", {"a1"}))
    assert head.explain(x, no_images(2)) == {}


@pytest.mark.oracle
def test_grad_cam_of_an_identity_gives_the_stored_maps():
    """The head's vector behind its norm and the classifier of a loss, both heads, two identities:
    logits, gradients, heat, scaled and enlarged."""
    with oracle("airnet/gradcam") as vectors:
        x = vectors.input("X")[None]
        close = {"rtol": 1e-9, "atol": 1e-12}
        for head, vector in (("gmp", "a1"), ("abp", "i")):
            weight = vectors.input(f"{head}_W")
            features = {"x.x": Feature.map(*x.shape[1:])}
            around = Given((1, 1), identities=len(weight), features=features)
            pool = build_pool(
                PoolSettings(**{vector: "x.x"}, shift=True),
                Context(around, "pool", {vector, f"{vector}_bn"}),
            )
            pool = pool.double().eval()
            norm = pool.norms[vector]
            with torch.no_grad():
                for own, stored in (
                    (norm.weight, "gamma"),
                    (norm.bias, "beta"),
                    (norm.running_mean, "run_mean"),
                    (norm.running_var, "run_var"),
                ):
                    own.copy_(vectors.input(f"{head}_{stored}"))
                if head == "abp":
                    pool.pools["i"].value.weight.copy_(vectors.input("W_v").T)
                    pool.pools["i"].attention.weight.copy_(vectors.input("W_u")[None])
            name = f"pool.{vector}_bn"
            beyond = Given(
                (1, 1), identities=len(weight), features={name: Feature.vector(x.shape[1])}
            )
            loss = build_softmax(settings.Softmax(features=[name]), Context(beyond, "id")).double()
            with torch.no_grad():
                loss.classifier.weight.copy_(weight)
            maps = x.clone().requires_grad_()
            out = pool({"x.x": maps}, no_images(1))
            vectors.compare(f"{head}_v", out[vector][0], **close)
            scores = loss.identity_scores({name: out[f"{vector}_bn"]})[name]
            vectors.compare(f"{head}_logits", scores[0], **close)
            for stored_target in vectors.names(f"{head}_*_target"):
                array = stored_target.removesuffix("_target")
                target = array.removeprefix(f"{head}_")
                number = int(vectors.input(f"{array}_target"))
                if target == "pred":
                    assert number == int(scores.argmax())
                score = identity_score(scores, None if target == "pred" else number)
                (gradient,) = torch.autograd.grad(score, maps, retain_graph=True)
                vectors.compare(f"{array}_grad", gradient[0], **close)
                vectors.compare(f"{array}_alpha", gradient[0].mean((1, 2)), **close)
                cam = cams(score, {"x.x": maps})["x.x"][0].detach().numpy()
                vectors.compare(f"{array}_cam", cam, **close)
                vectors.compare(f"{array}_cam_norm", scaled(cam), **close)
                size = vectors.arrays[f"{array}_cam_up"].shape
                vectors.compare(f"{array}_cam_up", enlarged(scaled(cam), *size), **close)
