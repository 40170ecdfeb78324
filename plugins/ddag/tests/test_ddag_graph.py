"""`ddag.graph`: the authors' program, a loop over the specification, and its dynamic weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from reid_ddag.graph import Graph, build_graph, chosen
from reid_ddag.settings_graph import Graph as Settings
from reidcore.api import BatchShape, Feature, Given, WiringError
from reidcore.modules import Batch, Context, Images
from tests.oracles import oracle


def batch_of(labels: Sequence[int], modality: Sequence[int] | None = None) -> Batch:
    pid = torch.as_tensor(labels)
    none = torch.zeros(len(pid), dtype=torch.int64)
    kind = none if modality is None else torch.as_tensor(modality)
    return Batch(Images(torch.zeros(len(pid), 3, 1, 1), kind, none), pid)


def made(length: int, identities: int, **keys) -> Graph:
    config = Settings(feature="neck.pooled", **{"dropout": 0.0, **keys})
    given = Given(
        (96, 48),
        identities=identities,
        features={"neck.pooled": Feature.vector(length)},
        losses=("id", "triplet", "graph"),
    )
    config.check(given)
    return build_graph(config, Context(given, "graph")).double()


def nll(loss: Graph, x: Tensor, batch: Batch) -> Tensor:
    return loss({"neck.pooled": x}, batch)[1]["nll"]


@pytest.mark.oracle
def test_equals_the_authors_layers():
    """Attention and outputs of all heads and of the last layer, probabilities, both reductions of
    the loss and its gradients equal those of the published layers, for several heads and for one;
    the published adjacency connects what is connected here."""
    with oracle("ddag/cgsa") as vectors:
        close = {"rtol": 1e-9, "atol": 1e-12}
        for number, case in enumerate(vectors.sidecar["cases"]):
            c = f"c{number}"
            x, labels = vectors.input(f"{c}_x").requires_grad_(), vectors.input(f"{c}_labels")
            loss = made(case["C"], case["n_class"], heads=case["heads"], dim=case["d"])
            names = {"heads.weight": "head_W", "heads.score": "head_a"}
            names |= {"last.weight": "out_W", "last.score": "out_a"}
            state = {name: vectors.input(f"{c}_{theirs}") for name, theirs in names.items()}
            state |= {name: state[name][None] for name in ("last.weight", "last.score")}
            loss.load_state_dict({**loss.state_dict(), **state})
            edges = labels[:, None] == labels
            for adjacency in ("adj", "adj_norm"):
                assert torch.equal(vectors.input(f"{c}_{adjacency}") > 0, edges)
            heads = torch.nn.functional.elu(loss.heads(x, edges))
            joined = heads.transpose(0, 1).flatten(1)
            last = loss.last(joined, edges)[0]
            for layer, inputs, name in ((loss.heads, x, "head"), (loss.last, joined, "out")):
                found = layer.attention(inputs @ layer.weight, edges)
                expected = f"{c}_{name}_attention"
                vectors.compare(expected, found.reshape(vectors.arrays[expected].shape), **close)
            vectors.compare(f"{c}_head_out", heads, **close)
            vectors.compare(f"{c}_out_raw", last, **close)
            logits = loss.logits(x, labels)
            vectors.compare(f"{c}_out_elu", logits, **close)
            vectors.compare(f"{c}_log_probs", logits.log_softmax(1), **close)
            mean = nll(loss, x, batch_of(labels))
            vectors.compare(f"{c}_nll_mean", mean, **close)
            loss.reduction = "sum"
            vectors.compare(f"{c}_nll_sum", nll(loss, x, batch_of(labels)), **close)
            mean.backward()
            gradients = {theirs: loss.get_parameter(name).grad for name, theirs in names.items()}
            for name, gradient in {**gradients, "x": x.grad}.items():
                shape = vectors.arrays[f"{c}_g_{name}"].shape
                vectors.compare(f"{c}_g_{name}", gradient.reshape(shape), rtol=1e-7, atol=1e-10)


def layer_by_loop(x, weight, score, labels):
    """A head's outputs, from section 1.4 of the specification."""
    h = [row @ weight for row in x]
    d = len(h[0])
    outputs = []
    for i, pid in enumerate(labels):
        friends = [j for j, other in enumerate(labels) if other == pid]
        e = []
        for j in friends:
            value = score[:d] @ h[i] + score[d:] @ h[j]
            e.append(value if value > 0 else 0.2 * value)
        total = sum(math.exp(value) for value in e)
        outputs.append(sum(math.exp(v) / total * h[j] for v, j in zip(e, friends, strict=True)))
    return np.array(outputs)


def elu(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def loss_by_loop(loss: Graph, x: np.ndarray, labels: Sequence[int]) -> list[float]:
    parameters = [p.detach().numpy() for p in (*loss.heads.parameters(), *loss.last.parameters())]
    heads, scores, last, final = parameters
    joined = np.concatenate(
        [elu(layer_by_loop(x, w, a, labels)) for w, a in zip(heads, scores, strict=True)], 1
    )
    logits = layer_by_loop(joined, last[0], final[0], labels)
    logits = elu(logits) if loss.elu else logits
    return [
        -row[pid] + math.log(sum(math.exp(value) for value in row))
        for row, pid in zip(logits, labels, strict=True)
    ]


LABELS = [2, 0, 2, 4, 0, 2, 4, 0]
MODALITY = [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("activation", ["elu", "none"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equals_a_loop_over_nodes(heads, activation, reduction):
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    loss = made(6, 5, heads=heads, dim=4, activation=activation, reduction=reduction)
    expected = loss_by_loop(loss, x.numpy(), LABELS)
    expected = sum(expected) / (8 if reduction == "mean" else 1)
    value, terms = loss({"neck.pooled": x}, batch_of(LABELS, MODALITY))
    assert value.item() == pytest.approx(expected, rel=1e-10)
    assert terms["nll"].item() == value.item() and terms["balance"].item() == 1


def test_identities_do_not_touch_each_other():
    """A node's gradient comes from its own identity; the order of nodes does not matter."""
    x = torch.randn(8, 6, dtype=torch.float64).requires_grad_()
    loss, batch = made(6, 5, dim=4), batch_of(LABELS, MODALITY)
    logits = loss.logits(x, batch.pid)
    (gradient,) = torch.autograd.grad(logits[0].sum(), x, retain_graph=True)
    assert [bool(row.any()) for row in gradient] == [pid == LABELS[0] for pid in LABELS]
    order = torch.tensor([5, 1, 7, 0, 2, 6, 4, 3])
    torch.testing.assert_close(loss.logits(x[order], batch.pid[order]), logits[order])


@pytest.mark.parametrize("per_id", range(1, 6))
def test_nodes_are_taken_from_both_modalities_in_turn(per_id):
    """The first picture of each modality, then the second, and so on; where one is used up, the
    other goes on. With as many as there are, nothing changes."""
    draw = np.random.default_rng(per_id)
    pid = draw.integers(0, 4, 40)
    modality = draw.integers(0, 2, 40)
    expected: list[int] = []
    for one in set(pid.tolist()):
        mine = [[i for i in range(40) if pid[i] == one and modality[i] == kind] for kind in (0, 1)]
        turns = [side[turn] for turn in range(40) for side in mine if turn < len(side)]
        expected += turns[:per_id]
    batch = batch_of(pid, modality)
    assert chosen(batch, per_id).tolist() == sorted(expected)
    x = torch.randn(40, 6, dtype=torch.float64)
    loss = made(6, 4, dim=3, per_id=per_id)
    nodes = torch.tensor(sorted(expected))
    part = Batch(batch.images[nodes], batch.pid[nodes])
    whole = made(6, 4, dim=3)
    whole.load_state_dict(loss.state_dict())
    torch.testing.assert_close(nll(loss, x, batch), nll(whole, x[nodes], part))
    loss.per_id = 40
    torch.testing.assert_close(nll(loss, x, batch), nll(whole, x, batch))


def test_dropout_acts_in_training_only():
    """Dropout changes the training loss from call to call, not the one in eval mode."""
    x, batch = torch.randn(8, 6).double(), batch_of(LABELS)
    loss = made(6, 5, dim=4, dropout=0.2)
    assert nll(loss, x, batch) != nll(loss, x, batch)
    loss.eval()
    plain = made(6, 5, dim=4)
    plain.load_state_dict(loss.state_dict())
    assert nll(loss, x, batch) == nll(loss, x, batch) == nll(plain, x, batch)


def test_its_share_follows_the_balanced_losses():
    """Equation 11: 0 in the first epoch, then 1 / (1 + the sum of the others' means); it is in the
    state, and a loss without balance counts fully for good."""
    x, batch = torch.randn(8, 6).double(), batch_of(LABELS)
    loss = made(6, 5, dim=4, balance=["id", "triplet"])
    value, terms = loss({"neck.pooled": x}, batch)
    assert value == 0 and terms["nll"] > 0
    value.backward()
    assert all(parameter.grad is not None for parameter in loss.parameters())
    means = {"id": 2.5, "triplet": 0.5, "graph": 9.0, "id.accuracy": 0.3}
    loss.after_epoch(means)
    value, terms = loss({"neck.pooled": x}, batch)
    assert value.item() == pytest.approx(terms["nll"].item() / 4)
    again = made(6, 5, dim=4, balance=["id", "triplet"])
    again.load_state_dict(loss.state_dict())
    assert again({"neck.pooled": x}, batch)[0] == value
    assert made(6, 5, balance=["id"], first=0.5).factor == 0.5
    full = made(6, 5)
    full.after_epoch(means)
    assert full.factor == 1


def test_half_precision_is_computed_in_float32():
    loss = made(6, 5, dim=4).float()
    x = torch.randn(8, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half = nll(loss, x, batch_of(LABELS))
    assert half.dtype == torch.float32 and half == nll(loss, x.float(), batch_of(LABELS))


@pytest.mark.parametrize(
    ("keys", "given", "field", "text"),
    [
        ({}, {"identities": 1}, "", "at least two training identities; the data have 1"),
        ({"per_id": 9}, {}, "per_id", "is 9, but batches have 8 pictures of an identity"),
        ({"first": 0.5}, {}, "first", "is 0.5, but nothing balances the loss"),
    ],
)
def test_settings_that_do_not_fit_are_refused(keys, given, field, text):
    facts = {"identities": 5, "batch": BatchShape(64, 8, 8), **given}
    with pytest.raises(WiringError) as caught:
        Settings(feature="neck.pooled", **keys).check(Given((8, 8), **facts))
    assert caught.value.field == field and text in str(caught.value)
    Settings(feature="neck.pooled", per_id=8).check(
        Given((8, 8), identities=5, batch=BatchShape(64, 8, 8))
    )
