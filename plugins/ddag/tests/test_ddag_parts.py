"""`ddag.parts`: the authors' program, a loop over the specification, and what must hold anyway."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from reid_ddag.parts import Parts, build_parts
from reid_ddag.settings_parts import Parts as Settings
from reidcore.api import Feature, Given, WiringError
from reidcore.modules import Context, Images
from tests.oracles import Vectors, oracle

NAMES = {"fc1.0": "u", "fc2": "v", "fc3": "z", "bottleneck": "norm"}
"""Of the authors' layers."""


def context_of(channels: int, height: int, width: int, base: int) -> Context:
    features = {
        "backbone.map": Feature.map(channels, height, width),
        "neck.bn": Feature.vector(base),
    }
    return Context(Given((96, 48), features=features), "parts", {"x"})


def images(count: int) -> Images:
    none = torch.zeros(count, dtype=torch.int64)
    return Images(torch.zeros(count, 3, 1, 1), none, none)


def made(maps: Tensor, base: Tensor, **keys) -> Parts:
    config = Settings(source="backbone.map", base="neck.bn", **keys)
    context = context_of(*maps.shape[1:], base.shape[1])
    config.outputs(context.given)
    return build_parts(config, context).double()


def run(head: Parts, maps: Tensor, base: Tensor) -> Tensor:
    return head({"backbone.map": maps, "neck.bn": base}, images(len(maps)))["x"]


def state_of(vectors: Vectors, prefix: str) -> dict[str, Tensor]:
    """The authors' tensors under our names."""
    state = {}
    for key in vectors.names(f"{prefix}_w_*"):
        layer, _, kind = key.removeprefix(f"{prefix}_w_").rpartition(".")
        name = f"{NAMES[layer]}.{kind}" if layer else "weights"
        value = vectors.input(key)
        state[name] = value.flatten(1) if value.ndim == 4 else value
    return state


@pytest.mark.oracle
def test_equals_the_authors_module():
    """Parts, attention, weights, output in both modes, running statistics and gradients equal those
    of the published module, also where parts overlap and where there is one."""
    with oracle("ddag/iwpa") as vectors:
        close = {"rtol": 1e-9, "atol": 1e-11}
        for number, case in enumerate(vectors.sidecar["cases"]):
            c = f"c{number}"
            maps = vectors.input(f"{c}_x").requires_grad_()
            base = vectors.input(f"{c}_feat").requires_grad_()
            head = made(maps, base, parts=case["parts"])
            head.load_state_dict({**head.state_dict(), **state_of(vectors, c)})
            parts = head.pooled(maps)
            vectors.compare(f"{c}_parts", parts.mT, **close)
            for name in "uvz":
                vectors.compare(f"{c}_{name}", getattr(head, name)(parts).mT, **close)
            vectors.compare(f"{c}_attention", head.attend(parts), **close)
            vectors.compare(f"{c}_gate_softmax", head.shares(), **close)
            vectors.compare(f"{c}_out_eval", run(head.eval(), maps, base), **close)
            norm, head.norm = head.norm, torch.nn.Identity()
            vectors.compare(f"{c}_pre_bn", run(head, maps, base), **close)
            head.norm = norm
            out = run(head.train(), maps, base)
            vectors.compare(f"{c}_out_train", out, **close)
            vectors.compare(f"{c}_running_mean_after", norm.running_mean, **close)
            vectors.compare(f"{c}_running_var_after", norm.running_var, **close)
            (out * vectors.input(f"{c}_grad_seed")).sum().backward()
            assert norm.bias.grad is None
            gradients = {"x": maps.grad, "feat": base.grad, "w_gate": head.weights.grad}
            for layer, name in NAMES.items():
                module = getattr(head, name)
                gradients[f"w_{layer}.weight"] = module.weight.grad
                if name != "norm":
                    gradients[f"w_{layer}.bias"] = module.bias.grad
            for name, gradient in gradients.items():
                shape = vectors.arrays[f"{c}_g_{name}"].shape
                vectors.compare(f"{c}_g_{name}", gradient.reshape(shape), **close)


def by_loop(head: Parts, maps: np.ndarray, base: np.ndarray, **keys) -> np.ndarray:
    """x* of every picture, before the norm, written from section 1.3 of the specification."""
    p = keys.get("parts", 3)
    layers = {
        name: (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for name, layer in (("u", head.u), ("v", head.v), ("z", head.z))
    }
    found = []
    for one, whole in zip(maps, base, strict=True):
        height = one.shape[1]
        rows = [
            one[:, math.floor(i * height / p) : math.ceil((i + 1) * height / p)].mean((1, 2))
            for i in range(p)
        ]
        u, v, z = ([w @ row + b for row in rows] for w, b in (layers[n] for n in "uvz"))
        scores = [[math.exp(u[i] @ v[j]) for j in range(p)] for i in range(p)]
        if keys.get("attention") == "columns":
            sums = [sum(scores[i][j] for i in range(p)) for j in range(p)]
            a = [[scores[i][j] / sums[j] for j in range(p)] for i in range(p)]
        else:
            a = [[scores[i][j] / sum(scores[i]) for j in range(p)] for i in range(p)]
        refined = [sum(a[i][j] * z[j] for j in range(p)) for i in range(p)]
        if keys.get("aggregation") == "concat":
            found.append(np.concatenate([whole, *refined]))
            continue
        weights = [1 / p] * p
        if keys.get("aggregation", "weighted") == "weighted":
            weights = head.weights.detach().tolist()
            if keys.get("weights", "softmax") == "softmax":
                total = sum(math.exp(weight) for weight in weights)
                weights = [math.exp(weight) / total for weight in weights]
        found.append(whole + sum(w * one for w, one in zip(weights, refined, strict=True)))
    return np.array(found)


VARIANTS = [
    {},
    {"parts": 1},
    {"parts": 7},
    {"weights": "raw"},
    {"attention": "columns"},
    {"aggregation": "average"},
    {"aggregation": "concat"},
    {"aggregation": "average", "attention": "columns"},
    {"weights": "raw", "attention": "columns"},
]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("keys", VARIANTS, ids=str)
def test_equals_a_loop_over_parts(keys, norm):
    """Every variant of table 2 and of the paper's equations equals a loop over parts and pairs of
    parts, whose result the norm, if there is one, standardises."""
    draw = torch.Generator().manual_seed(1)
    maps = torch.randn(4, 5, 7, 3, generator=draw, dtype=torch.float64)
    base = torch.randn(4, 5, generator=draw, dtype=torch.float64)
    head = made(maps, base, norm=norm, **keys)
    with torch.no_grad():
        for parameter in head.parameters():
            if parameter is not getattr(head.norm, "bias", None):
                parameter.copy_(torch.randn(parameter.shape, generator=draw))
    expected = by_loop(head, maps.numpy(), base.numpy(), **keys)
    if norm:
        scale = head.norm.weight.detach().numpy()
        expected = (expected - expected.mean(0)) / np.sqrt(expected.var(0) + 1e-5) * scale
    np.testing.assert_allclose(run(head, maps, base).detach().numpy(), expected, rtol=1e-10)


def test_a_picture_does_not_see_the_others():
    """Attention stays within a picture: alone it gets what it gets among others, in any order."""
    maps, base = torch.randn(6, 4, 6, 2).double(), torch.randn(6, 4).double()
    head = made(maps, base).eval()
    together = run(head, maps, base)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(run(head, maps[order], base[order]), together[order])
    torch.testing.assert_close(run(head, maps[2:3], base[2:3]), together[2:3])


def test_starts_as_the_program_does():
    """Weights equal, the norm's scale about 1 and its shift 0 for good."""
    maps, base = torch.randn(2, 300, 6, 2).double(), torch.randn(2, 300).double()
    head = made(maps, base)
    torch.testing.assert_close(head.shares(), torch.full((3,), 1 / 3).double())
    assert head.norm.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert head.norm.weight.mean().item() == pytest.approx(1, abs=0.005)
    assert not head.norm.bias.requires_grad and not head.norm.bias.any()


def test_half_precision_is_computed_in_float32():
    """Attention scores are long sums, which bfloat16 would spoil."""
    maps, base = torch.randn(3, 64, 6, 2).bfloat16(), torch.randn(3, 64).bfloat16()
    head = made(maps, base).float().eval()
    with torch.autocast("cpu", torch.bfloat16):
        half = run(head, maps, base)
    assert half.dtype == torch.float32
    assert torch.equal(half, run(head, maps.float(), base.float()))


def test_explains_what_each_part_adds():
    """Shares of the parts sum to 1, and a part that nothing attends to has none."""
    maps, base = torch.randn(2, 4, 6, 2).double(), torch.randn(2, 4).double()
    head = made(maps, base)
    features = {"backbone.map": maps, "neck.bn": base}
    heat = head.explain(features, images(2))["parts"].values
    assert heat.shape == (2, 3, 1)
    np.testing.assert_allclose(heat.sum((1, 2)), 1)
    with torch.no_grad():
        head.u.weight.zero_()
        head.u.bias.copy_(torch.tensor([50.0, 0, 0, 0]))
        head.v.weight.copy_(torch.eye(4))
        maps[:, 0] = torch.tensor([0.0, 0, 9, 9, 1, 1])[:, None]
    heat = head.explain(features, images(2))["parts"].values
    np.testing.assert_allclose(heat[:, :, 0], [[0, 1, 0]] * 2, atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "base", "field", "text"),
    [
        ({"parts": 8}, 5, "parts", "has only 7 rows; use at most 7"),
        ({"aggregation": "average", "weights": "raw"}, 5, "weights", "'average' has none"),
        ({}, 6, "base", "names 'neck.bn' of length 6, to which parts of the 5 channels"),
    ],
)
def test_settings_that_do_not_fit_are_refused(keys, base, field, text):
    config = Settings(source="backbone.map", base="neck.bn", **keys)
    with pytest.raises(WiringError) as caught:
        config.outputs(context_of(5, 7, 3, base).given)
    assert caught.value.field == field and text in str(caught.value)


def test_what_is_concatenated_may_differ_in_length():
    """Nothing is added, so a base of another length fits."""
    config = Settings(source="backbone.map", base="neck.bn", aggregation="concat")
    assert config.outputs(context_of(5, 7, 3, 6).given) == {"x": Feature.vector(6 + 3 * 5)}
