"""The class memory and spatial alignment."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_msinet.memory import ClassMemory, build_memory
from reid_msinet.sam import build_sam
from reid_msinet.settings_losses import Memory, Sam
from reidcore.api import BatchShape, Feature, Given, WiringError
from reidcore.modules import Batch, Context, Images
from tests.oracles import Vectors, oracle

CLOSE = {"rtol": 1e-8, "atol": 1e-9}


def batch_of(labels: Tensor) -> Batch:
    none = torch.zeros(len(labels), dtype=torch.int64)
    return Batch(Images(torch.zeros(len(labels), 3, 1, 1), none, none), labels)


def memory_loss(classes: int, length: int, **settings):
    given = Given((8, 8), identities=classes, features={"x.x": Feature.vector(length)})
    config = Memory(feature="x.x", **settings)
    config.check(given)
    return build_memory(config, Context(given, "memory")).double()


VARIANTS = {
    "code": "both",
    "code_zero_init": "both",
    "paper_literal": "none",
    "paper_normalised_features": "features",
}
"""The file's variants and what has unit length in each."""


@pytest.mark.oracle
def test_memory_equals_the_authors():
    """Loss, gradient and update of two batches with repeated labels, from unit entries and from
    zeros, the equations as printed, and the three kinds of centroids."""
    with oracle("msinet/d_tcm") as vectors:
        classes, length = vectors.arrays["memory_init"].shape
        stated = {
            "temperature": vectors.stated(r"logits = f C\^T / ([\d.]+)")[0],
            "momentum": vectors.stated(r"c_y <- ([\d.]+)\*c_y")[0],
        }
        for variant, normalize in VARIANTS.items():
            loss = memory_loss(classes, length, normalize=normalize, **stated)
            if variant != "code_zero_init":
                loss.classes.memory.copy_(vectors.input("memory_init"))
            for number, labels in ((1, "labels"), (2, "labels_2")):
                x = vectors.input(f"x_{number}").double().requires_grad_()
                batch = batch_of(vectors.input(labels))
                value, _ = loss({"x.x": x}, batch)
                vectors.compare(f"{variant}/loss_{number}", value, **CLOSE)
                (gradient,) = torch.autograd.grad(value, x)
                vectors.compare(f"{variant}/grad_x_{number}", gradient, **CLOSE)
                loss.after_step({"x.x": x.detach()}, batch)
                vectors.compare(f"{variant}/memory_after_{number}", loss.classes.memory, **CLOSE)
        x, labels = vectors.input("centroid/features").double(), vectors.input("centroid/labels")
        for array, normalize in (
            ("mean_of_raw", "none"),
            ("mean_of_normalised", "features"),
            ("mean_of_normalised_renormalised", "both"),
        ):
            loss = memory_loss(classes, length, normalize=normalize, **stated)
            middle = len(x) // 2 - 1
            halves = [
                ({"x.x": x[rows]}, batch_of(labels[rows]))
                for rows in (slice(middle), slice(middle, None))
            ]
            loss.before_training(lambda halves=halves: iter(halves))
            vectors.compare(f"centroid/{array}", loss.classes.memory, **CLOSE)


def test_memory_is_what_its_equations_say():
    """One row after another in a loop: -log softmax of the row's own entry, then the entry moves to
    the row and back to unit length."""
    draw = torch.Generator().manual_seed(0)
    memory = ClassMemory(3, 4, temperature=0.1, momentum=0.3).double()
    memory.memory.copy_(F.normalize(torch.randn(3, 4, generator=draw), dim=1))
    x = torch.randn(5, 4, generator=draw, dtype=torch.float64)
    labels = torch.tensor([2, 0, 2, 2, 0])
    entries = memory.memory.clone()
    losses = []
    for row, label in zip(x / x.norm(dim=1, keepdim=True), labels, strict=True):
        scores = torch.exp(torch.stack([(row * entry).sum() / 0.1 for entry in memory.memory]))
        losses.append(-torch.log(scores[label] / scores.sum()))
        moved = 0.3 * entries[label] + 0.7 * row
        entries[label] = moved / moved.norm()
    torch.testing.assert_close(memory(x, labels), torch.stack(losses).mean())
    memory.update(x, labels)
    torch.testing.assert_close(memory.memory, entries)


def test_the_first_batch_from_zeros_says_nothing():
    """With zeros every identity is as likely, and the gradient is exactly zero."""
    loss = memory_loss(4, 3, memory_init="zeros")
    loss.before_training(lambda: iter(()))
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    value, _ = loss({"x.x": x}, batch_of(torch.arange(4)))
    assert value.item() == pytest.approx(torch.log(torch.tensor(4.0)).item())
    assert not torch.autograd.grad(value, x)[0].any()


def sam_given(
    channels: int = 16,
    ids: int | None = 3,
    per_id: int | None = 2,
    size: tuple[int, int] = (4, 2),
) -> Given:
    features = {"x.map": Feature.map(channels, *size)}
    return Given((8, 8), features=features, batch=BatchShape(None, ids, per_id))


def sam_loss(channels: int, shape: tuple[int, int] = (3, 2), size=(4, 2), **settings):
    given = sam_given(channels, *shape, size)
    config = Sam(source="x.map", **settings)
    config.check(given)
    torch.manual_seed(0)
    return build_sam(config, Context(given, "align")).double()


SAM_VARIANTS = {
    "code": {},
    "paper": {"orientation": "anchor"},
    "paper_strict": {"orientation": "anchor", "exclude_self": True},
}


def with_weights(vectors: Vectors, loss):
    if hasattr(loss, "attention"):
        for name, convolution in (("query", loss.attention.query), ("key", loss.attention.key)):
            for key, parameter in convolution.named_parameters():
                parameter.data.copy_(vectors.input(f"pam/{name}_conv.{key}"))
    return loss


@pytest.mark.oracle
def test_alignment_equals_the_authors():
    """Activation vectors, losses and gradients of the three modes, as in the authors' code, as the
    text says, and without a picture's pairs with itself."""
    with oracle("msinet/e_sam") as vectors:
        labels = vectors.input("labels")
        for array in vectors.names("*/loss"):
            variant, mode, _ = array.split("/")
            x = vectors.input("x").double().requires_grad_()
            settings = SAM_VARIANTS[variant] | {"mode": mode}
            ids = len(labels.unique())
            shape = ids, len(labels) // ids
            loss = with_weights(vectors, sam_loss(x.shape[1], shape, x.shape[2:], **settings))
            value, _ = loss({"x.map": x}, batch_of(labels))
            vectors.compare(array, value, **CLOSE)
            value.backward()
            vectors.compare(f"{variant}/{mode}/grad_x", x.grad, rtol=1e-8, atol=1e-10)
            for name in ("query", "key"):
                for key in ("weight", "bias"):
                    # Without the positive term there is no attention to train.
                    gradient = torch.zeros(vectors.arrays[f"pam/{name}_conv.{key}"].shape)
                    if mode != "neg":
                        gradient = getattr(getattr(loss.attention, name), key).grad
                    grad = f"{variant}/{mode}/grad_pam_{name}_conv.{key}"
                    vectors.compare(grad, gradient, rtol=1e-8, atol=1e-10)
            if mode == "pos_neg":
                with torch.no_grad():
                    own = loss.self_activation(x)
                    vectors.compare(f"{variant}/activation", loss.grouped(x), **CLOSE)
                    vectors.compare(f"{variant}/self_activation", own, **CLOSE)


def naive_sam(loss, maps: Tensor, labels: Tensor) -> Tensor:
    """Pair by pair, position by position."""
    config = loss.config
    flat = maps.flatten(2)
    every = range(len(maps))

    def vector(anchor: int, other: int) -> Tensor:
        of, on = (anchor, other) if config.orientation == "partner" else (other, anchor)
        products = flat[of].T @ flat[on]
        return torch.stack([products[:, n].max() for n in range(flat.shape[2])])

    def apart(a: Tensor, b: Tensor) -> Tensor:
        return 1 - (a * b).sum() / (a.norm() * b.norm())

    def pairs_of(pictures: list[int]) -> list[tuple[int, int]]:
        both = itertools.product(pictures, pictures)
        return [(a, b) for a, b in both if not (config.exclude_self and a == b)]

    aligned = config.pairs == "separated" and config.mode != "neg"
    own = loss.self_activation(maps) if aligned and config.activation != "none" else None
    total = []
    for i in every:
        same = [p for p in every if labels[p] == labels[i]]
        if config.exclude_self:
            same.remove(i)
        others = [p for p in every if labels[p] != labels[i] or config.pairs == "unified"]
        terms = []
        if own is not None:
            terms.append(sum(apart(own[i], vector(i, p)) for p in same) / len(same))
        elif aligned:
            pairs = pairs_of(same)
            terms.append(sum(apart(vector(i, a), vector(i, b)) for a, b in pairs) / len(pairs))
        if config.pairs == "unified" or config.mode != "pos":
            pairs = pairs_of(others)
            number = len(others) if config.negatives == "pictures" else len(pairs)
            terms.append(sum(apart(vector(i, a), vector(i, b)) for a, b in pairs) / number)
        total.append(sum(terms))
    return torch.stack(total).mean()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"orientation": "anchor", "mode": "pos"},
        {"activation": "self"},
        {"activation": "self", "mode": "pos", "exclude_self": True},
        {"activation": "none"},
        {"activation": "none", "mode": "pos"},
        {"activation": "none", "exclude_self": True, "orientation": "anchor"},
        {"activation": "none", "negatives": "pictures"},
        {"mode": "neg", "negatives": "pictures"},
        {"pairs": "unified", "activation": "self"},
        {"pairs": "unified", "exclude_self": True, "orientation": "anchor"},
    ],
    ids=str,
)
def test_alignment_is_what_its_equations_say(settings):
    """All variants of table 5, pair by pair, with unlike numbers of pictures of each identity: the
    means are over an anchor's own pairs."""
    maps = torch.rand(7, 16, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1, 1, 0])
    loss = sam_loss(16, **settings)
    value, _ = loss({"x.map": maps}, batch_of(labels))
    torch.testing.assert_close(value, naive_sam(loss, maps, labels))


def test_alignment_holds_one_picture_at_a_time():
    """Between the passes no tensor of all pairs of positions is kept, and the gradient is that of
    the products at once."""
    maps = torch.rand(6, 16, 8, 8, dtype=torch.float64, requires_grad=True)
    loss = sam_loss(16, mode="neg")
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value, _ = loss({"x.map": maps}, batch_of(torch.arange(6) // 2))
    assert max(kept) < 6 * 64 * 64 * 6
    (gradient,) = torch.autograd.grad(value, maps)
    flat = maps.flatten(2)
    whole = torch.einsum("gcm,pcn->gpmn", flat, flat).amax(2)
    units = F.normalize(whole, dim=2)
    others = (torch.arange(6)[:, None] // 2 != torch.arange(6) // 2).double()
    spread = 16 - (others[:, :, None] * units).sum(1).square().sum(1)
    (expected,) = torch.autograd.grad((spread / 16).mean(), maps)
    torch.testing.assert_close(gradient, expected)


def test_alignment_explains_itself():
    """The self activation over each picture; without one, nothing."""
    maps = torch.rand(2, 16, 4, 2, dtype=torch.float64)
    images = batch_of(torch.arange(2)).images
    loss = sam_loss(16)
    (heat,) = loss.explain({"x.map": maps}, images).values()
    torch.testing.assert_close(
        torch.from_numpy(heat.values).flatten(1), loss.self_activation(maps).detach()
    )
    for settings in ({"mode": "neg"}, {"activation": "none"}):
        assert sam_loss(16, **settings).explain({"x.map": maps}, images) == {}


@pytest.mark.parametrize(
    ("given", "settings", "field"),
    [
        (sam_given(channels=4), {}, "source"),
        (sam_given(), {"pairs": "unified", "mode": "neg"}, "mode"),
        (sam_given(per_id=1), {}, ""),
        (sam_given(ids=None), {}, ""),
    ],
)
def test_alignment_refuses_what_it_cannot_do(given, settings, field):
    with pytest.raises(WiringError) as caught:
        Sam(source="x.map", **settings).check(given)
    assert caught.value.field == field


@pytest.mark.parametrize("activation", ["self", "none"])
def test_alignment_without_weights_needs_few_channels(activation):
    Sam(source="x.map", activation=activation).check(sam_given(channels=4))
    assert not list(sam_loss(4, activation=activation).parameters())
