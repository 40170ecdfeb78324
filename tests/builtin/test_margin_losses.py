"""The core's losses on cosines with a margin against loops over their definitions."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from loss_helpers import (
    LABELS,
    batch_of,
    distance_by_loop,
    entropy_by_loop,
    features,
    given,
    refusal,
)

from reidcore.api import BatchShape
from reidcore.builtin import settings
from reidcore.builtin.losses import build_softmax
from reidcore.builtin.margin_losses import build_arcface, build_circle, build_cosface, circle_logits
from reidcore.modules import Context


def with_random_weights(loss: torch.nn.Module) -> torch.nn.Module:
    """The loss in float64, its weights far from those it starts with."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in loss.double().parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return loss


def arcface(margin: float = 0.5, scale: float = 8.0) -> torch.nn.Module:
    """`core.arcface` on x.c."""
    config = settings.ArcFace(feature="x.c", margin=margin, scale=scale)
    return with_random_weights(build_arcface(config, Context(given(), "arcface")))


def cosface(margin: float = 0.35, scale: float = 8.0) -> torch.nn.Module:
    """`core.cosface` on x.c."""
    config = settings.CosFace(feature="x.c", margin=margin, scale=scale)
    return with_random_weights(build_cosface(config, Context(given(), "cosface")))


def circle(form: str, margin: float = 0.25, scale: float = 8.0) -> torch.nn.Module:
    """`core.circle` on x.c."""
    config = settings.Circle(feature="x.c", form=form, margin=margin, scale=scale)
    return with_random_weights(build_circle(config, Context(given(), "circle")))


EVERY = pytest.mark.parametrize(
    "build",
    [arcface, cosface, functools.partial(circle, "class"), functools.partial(circle, "pair")],
    ids=["arcface", "cosface", "circle of classes", "circle of pairs"],
)


def value_of(loss: torch.nn.Module, x: torch.Tensor, labels: list[int]) -> torch.Tensor:
    """The loss of vectors x.c, without what it logs."""
    result = loss({"x.c": x}, batch_of(labels))
    return result[0] if isinstance(result, tuple) else result


def cosine_by_loop(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """One cosine of two vectors, with its graph."""
    dot, squares = torch.zeros(()).double(), [torch.zeros(()).double(), torch.zeros(()).double()]
    for p, q in zip(a, b, strict=True):
        dot = dot + p * q
        squares = [squares[0] + p * p, squares[1] + q * q]
    return dot / squares[0].sqrt() / squares[1].sqrt()


def assert_equal_with_gradients(
    loss: torch.nn.Module, expected: torch.Tensor, x: torch.Tensor
) -> None:
    """Value and gradients, to vectors and parameters, of a loss and of a loop over its definition
    from the same leaves."""
    value = value_of(loss, x, LABELS)
    leaves = (x, *loss.parameters())
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    found = torch.autograd.grad(value, leaves)
    for mine, theirs in zip(found, torch.autograd.grad(expected, leaves), strict=True):
        assert theirs.any()
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.2])
def test_arcface_equals_a_loop_over_angles(margin):
    """The loss is the cross-entropy of scaled cosines, the margin added to the own angle; beyond pi
    the logit goes on falling. `accuracy` leaves the margin out."""
    loss = arcface(margin)
    x = features()
    x["x.c"][0] = -3 * loss.weight[LABELS[0]].detach()
    x["x.c"][1] = -loss.weight[LABELS[1]].detach() + 0.3
    value, terms = loss(x, batch_of(LABELS))
    rows, right, beyond = [], 0, 0
    for row, label in zip(x["x.c"].tolist(), LABELS, strict=True):
        cosines = [1 - distance_by_loop(row, weight, "cosine") for weight in loss.weight.tolist()]
        right += cosines.index(max(cosines)) == label
        angle = math.acos(max(-1.0, min(1.0, cosines[label])))
        beyond += angle + margin > math.pi
        cosines[label] = (
            math.cos(angle + margin)
            if angle + margin <= math.pi
            else cosines[label] - margin * math.sin(margin)
        )
        rows.append([8.0 * cosine for cosine in cosines])
    assert beyond > 0 or margin == 0
    assert 0 < right < len(LABELS)
    assert value.item() == pytest.approx(entropy_by_loop(rows, LABELS, 0.0), rel=1e-6)
    assert terms["accuracy"].item() == pytest.approx(right / len(LABELS))


def test_arcface_makes_the_own_identity_harder_at_every_angle():
    """With a margin, the own logit falls with the angle from 0 to pi and is below the cosine."""
    angles = torch.linspace(0, math.pi, 1001, dtype=torch.float64)
    widened = arcface(0.5).widened_angle(angles.cos())
    assert (widened.diff() < 0).all()
    assert (widened < angles.cos()).all()


def test_arcface_gradient_equals_finite_differences():
    """The gradients to features and weights are the slopes of the loss."""
    loss = arcface()
    batch = batch_of(LABELS)
    x = features()["x.c"].requires_grad_()

    def value(x, weight):
        return torch.func.functional_call(loss, {"weight": weight}, ({"x.c": x}, batch))[0]

    assert torch.autograd.gradcheck(value, (x, loss.weight.detach().clone().requires_grad_()))


@EVERY
def test_parallel_and_zero_vectors_have_a_finite_gradient(build):
    """Where a vector is parallel to its identity or opposite to it, equal to another, or zero,
    nothing becomes infinite."""
    loss = build().float()
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(4, 3, generator=draw)[LABELS]
    x[1] *= -1
    x[2] = 0
    x.requires_grad_()
    value = value_of(loss, x, LABELS)
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in loss.parameters())


@EVERY
def test_half_precision_is_computed_in_float32(build):
    """Features of half precision, as autocast makes them, give the float32 loss and gradient of
    their values, at the published scales too."""
    loss = build(scale=128.0).float()
    x = features()["x.c"].bfloat16()
    found = []
    for vectors, enabled in ((x.clone(), True), (x.float(), False)):
        vectors.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            value = value_of(loss, vectors, LABELS)
        assert value.dtype == torch.float32
        found.append((value, torch.autograd.grad(value, vectors)[0]))
    (half, slope), (whole, expected) = found
    torch.testing.assert_close(half, whole)
    torch.testing.assert_close(slope.float(), expected, rtol=1e-2, atol=1e-3 * expected.abs().max())


@EVERY
def test_the_order_and_the_length_of_vectors_do_not_matter(build):
    """Rows in another order, or scaled, give the same loss."""
    loss, x = build(), features()["x.c"]
    expected = value_of(loss, x, LABELS)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    length = torch.linspace(0.1, 9, len(x), dtype=torch.float64)[:, None]
    shuffled = value_of(loss, x[order] * length, [LABELS[i] for i in order])
    torch.testing.assert_close(shuffled, expected)


@pytest.mark.parametrize("margin", [0.0, 0.35, 1.5])
def test_cosface_equals_a_loop_over_cosines(margin):
    """The loss is the mean of -log(e^(s (cos - m)) / (e^(s (cos - m)) + sum of the others'
    e^(s cos))), with its gradients; `accuracy` leaves the margin out."""
    loss = cosface(margin)
    x = features()["x.c"].requires_grad_()
    expected, right = torch.zeros(()).double(), 0
    for row, label in zip(x, LABELS, strict=True):
        cosines = [cosine_by_loop(row, weight) for weight in loss.weight]
        own = torch.exp(8.0 * (cosines[label] - margin))
        others = [torch.exp(8.0 * one) for index, one in enumerate(cosines) if index != label]
        expected = expected - torch.log(own / (own + sum(others))) / len(LABELS)
        right += max(cosines) == cosines[label]
    assert_equal_with_gradients(loss, expected, x)
    assert 0 < right < len(LABELS)
    _, terms = loss({"x.c": x}, batch_of(LABELS))
    assert terms["accuracy"].item() == pytest.approx(right / len(LABELS))


def test_without_a_margin_cosface_and_arcface_are_a_scaled_softmax():
    """With margin 0 both are the cross-entropy of a linear classifier whose rows have length
    `scale`, on vectors of length 1."""
    x = features()["x.c"]
    softmax = build_softmax(settings.Softmax(features=["x.c"]), Context(given(), "id")).double()
    weight = cosface().weight.detach()
    with torch.no_grad():
        softmax.classifier.weight.copy_(8.0 * weight / weight.norm(dim=1, keepdim=True))
    expected = value_of(softmax, x / x.norm(dim=1, keepdim=True), LABELS)
    for loss in (cosface(margin=0.0), arcface(margin=0.0)):
        torch.testing.assert_close(value_of(loss, x, LABELS), expected, rtol=1e-10, atol=0)


def test_a_larger_cosface_margin_is_a_larger_loss():
    """The margin takes from the own logit alone: between 0 and m the loss rises by at most s m."""
    values = [value_of(cosface(m), features()["x.c"], LABELS).item() for m in (0.0, 0.1, 0.4)]
    assert values[0] < values[1] < values[2] < values[0] + 8.0 * 0.4


def circle_by_loop(
    positives: list[torch.Tensor], negatives: list[torch.Tensor], margin: float
) -> torch.Tensor:
    """Equation 6 of Sun et al. for one anchor, pair by pair, the weights of equation 5 as plain
    numbers."""
    total = torch.ones(()).double()
    for s_n in negatives:
        for s_p in positives:
            weight_n = max(0.0, s_n.item() + margin)
            weight_p = max(0.0, 1 + margin - s_p.item())
            total = total + torch.exp(
                8.0 * (weight_n * (s_n - margin) - weight_p * (s_p - (1 - margin)))
            )
    return total.log()


@pytest.mark.parametrize("margin", [0.0, 0.25, 0.4, -0.2])
def test_circle_of_classes_equals_a_loop_over_pairs(margin):
    """An anchor's only positive is its identity's weight, its negatives are the others'; value and
    gradients are those of equation 6, and `accuracy` is the share of highest own cosines."""
    loss = circle("class", margin)
    x = features()["x.c"].requires_grad_()
    expected, right = torch.zeros(()).double(), 0
    for row, label in zip(x, LABELS, strict=True):
        cosines = [cosine_by_loop(row, weight) for weight in loss.weight]
        right += max(cosines) == cosines[label]
        own = [cosines.pop(label)]
        expected = expected + circle_by_loop(own, cosines, margin) / len(LABELS)
    assert_equal_with_gradients(loss, expected, x)
    _, terms = loss({"x.c": x}, batch_of(LABELS))
    assert terms["accuracy"].item() == pytest.approx(right / len(LABELS))


@pytest.mark.parametrize("margin", [0.0, 0.25, 0.4, -0.2])
def test_circle_of_pairs_equals_a_loop_over_pairs(margin):
    """An anchor's positives are the other rows of its identity, its negatives all rows of others;
    the one row of the last identity has no positive and adds nothing."""
    loss = circle("pair", margin)
    assert not list(loss.parameters())
    x = features()["x.c"].requires_grad_()
    expected = torch.zeros(()).double()
    for i, pid in enumerate(LABELS):
        sides: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for j, other in enumerate(LABELS):
            if i != j:
                sides[pid == other].append(cosine_by_loop(x[i], x[j]))
        expected = expected + circle_by_loop(sides[True], sides[False], margin) / len(LABELS)
    assert_equal_with_gradients(loss, expected, x)


def test_circle_weights_a_cosine_by_its_distance_from_the_optimum():
    """The derivative is scale times max(0, 1 + m - s) for the same identity, scale times
    max(0, s + m) for others, and neither that of a square."""
    s = torch.tensor([[-0.9, 0.0, 0.5, 1.0]] * 2, dtype=torch.float64, requires_grad=True)
    same = torch.tensor([[True] * 4, [False] * 4])
    for margin in (0.25, -0.2):
        logits = circle_logits(s, same, 10.0, margin)
        (slope,) = torch.autograd.grad(logits.sum(), s)
        expected = torch.stack([1 + margin - s[0], s[1] + margin]).clamp(min=0) * 10
        torch.testing.assert_close(slope, expected.detach())


def test_circle_of_one_identity_or_of_strangers_is_zero():
    """Without any negatives, or without any positives, loss and gradient are 0."""
    loss = circle("pair").float()
    for labels in ([1] * 8, list(range(8))):
        x = features()["x.c"].float().requires_grad_()
        value = value_of(loss, x, labels)
        (gradient,) = torch.autograd.grad(value, x)
        assert value.item() == 0 and torch.equal(gradient, torch.zeros_like(x))


def test_large_scales_do_not_overflow():
    """At four times the paper's largest scale the worst batch, opposite vectors of one identity and
    equal vectors of others, has a finite float32 loss."""
    x = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [1, 0, 0], [-1, 0, 0]], requires_grad=True)
    for form in ("class", "pair"):
        value = value_of(circle(form, scale=1024.0).float(), x, [0, 0, 1, 1])
        (gradient,) = torch.autograd.grad(value, x)
        assert value.item() > 1000 and gradient.isfinite().all()


@pytest.mark.parametrize(
    "config",
    [
        settings.ArcFace(feature="x.c"),
        settings.CosFace(feature="x.c"),
        settings.Circle(feature="x.c"),
    ],
    ids=lambda config: type(config).__name__,
)
def test_one_identity_is_refused(config):
    """Classes need at least two training identities."""
    assert "the data have 1" in refusal(config, given(identities=1)).text
    config.check(given(batch=BatchShape(32)))


def test_circle_of_pairs_refuses_batches_without_pairs():
    """A sampler that promises no two pictures of two identities is refused."""
    config = settings.Circle(feature="x.c", form="pair")
    text = refusal(config, given(batch=BatchShape(8, 8, 1))).text
    assert "has 8 x 1" in text and "core.identities" in text
    config.check(given())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"margin": 1.0}, "below 1"),
        ({"margin": -1.0}, "above -1"),
        ({"scale": 0.0}, "above 0"),
    ],
)
def test_circle_settings_out_of_range_are_refused(keys, message):
    """Margins that leave no room between the two optima, and a scale of 0, are refused by key."""
    with pytest.raises(ValueError, match=message) as caught:
        settings.Circle(feature="x.c", **keys)
    assert caught.value.reid_field == next(iter(keys))
