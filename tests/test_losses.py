"""The core's losses against loops over their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from reidcore.api import BatchShape, Feature, Given, Matching, WiringError
from reidcore.builtin import settings
from reidcore.builtin.losses import build_arcface, build_center, build_softmax, build_triplet
from reidcore.modules import Batch, Context, Images, Matcher


def batch_of(labels: list[int]) -> Batch:
    none = torch.zeros(len(labels), dtype=torch.int64)
    return Batch(Images(torch.zeros(len(labels), 3, 1, 1), none, none), torch.tensor(labels))


def given(**changes) -> Given:
    features = {"x.a": Feature.vector(5), "x.b": Feature.vector(5), "x.c": Feature.vector(3)}
    defaults = {
        "identities": 4,
        "features": features,
        "batch": BatchShape(8, 4, 2),
        "matchers": {"scaled": Matching({})},
    }
    return Given((8, 8), **(defaults | changes))


LABELS = [0, 0, 1, 1, 2, 2, 2, 3]


def features(seed: int = 0) -> dict[str, torch.Tensor]:
    """Vectors around one centre per identity, so that some triplets are solved and some are not."""
    generator = torch.Generator().manual_seed(seed)

    def noise(count: int, length: int) -> torch.Tensor:
        return torch.randn(count, length, generator=generator, dtype=torch.float64)

    return {
        name: noise(4, length)[LABELS] + 0.4 * noise(len(LABELS), length)
        for name, length in (("x.a", 5), ("x.b", 5), ("x.c", 3))
    }


def entropy_by_loop(logits: list[list[float]], labels: list[int], smoothing: float) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        normaliser = math.log(sum(math.exp(value) for value in row))
        for index, value in enumerate(row):
            target = (1 - smoothing) * (index == label) + smoothing / len(row)
            total -= target * (value - normaliser)
    return total / len(labels)


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


def distance_by_loop(a: list[float], b: list[float], metric: str) -> float:
    if metric == "unit":
        a, b = ([x / math.hypot(*vector) for x in vector] for vector in (a, b))
    if metric != "cosine":
        return math.sqrt(max(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)), 1e-12))
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return 1 - dot / math.hypot(*a) / math.hypot(*b)


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
def test_triplet_gradient_equals_finite_differences(metric):
    """The gradient by autograd is the slope of the loss."""
    loss = build_triplet(
        settings.Triplet(feature="x.a", metric=metric), Context(given(), "triplet")
    )
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
    for soft in (False, True):
        config = settings.Triplet(feature="x.a", soft=soft)
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


def arcface(margin: float = 0.5, scale: float = 8.0) -> torch.nn.Module:
    """`core.arcface` on x.c with random weights."""
    config = settings.ArcFace(feature="x.c", margin=margin, scale=scale)
    loss = build_arcface(config, Context(given(), "arcface")).double()
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        loss.weight.copy_(torch.randn(loss.weight.shape, generator=draw))
    return loss


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


def test_arcface_of_parallel_vectors_has_a_finite_gradient():
    """Where a vector is parallel to its identity, or zero, nothing becomes infinite."""
    loss = arcface().float()
    x = loss.weight.detach()[LABELS].clone()
    x[1] *= -1
    x[2] = 0
    x.requires_grad_()
    value, _ = loss({"x.c": x}, batch_of(LABELS))
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all() and loss.weight.grad.isfinite().all()


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


def refusal(config, run: Given) -> WiringError:
    with pytest.raises(WiringError) as caught:
        config.check(run)
    return caught.value


def test_softmax_refuses_features_of_different_length():
    """Features that cannot share a classifier are refused with both names and lengths."""
    error = refusal(settings.Softmax(features=["x.a", "x.c"]), given())
    assert error.field == "features"
    assert "'x.a' has 5" in error.text and "'x.c' has 3" in error.text


def test_classifiers_need_features_and_identities():
    """An empty list of features and a data set of one identity are refused."""
    with pytest.raises(ValueError, match="at least one feature"):
        settings.Softmax(features=[])
    for config in (settings.Softmax(features=["x.a"]), settings.ArcFace(feature="x.a")):
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
