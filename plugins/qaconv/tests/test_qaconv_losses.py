"""The plugin's losses against loops over their definitions and against the published code."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from reid_qaconv.local import unit_locations
from reid_qaconv.matching import best_matches, build_matcher
from reid_qaconv.memory import build_memory, build_vectors, focal
from reid_qaconv.pairwise import build_pairwise, build_triplet, hardest
from reid_qaconv.settings_losses import Memory, Pairwise, Triplet, Vectors
from reid_qaconv.settings_matching import Matcher as MatcherSettings
from reidcore.api import BatchShape, Feature, Given, Matching, WiringError
from reidcore.errors import UsageError
from reidcore.modules import Batch, Context, Images, Matcher
from tests.oracles import Vectors as OracleVectors
from tests.oracles import oracle

IDENTITIES = 5
LABELS = [0, 3, 0, 1, 3, 1]


def batch_of(labels: list[int] | Tensor) -> Batch:
    """A batch of which only the labels matter."""
    labels = torch.as_tensor(labels)
    none = torch.zeros(len(labels), dtype=torch.int64)
    return Batch(Images(torch.zeros(len(labels), 3, 1, 1), none, none), labels)


class Products(Matcher):
    """A matcher whose logits are inner products of whole maps, scaled by a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def template(self, features):
        return {"map": features["x.map"]}

    def logits(self, a, b):
        return self.scale * a["map"].flatten(1) @ b["map"].flatten(1).T


def given(**changes) -> Given:
    features = {
        "x.map": Feature.map(3, 2, 1),
        "x.other": Feature.map(3, 2, 1),
        "x.v": Feature.vector(4),
    }
    defaults = {
        "identities": IDENTITIES,
        "features": features,
        "batch": BatchShape(6, 3, 2),
        "matchers": {"able": Matching({}, logits=True), "mute": Matching({})},
    }
    return Given((8, 8), **(defaults | changes))


def context(matcher: Matcher | None = None) -> Context:
    return Context(given(), "it", matchers={"able": matcher or Products()})


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


UNSEEN = ("counted", "masked", "left_out")


def memory_of(unseen: str = "counted", matcher: Matcher | None = None):
    config = Memory(feature="x.map", matcher="able", unseen=unseen)
    return build_memory(config, context(matcher)).double()


def vectors_of(unseen: str = "counted"):
    config = Vectors(feature="x.v", unseen=unseen)
    return build_vectors(config, Context(given(), "it")).double()


def columns_of(loss, unseen: str) -> list[int]:
    """The identities that rows are compared with."""
    return loss.seen.nonzero()[:, 0].tolist() if unseen == "left_out" else list(range(IDENTITIES))


def focal_by_loop(
    logits: list[list[float]], columns: list[int], labels: list[int], valid: list[bool]
) -> float:
    """Equation 1: pairs summed over identities, the mean over rows."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        for identity, logit in zip(columns, row, strict=True):
            p = 1 / (1 + math.exp(-logit))
            true = p if identity == label else 1 - p
            total -= valid[identity] * (1 - true) ** 2 * math.log(true)
    return total / len(labels)


def logits_by_loop(a: Tensor, b: Tensor, scale: float = 0.7) -> list[list[float]]:
    """What `Products` gives."""
    rows, others = a.flatten(1).tolist(), b.flatten(1).tolist()
    return [
        [scale * sum(p * q for p, q in zip(row, other, strict=True)) for other in others]
        for row in rows
    ]


def accuracy_by_loop(logits: list[list[float]], columns: list[int], labels: list[int]) -> float:
    found = [columns[row.index(max(row))] for row in logits]
    right = [identity == label for identity, label in zip(found, labels, strict=True)]
    return sum(right) / len(labels)


@pytest.mark.parametrize("unseen", UNSEEN)
def test_memory_loss_equals_a_loop_over_pairs(unseen):
    """The loss is the focal cross-entropy of the matcher's logits against all memories, of the seen
    ones only if it is so set, and `accuracy` the share of rows whose identity scores highest."""
    loss = memory_of(unseen)
    loss.after_step({"x.map": random(3, 3, 2, 1, seed=1)}, batch_of([4, 0, 3]))
    x = random(6, 3, 2, 1)
    value, terms = loss({"x.map": x}, batch_of(LABELS))
    columns = columns_of(loss, unseen)
    logits = logits_by_loop(x, loss.memory[columns])
    valid = [identity in (0, 3, 4) or unseen == "counted" for identity in range(IDENTITIES)]
    assert value.item() == pytest.approx(focal_by_loop(logits, columns, LABELS, valid), rel=1e-12)
    assert terms["accuracy"].item() == pytest.approx(accuracy_by_loop(logits, columns, LABELS))


@pytest.mark.parametrize("unseen", UNSEEN)
def test_memory_gradient_equals_finite_differences(unseen):
    """The gradients to features and matcher are the slopes of the loss; the focal factor is no
    constant, and the memory has no gradient."""
    loss = memory_of(unseen)
    loss.after_step({"x.map": random(3, 3, 2, 1, seed=1)}, batch_of([4, 0, 3]))
    batch = batch_of(LABELS)
    x = random(6, 3, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss({"x.map": x}, batch)[0], x)

    scale = loss.matcher().scale
    (slope,) = torch.autograd.grad(loss({"x.map": x}, batch)[0], scale)
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            scale += step
            values.append(float(loss({"x.map": x}, batch)[0]))
            scale -= step
    assert slope.item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)
    assert not loss.memory.requires_grad


def test_the_matcher_is_not_the_losses_own():
    """What the losses keep is the memory; the matcher's parameters are neither saved with them nor
    handed to the optimizer twice."""
    assert set(memory_of().state_dict()) == {"memory", "seen"}
    for loss in (
        memory_of(),
        build_pairwise(Pairwise(matcher="able"), context()),
        build_triplet(Triplet(matcher="able"), context()),
    ):
        assert not list(loss.parameters())


def test_focal_of_extreme_logits():
    """Very sure logits give the limits of the formula with finite gradients: 0 where they are
    right, their size where they are wrong."""
    logits = torch.tensor([-300.0, 300.0, -300.0, 300.0, 0.0], requires_grad=True)
    same = torch.tensor([True, True, False, False, True])
    values = focal(logits, same)
    expected = torch.tensor([300.0, 0.0, 0.0, 300.0, math.log(2) / 4])
    torch.testing.assert_close(values, expected)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    torch.testing.assert_close(gradient[:4], torch.tensor([-1.0, 0.0, 0.0, 1.0]))
    half = torch.tensor([3.0, -2.5]).bfloat16()
    exact = focal(half.float(), torch.tensor([True, True]))
    assert torch.equal(focal(half, torch.tensor([True, True])), exact)


@pytest.mark.parametrize("make", [memory_of, vectors_of])
def test_the_memory_holds_the_last_row_of_each_identity(make):
    """After a step the memory has the features of the batch; of several rows of one identity the
    last; others stay. `seen` says which were ever assigned."""
    loss = make()
    shape, name = loss.memory.shape[1:], loss.feature
    expected = torch.zeros_like(loss.memory)
    ever: set[int] = set()
    for seed, labels in enumerate(([0, 3, 0, 1, 3, 1], [1, 1, 1, 1], [3], [0, 1, 1, 0, 3, 0])):
        x = random(len(labels), *shape, seed=seed)
        for row, label in zip(x, labels, strict=True):
            expected[label] = row
        ever.update(labels)
        loss.after_step({name: x}, batch_of(labels))
        assert torch.equal(loss.memory, expected)
        assert loss.seen.tolist() == [identity in ever for identity in range(IDENTITIES)]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_moving_average_equals_a_loop_over_locations(momentum):
    """A map that is there counts `momentum`, the last new one of its identity the rest, and every
    location has length 1 again; the first map of an identity is taken as it is."""
    config = Memory(feature="x.map", matcher="able", momentum=momentum)
    loss = build_memory(config, context()).double()
    expected: dict[int, list[list[float]]] = {}
    for seed, labels in enumerate(([0, 3, 0, 1], [1, 1, 3], [3], [0, 1, 4, 0])):
        x = unit_locations(random(len(labels), 3, 2, 1, seed=seed))
        new = {label: row.flatten(1).T.tolist() for row, label in zip(x, labels, strict=True)}
        for label, locations in new.items():
            for place, vector in enumerate(locations):
                if label in expected:
                    old = expected[label][place]
                    both = zip(old, vector, strict=True)
                    vector = [momentum * p + (1 - momentum) * q for p, q in both]
                    length = math.sqrt(sum(value**2 for value in vector))
                    locations[place] = [value / length for value in vector]
            expected[label] = locations
        loss.after_step({"x.map": x}, batch_of(labels))
        for label, locations in expected.items():
            found = loss.memory[label].flatten(1).T
            torch.testing.assert_close(found, torch.tensor(locations, dtype=found.dtype))
    assert not loss.memory[2].any() and not loss.seen[2]


@pytest.mark.parametrize("make", [memory_of, vectors_of])
def test_the_memory_is_saved_and_forward_leaves_it(make):
    """Memory and flags survive saving, and a forward pass does not touch them."""
    loss, other = make("masked"), make("masked")
    x = random(6, *loss.memory.shape[1:])
    loss.after_step({loss.feature: x}, batch_of(LABELS))
    other.load_state_dict(loss.state_dict())
    before = other.memory.clone()
    values = [one({loss.feature: x.flip(0)}, batch_of(LABELS))[0] for one in (loss, other)]
    assert torch.equal(values[0], values[1]) and torch.equal(other.memory, before)


@pytest.mark.parametrize("make", [memory_of, vectors_of])
def test_an_empty_memory_has_no_gradient_to_features(make):
    """Before anything is assigned, the loss cannot move the features, and nothing is NaN; it is
    zero where unseen identities do not count, and then norms learn nothing of them."""
    for unseen in UNSEEN:
        loss = make(unseen)
        x = random(6, *loss.memory.shape[1:]).requires_grad_()
        before = copy.deepcopy(loss.state_dict())
        value, terms = loss({loss.feature: x}, batch_of(LABELS))
        (gradient,) = torch.autograd.grad(value, x)
        assert torch.equal(gradient, torch.zeros_like(x))
        assert value.item() > 0 if unseen == "counted" else value.item() == 0
        assert 0 <= terms["accuracy"].item() <= 1
        if unseen == "left_out":
            assert all(torch.equal(before[key], now) for key, now in loss.state_dict().items())


def test_an_empty_memory_does_not_teach_that_what_is_alike_differs():
    """While no row's own identity is in the memory, and pictures are much alike as at the start,
    empty memories push the norm's weight below zero, whether they count in the loss or not: seen
    identities lie above the mean. Where seen ones alone are compared nothing pushes it there."""
    pushed = {}
    for unseen in UNSEEN:
        loss = vectors_of(unseen)
        loss.after_step({"x.v": 3 + random(3, 4, seed=1)}, batch_of([4, 0, 3]))
        with torch.no_grad():
            loss.norm.weight.zero_()
        value, _ = loss({"x.v": 3 + random(6, 4)}, batch_of([1, 2, 1, 2, 1, 2]))
        (pushed[unseen],) = torch.autograd.grad(value, loss.norm.weight)
    assert pushed["counted"].item() > 0.5 and pushed["masked"].item() > 0.5
    assert pushed["left_out"].item() == pytest.approx(0, abs=1e-12)


def test_memory_refuses_another_map_than_the_matchers():
    """A matcher that reads another map than the memory keeps is named with both maps."""
    config = Memory(feature="x.other", matcher="able")
    with pytest.raises(UsageError, match=r"loss 'it' .*'x\.other', but .*'able' reads 'x\.map'"):
        build_memory(config, context())


def norm_by_loop(values: list[float], norm: nn.BatchNorm1d, train: bool) -> list[float]:
    mean = sum(values) / len(values) if train else norm.running_mean.item()
    square = sum((value - mean) ** 2 for value in values) / len(values)
    variance = square if train else norm.running_var.item()
    gamma, beta = norm.weight.item(), norm.bias.item()
    return [gamma * (value - mean) / math.sqrt(variance + norm.eps) + beta for value in values]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("unseen", UNSEEN)
def test_vectors_loss_equals_a_loop_over_pairs(unseen, train):
    """Cosines to the remembered vectors are normalised over all pairs together, unseen identities
    included unless only seen ones are compared, and give the focal loss; running statistics follow
    as a batch norm's."""
    loss = vectors_of(unseen).train(train)
    with torch.no_grad():
        loss.norm.weight.fill_(1.3)
        loss.norm.bias.fill_(-0.4)
        loss.norm.running_mean.fill_(0.2)
        loss.norm.running_var.fill_(0.3)
    old = loss.norm.running_mean.item(), loss.norm.running_var.item()
    loss.after_step({"x.v": random(3, 4, seed=1)}, batch_of([4, 0, 3]))
    columns = columns_of(loss, unseen)
    x = random(6, 4)
    cosines = [
        sum(p * q for p, q in zip(row, other, strict=True))
        / max(math.hypot(*row) * math.hypot(*other), 1e-12)
        for row in x.tolist()
        for other in loss.memory[columns].tolist()
    ]
    flat = norm_by_loop(cosines, loss.norm, train)
    logits = [flat[i : i + len(columns)] for i in range(0, len(flat), len(columns))]
    valid = [identity in (0, 3, 4) or unseen == "counted" for identity in range(IDENTITIES)]
    value, terms = loss({"x.v": x}, batch_of(LABELS))
    assert value.item() == pytest.approx(focal_by_loop(logits, columns, LABELS, valid), rel=1e-11)
    assert terms["accuracy"].item() == pytest.approx(accuracy_by_loop(logits, columns, LABELS))
    if train:
        mean = sum(cosines) / len(cosines)
        variance = sum((value - mean) ** 2 for value in cosines) / (len(cosines) - 1)
        old = 0.9 * old[0] + 0.1 * mean, 0.9 * old[1] + 0.1 * variance
    assert loss.norm.running_mean.item() == pytest.approx(old[0], rel=1e-12)
    assert loss.norm.running_var.item() == pytest.approx(old[1], rel=1e-12)


def test_vectors_gradient_equals_finite_differences_and_ignores_length():
    """The gradient is the slope of the loss; the loss depends on the vectors' directions alone,
    those of the memory included."""
    loss, long = vectors_of(), vectors_of()
    first = random(3, 4, seed=1)
    loss.after_step({"x.v": first}, batch_of([4, 0, 3]))
    long.after_step({"x.v": 7 * first}, batch_of([4, 0, 3]))
    batch = batch_of(LABELS)
    x = random(6, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss({"x.v": x}, batch)[0], x)
    torch.testing.assert_close(
        long({"x.v": 3 * x}, batch)[0], loss({"x.v": x}, batch)[0], rtol=1e-12, atol=0
    )


def test_vectors_are_compared_in_float32_under_autocast():
    """In mixed precision the loss of float32 vectors is that of full precision."""
    loss = vectors_of().float().eval()
    loss.after_step({"x.v": random(3, 4, seed=1).float()}, batch_of([4, 0, 3]))
    x = {"x.v": random(6, 4).float()}
    expected = loss(x, batch_of(LABELS))[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(x, batch_of(LABELS))[0], expected)


def in_batch(name: str, **settings):
    config, build = {"pairwise": (Pairwise, build_pairwise), "triplet": (Triplet, build_triplet)}[
        name
    ]
    return build(config(matcher="able", **settings), context())


def hardest_by_loop(row: list[float], anchor: int, labels: list[int]) -> tuple[float, float]:
    pairs = [(logit, i) for i, logit in enumerate(row)]
    positive = [logit for logit, i in pairs if labels[i] == labels[anchor] and i != anchor]
    negative = [logit for logit, i in pairs if labels[i] != labels[anchor]]
    return min(positive), max(negative)


def scattered() -> Tensor:
    """Maps around one of each identity, so that some anchors are solved and some are not."""
    return random(IDENTITIES, 3, 2, 1)[LABELS] + 2 * random(len(LABELS), 3, 2, 1, seed=1)


def test_pairwise_loss_equals_a_loop_over_pairs():
    """The loss is the binary cross-entropy of all pairs, each row with itself included, summed over
    the anchor's pairs and averaged over anchors."""
    x = scattered()
    value, terms = in_batch("pairwise")({"x.map": x}, batch_of(LABELS))
    total, right = 0.0, 0
    for anchor, row in enumerate(logits_by_loop(x, x)):
        for other, logit in enumerate(row):
            p = 1 / (1 + math.exp(-logit))
            total -= math.log(p if LABELS[anchor] == LABELS[other] else 1 - p)
        positive, negative = hardest_by_loop(row, anchor, LABELS)
        right += positive > negative
    assert 0 < right < len(LABELS)
    assert value.item() == pytest.approx(total / len(LABELS), rel=1e-12)
    assert terms["accuracy"].item() == pytest.approx(right / len(LABELS))


@pytest.mark.parametrize("margin", [0.0, 1.5, 16.0])
def test_triplet_loss_equals_a_loop_over_anchors(margin):
    """The loss is the mean hinge of the lowest logit of another picture of the anchor's identity
    and the highest of another identity."""
    x = scattered()
    value, terms = in_batch("triplet", margin=margin)({"x.map": x}, batch_of(LABELS))
    total, right = 0.0, 0
    for anchor, row in enumerate(logits_by_loop(x, x)):
        positive, negative = hardest_by_loop(row, anchor, LABELS)
        total += max(0.0, margin - positive + negative)
        right += positive > negative
    assert 0 < right < len(LABELS)
    assert value.item() == pytest.approx(total / len(LABELS), rel=1e-12)
    assert terms["accuracy"].item() == pytest.approx(right / len(LABELS))


@pytest.mark.parametrize("name", ["pairwise", "triplet"])
def test_in_batch_gradients_equal_finite_differences(name):
    """Both sides of a pair carry gradient."""
    loss, batch = in_batch(name), batch_of(LABELS)
    x = random(6, 3, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss({"x.map": x}, batch)[0], x)


def test_anchors_without_a_positive_or_a_negative_count_as_solved():
    """A batch of one identity, or of one picture of each, gives a triplet loss of 0 and a gradient
    without NaN."""
    loss = in_batch("triplet")
    for labels in ([2, 2, 2], [0, 1, 2]):
        x = random(3, 3, 2, 1).requires_grad_()
        value, terms = loss({"x.map": x}, batch_of(labels))
        (gradient,) = torch.autograd.grad(value, x)
        assert value.item() == 0 and terms["accuracy"].item() == 1
        assert torch.equal(gradient, torch.zeros_like(x))


def refusal(config, run: Given) -> WiringError:
    with pytest.raises(WiringError) as caught:
        config.check(run)
    return caught.value


@pytest.mark.parametrize(
    "config",
    [
        Memory(feature="x.map", matcher="mute"),
        Pairwise(matcher="mute"),
        Triplet(matcher="mute"),
    ],
)
def test_losses_refuse_a_matcher_without_logits(config):
    """The message names the key and the matchers that have logits."""
    error = refusal(config, given())
    assert error.field == "matcher" and "able" in error.text


def test_memories_need_identities():
    """One training identity leaves nothing to tell apart."""
    for config in (Memory(feature="x.map", matcher="able"), Vectors(feature="x.v")):
        assert "the data have 1" in refusal(config, given(identities=1)).text
        config.check(given())


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (BatchShape(32), "promises no numbers"),
        (BatchShape(8, 8, 1), "has 8 x 1"),
        (BatchShape(8, 1, 8), "has 1 x 8"),
    ],
)
@pytest.mark.parametrize("config", [Pairwise(matcher="able"), Triplet(matcher="able")])
def test_losses_within_the_batch_need_pairs(config, batch, found):
    """A sampler that promises no two pictures of two identities is refused by the key's name and
    the samplers that fit."""
    text = refusal(config, given(batch=batch)).text
    assert found in text and "data.batch" in text and "qaconv.graph" in text
    config.check(given())


# The published code.

CHUNKS = (
    "normalises within chunks of the memory, so that results depend on their size; version 1.0's "
    "statistics over all pairs are what qaconv.memory has"
)
NORMS = ("bn", "logit_bn")


def published_matcher(vectors: OracleVectors, shape: tuple[int, ...], head: str) -> Matcher:
    """`qaconv.matcher` for maps of this shape with the file's weights and statistics."""
    features = {"x.map": Feature.map(*shape)}
    config = MatcherSettings(feature="x.map", head=head)
    matcher = build_matcher(config, Context(Given((8, 8), features=features), "pairs")).double()
    with torch.no_grad():
        for norm in NORMS:
            for key in ("weight", "bias", "running_mean", "running_var"):
                getattr(getattr(matcher, norm), key).copy_(vectors.input(f"{norm}_{key}"))
        matcher.fc.weight.copy_(vectors.input("fc_weight"))
        matcher.fc.bias.copy_(vectors.input("fc_bias"))
    return matcher


def published_memory(vectors: OracleVectors, head: str = "untied", unseen: str = "counted"):
    """`qaconv.memory` on that matcher, with the file's memory."""
    memory = vectors.input("class_memory_before")
    matcher = published_matcher(vectors, memory.shape[1:], head)
    features = {"x.map": Feature.map(*memory.shape[1:])}
    run = Given((8, 8), identities=len(memory), features=features)
    config = Memory(feature="x.map", matcher="pairs", unseen=unseen)
    loss = build_memory(config, Context(run, "memory", matchers={"pairs": matcher})).double()
    loss.memory.copy_(memory)
    return loss


def compare_matcher(vectors: OracleVectors, matcher: Matcher, step: str, close) -> None:
    """Gradients of the matcher's parameters, where the file has them, and its statistics."""
    for name, parameter in matcher.named_parameters():
        array = f"grad_{name.replace('.', '_')}{step}"
        if array in vectors.arrays:
            vectors.compare(array, parameter.grad, **close)
    for norm in NORMS:
        for key in ("running_mean", "running_var"):
            array = f"{norm}_{key}_after{step}"
            vectors.compare(array, getattr(getattr(matcher, norm), key), **close)


def right(vectors: OracleVectors, array: str, logits: Tensor, pid: Tensor) -> Tensor:
    """Whether each row's identity has the highest logit; as in the file where rounding decides, as
    it does while the memory is empty."""
    first, second = logits.detach().topk(2).values.unbind(1)
    expected = torch.from_numpy(vectors.arrays[array]).bool()
    return torch.where(first - second > 1e-9, logits.argmax(1) == pid, expected)


def compare_step(vectors: OracleVectors, loss, step: str = "") -> None:
    """One training step of version 1.0 without the optimizer: everything in the file."""
    close = {"rtol": vectors.sidecar["suggested_tolerance"]["float64"], "atol": 1e-12}
    pid, matcher = vectors.input("target"), loss.matcher()
    raw = vectors.input(f"feature_raw{step}").requires_grad_()
    x = unit_locations(raw)
    x.retain_grad()
    vectors.compare(f"feature{step}", x, **close)
    locations = [maps.flatten(2).transpose(1, 2) for maps in (x, loss.memory)]
    best = torch.cat(list(best_matches(*locations)), 2).transpose(0, 1)
    vectors.compare(f"maxsim_cb{step}", best, **close)

    # On a copy, because every call in training moves the matcher's statistics.
    value, _ = copy.deepcopy(loss)({"x.map": x}, batch_of(pid))
    vectors.compare(f"loss_mean{step}", value, **close)
    logits = loss.logits({"x.map": x}, loss.memory)
    vectors.compare(f"logit{step}", logits, **close)
    each = loss.losses(logits, pid[:, None] == torch.arange(len(loss.memory)), loss.seen)
    vectors.compare(f"loss_per_sample{step}", each, **close)
    vectors.compare(f"acc{step}", right(vectors, f"acc{step}", logits, pid))
    matcher.zero_grad()
    each.mean().backward()
    vectors.compare(f"grad_feature{step}", x.grad, **close)
    vectors.compare(f"grad_feature_raw{step}", raw.grad, **close)
    compare_matcher(vectors, matcher, step, close)

    loss.after_step({"x.map": x.detach()}, batch_of(pid))
    vectors.compare(f"class_memory_after{step}", loss.memory, **close)


V1_STEPS = ["full_memory", "chunked_memory", "empty_classes_duplicate_targets", "eval_mode"]


@pytest.mark.oracle
@pytest.mark.parametrize("name", V1_STEPS)
def test_memory_equals_version_1_0(name):
    """Logits, losses, gradients, running statistics and the memory afterwards equal those of the
    authors' version 1.0: however it is tiled, with classes that were never seen, with two rows of
    one class, and in eval mode."""
    with oracle(f"qaconv/loss_v1_{name}") as vectors:
        loss = published_memory(vectors)
        loss.matcher().train("in train mode" in vectors.sidecar["semantics"])
        compare_step(vectors, loss)


@pytest.mark.oracle
def test_two_steps_from_an_empty_memory_equal_version_1_0():
    """Memory and statistics carry over from one step to the next, from a memory of zeros on."""
    with oracle("qaconv/loss_v1_two_steps_from_zero_memory") as vectors:
        loss = published_memory(vectors)
        assert not loss.memory.any()
        for array in vectors.names("feature_raw_step*"):
            compare_step(vectors, loss, array.removeprefix("feature_raw"))


@pytest.mark.oracle
@pytest.mark.parametrize(("version", "head"), [("v12", "untied"), ("head", "shared")])
def test_masked_memory_equals_later_versions(version, head):
    """With unseen = "masked", losses, gradients, statistics, memory and flags equal those of
    version 1.2, and with the shared head those of the authors' last version."""
    with oracle(f"qaconv/later_{version}_cml_unchunked") as vectors:
        close = {"rtol": vectors.sidecar["suggested_tolerance"]["float64"], "atol": 1e-12}
        loss = published_memory(vectors, head, "masked")
        loss.seen.copy_(vectors.input("valid_class_before"))
        pid, x = vectors.input("target"), vectors.input("feature").requires_grad_()
        value, _ = copy.deepcopy(loss)({"x.map": x}, batch_of(pid))
        vectors.compare("loss_mean", value, **close)
        logits = loss.logits({"x.map": x}, loss.memory)
        each = loss.losses(logits, pid[:, None] == torch.arange(len(loss.memory)), loss.seen)
        vectors.compare("loss_per_sample", each, **close)
        vectors.compare("acc", right(vectors, "acc", logits, pid))
        each.mean().backward()
        vectors.compare("grad_feature", x.grad, **close)
        compare_matcher(vectors, loss.matcher(), "", close)
        loss.after_step({"x.map": x.detach()}, batch_of(pid))
        vectors.compare("class_memory_after", loss.memory, **close)
        vectors.compare("valid_class_after", loss.seen)
    with oracle(f"qaconv/later_{version}_cml_chunked") as vectors:
        vectors.later("*", CHUNKS)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["pairwise_matching", "triplet_margin2", "triplet_margin16"])
def test_losses_within_the_batch_equal_the_published_code(name):
    """Logits, losses, gradients, statistics and accuracy equal those of the authors' last
    version."""
    with oracle(f"qaconv/later_head_{name}") as vectors:
        tolerance = vectors.sidecar["suggested_tolerance"]
        close = {
            "rtol": tolerance.get("float64", tolerance.get("other arrays float64")),
            "atol": 1e-12,
        }
        pid, x = vectors.input("target"), vectors.input("feature").requires_grad_()
        matcher = published_matcher(vectors, x.shape[1:], "shared")
        each_close = close
        if name == "pairwise_matching":
            # The authors' labels, and with them these arrays, are float32.
            each_close = {"rtol": tolerance["loss_per_sample"]}
            loss = build_pairwise(Pairwise(matcher="able"), context(matcher))
        else:
            margin = float(name.removeprefix("triplet_margin"))
            loss = build_triplet(Triplet(matcher="able", margin=margin), context(matcher))
        value, terms = copy.deepcopy(loss)({"x.map": x}, batch_of(pid))
        vectors.compare("loss_mean", value, **each_close)
        assert terms["accuracy"].item() == pytest.approx(vectors.arrays["acc"].mean())
        logits = loss.logits({"x.map": x})
        vectors.compare("logit", logits, **close)
        positive, negative = hardest(logits, pid)
        vectors.compare("acc", positive > negative)
        each = loss.losses(logits, pid)
        vectors.compare("loss_per_sample", each, **each_close)
        each.mean().backward()
        vectors.compare("grad_feature", x.grad, **close)
        compare_matcher(vectors, matcher, "", close)
