"""The core's losses against loops over their definitions."""

from __future__ import annotations

import itertools
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
from reidcore.builtin.losses import build_center, build_softmax, build_triplet
from reidcore.modules import Context, Matcher


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [False, True])
def test_softmax_adds_the_cross_entropies_of_its_features(smoothing, bias):
    """The loss is the sum over features of the smoothed cross-entropy of one shared classifier."""
    config = settings.Softmax(features=["x.a", "x.b"], smoothing=smoothing, bias=bias)
    loss = build_softmax(config, Context(given(), "id")).double()
    for parameter in loss.parameters():
        torch.nn.init.normal_(parameter)
    x = features()
    value, terms = loss(x, batch_of(LABELS))
    expected, right = 0.0, 0
    for name in ("x.a", "x.b"):
        logits = loss.classifier(x[name]).tolist()
        expected += entropy_by_loop(logits, LABELS, smoothing)
        right += sum(row.index(max(row)) == pid for row, pid in zip(logits, LABELS, strict=True))
    assert value.item() == pytest.approx(expected, rel=1e-12)
    assert terms["accuracy"].item() == pytest.approx(right / (2 * len(LABELS)))
    assert (loss.classifier.bias is not None) is bias


def test_softmax_starts_nearly_undecided():
    """Classifier weights start with deviation 0.001, one row per identity."""
    config = settings.Softmax(features=["x.a"])
    loss = build_softmax(config, Context(given(identities=2000), "id"))
    assert loss.classifier.weight.shape == (2000, 5)
    assert loss.classifier.weight.std().item() == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "unit"])
@pytest.mark.parametrize("soft", [False, True])
def test_triplet_equals_a_loop_over_anchors(metric, soft):
    """The loss is the mean over anchors of the hinge (or soft hinge) of the farthest row of the
    same identity and the closest of another."""
    config = settings.Triplet(feature="x.a", metric=metric, soft=soft, margin=0.4)
    loss = build_triplet(config, Context(given(), "triplet"))
    x = features()
    value, terms = loss(x, batch_of(LABELS))
    rows, total, hard = x["x.a"].tolist(), 0.0, 0
    for i, pid in enumerate(LABELS):
        distances = [distance_by_loop(rows[i], row, metric) for row in rows]
        pairs = list(zip(distances, LABELS, strict=True))
        gap = max(d for d, p in pairs if p == pid) - min(d for d, p in pairs if p != pid)
        total += math.log1p(math.exp(gap)) if soft else max(0.0, gap + 0.4)
        hard += gap + (0 if soft else 0.4) > 0
    assert 0 < hard < len(LABELS)
    assert value.item() == pytest.approx(total / len(LABELS), rel=1e-12)
    assert terms["hard"].item() == pytest.approx(hard / len(LABELS))


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "unit"])
@pytest.mark.parametrize("soft", [False, True])
def test_weighted_triplet_equals_a_loop_over_anchors(metric, soft):
    """Positives, the anchor among them, count by exp(d), negatives by exp(-d)."""
    config = settings.Triplet(feature="x.a", metric=metric, mining="weighted", soft=soft)
    value, _ = build_triplet(config, Context(given(), "triplet"))(x := features(), batch_of(LABELS))
    rows, total = x["x.a"].tolist(), 0.0
    for i, pid in enumerate(LABELS):
        means = []
        for same, sign in ((True, 1), (False, -1)):
            distances = [
                distance_by_loop(rows[i], row, metric)
                for row, p in zip(rows, LABELS, strict=True)
                if (p == pid) is same
            ]
            weights = [math.exp(sign * d) for d in distances]
            products = [d * w for d, w in zip(distances, weights, strict=True)]
            means.append(sum(products) / sum(weights))
        gap = means[0] - means[1]
        total += math.log1p(math.exp(gap)) if soft else max(0.0, gap + 0.3)
    # The program adds 1e-6 to the sum of weights.
    assert value.item() == pytest.approx(total / len(LABELS), rel=1e-4)


@pytest.mark.parametrize("mining", ["hard", "weighted"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine", "unit"])
def test_triplet_gradient_equals_finite_differences(metric, mining):
    """The gradient by autograd is the slope of the loss."""
    config = settings.Triplet(feature="x.a", metric=metric, mining=mining)
    loss = build_triplet(config, Context(given(), "triplet"))
    x = features()["x.a"].requires_grad_()
    batch = batch_of(LABELS)
    assert torch.autograd.gradcheck(lambda value: loss({"x.a": value}, batch)[0], x)


def test_triplet_of_equal_vectors_has_a_finite_gradient():
    """Where all vectors are equal, the loss is the margin and the gradient 0, not NaN."""
    x = torch.ones(4, 5, requires_grad=True)
    for metric in ("euclidean", "cosine", "unit"):
        config = settings.Triplet(feature="x.a", metric=metric, margin=0.3)
        value, _ = build_triplet(config, Context(given(), "triplet"))(
            {"x.a": x}, batch_of([0, 0, 1, 1])
        )
        (gradient,) = torch.autograd.grad(value, x)
        assert value.item() == pytest.approx(0.3, abs=1e-6)
        assert gradient.abs().max() < 1e-6


def test_anchors_without_a_negative_count_as_solved():
    """A batch of one identity gives loss 0 and a gradient without NaN."""
    x = torch.randn(4, 5, requires_grad=True)
    for soft, mining in itertools.product((False, True), ("hard", "weighted")):
        config = settings.Triplet(feature="x.a", soft=soft, mining=mining)
        value, _ = build_triplet(config, Context(given(), "triplet"))({"x.a": x}, batch_of([1] * 4))
        (gradient,) = torch.autograd.grad(value, x)
        assert value.item() == 0 and torch.equal(gradient, torch.zeros_like(x))


def test_triplet_on_half_precision_is_computed_in_float32():
    """Features of half precision, as autocast makes them, give the float32 loss of their values."""
    loss = build_triplet(settings.Triplet(feature="x.a"), Context(given(), "triplet"))
    x = (100 * features()["x.a"]).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss({"x.a": x}, batch_of(LABELS))[0]
    torch.testing.assert_close(half, loss({"x.a": x.float()}, batch_of(LABELS))[0])


class Scaled(Matcher):
    """A matcher with a parameter."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def template(self, features):
        return {"v": features["x.a"]}

    def distance(self, a, b):
        return self.scale * (a["v"][:, None] - b["v"]).abs().sum(2)


def test_triplet_trains_a_matcher_that_it_does_not_own():
    """On a matcher the loss is that of the matcher's distances, its parameters get gradients, and
    they are not the loss's parameters."""
    matcher = Scaled()
    config = settings.Triplet(matcher="scaled", soft=True)
    loss = build_triplet(config, Context(given(), "triplet", matchers={"scaled": matcher}))
    x = features()
    value, _ = loss(x, batch_of(LABELS))
    value.backward()
    rows, slope, total = x["x.a"].tolist(), 0.0, 0.0
    for i, pid in enumerate(LABELS):
        pairs = [
            (sum(abs(p - q) for p, q in zip(rows[i], row, strict=True)), other)
            for row, other in zip(rows, LABELS, strict=True)
        ]
        gap = max(d for d, p in pairs if p == pid) - min(d for d, p in pairs if p != pid)
        total += math.log1p(math.exp(2 * gap))
        slope += gap / (1 + math.exp(-2 * gap))
    assert value.item() == pytest.approx(total / len(LABELS), rel=1e-12)
    assert matcher.scale.grad.item() == pytest.approx(slope / len(LABELS), rel=1e-9)
    assert not list(loss.parameters()) and not loss.state_dict()


def center(alpha: float = 0.5) -> torch.nn.Module:
    config = settings.Center(feature="x.c", alpha=alpha)
    return build_center(config, Context(given(), "center")).double()


def center_steps_by_loop(loss, x: torch.Tensor, labels: list[int]) -> list[list[float]]:
    """The centers after one step (Wen et al., eq. 4)."""
    centers = [list(row) for row in loss.centers.tolist()]
    for identity, old in enumerate(loss.centers.tolist()):
        rows = [row for row, label in zip(x.tolist(), labels, strict=True) if label == identity]
        for place, number in enumerate(old):
            change = sum(number - row[place] for row in rows) / (1 + len(rows))
            centers[identity][place] = number - loss.alpha * change
    return centers


def test_center_loss_and_centers_equal_loops():
    """The loss is the mean of half the squared distances, its gradient the offset from the center,
    and over two steps the centers follow equation 4; an identity without rows keeps its center."""
    loss = center(alpha=0.7)
    for seed, labels in ((0, LABELS), (1, [3, 1, 1, 1, 3, 0, 0, 0])):
        x = features(seed)["x.c"].requires_grad_()
        batch = batch_of(labels)
        offsets = [
            [a - b for a, b in zip(row, loss.centers[label].tolist(), strict=True)]
            for row, label in zip(x.tolist(), labels, strict=True)
        ]
        value = loss({"x.c": x}, batch)
        total = sum(number**2 for row in offsets for number in row)
        assert value.item() == pytest.approx(total / 2 / len(labels), rel=1e-12)
        (gradient,) = torch.autograd.grad(value, x)
        expected = torch.tensor(offsets, dtype=torch.float64) / len(labels)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)
        assert torch.autograd.gradcheck(lambda x, batch=batch: loss({"x.c": x}, batch), x)

        stepped = center_steps_by_loop(loss, x, labels)
        loss.after_step({"x.c": x.detach()}, batch)
        expected = torch.tensor(stepped, dtype=torch.float64)
        torch.testing.assert_close(loss.centers, expected, rtol=1e-12, atol=1e-15)


def test_centers_are_state_and_no_parameters():
    """Centers are saved and loaded, and no optimizer moves them."""
    loss, other = center(), center()
    loss.after_step(features(), batch_of(LABELS))
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.centers, loss.centers) and loss.centers.any()
    assert not list(loss.parameters())


def test_softmax_refuses_features_of_different_length():
    """Features that cannot share a classifier are refused with both names and lengths."""
    error = refusal(settings.Softmax(features=["x.a", "x.c"]), given())
    assert error.field == "features"
    assert "'x.a' has 5" in error.text and "'x.c' has 3" in error.text


def test_softmax_needs_features_and_identities():
    """An empty list of features and a data set of one identity are refused."""
    with pytest.raises(ValueError, match="at least one feature"):
        settings.Softmax(features=[])
    config = settings.Softmax(features=["x.a"])
    assert "the data have 1" in refusal(config, given(identities=1)).text


@pytest.mark.parametrize(
    ("keys", "word"),
    [({}, "neither"), ({"feature": "x.a", "matcher": "scaled"}, "both")],
)
def test_triplet_needs_a_feature_or_a_matcher(keys, word):
    """Exactly one of feature and matcher must be set; the message says what was found."""
    assert word in refusal(settings.Triplet(**keys), given()).text


def test_triplet_refuses_a_metric_for_a_matcher():
    """A metric beside a matcher is refused, because it would have no effect."""
    error = refusal(settings.Triplet(matcher="scaled", metric="cosine"), given())
    assert error.field == "metric"


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (BatchShape(32), "promises no numbers"),
        (BatchShape(8, 8, 1), "has 8 x 1"),
        (BatchShape(8, 1, 8), "has 1 x 8"),
    ],
)
def test_triplet_refuses_batches_without_triplets(batch, found):
    """A sampler that promises no two pictures of two identities is refused by name of the key and
    of the sampler that fits."""
    text = refusal(settings.Triplet(feature="x.a"), given(batch=batch)).text
    assert found in text and "data.batch" in text and "core.identities" in text
    settings.Triplet(feature="x.a").check(given())
