"""Losses and miners of pytorch-metric-learning: their numbers, what they keep, what is refused."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses, miners
from torch import Tensor

from reid_metric_learning.classes import keywords
from reid_metric_learning.loss import MetricLoss, build_loss
from reid_metric_learning.wiring import MetricLoss as Settings
from reidcore.api import BatchShape, Feature, Given, WiringError
from reidcore.modules import Batch, Context, Images

LENGTH, IDENTITIES = 8, 5
LABELS = [0, 0, 1, 1, 2, 2, 4, 4]
NEEDED = {"RankedListLoss": {"margin": 0.4, "Tn": 1}, "ManifoldLoss": {"l": LENGTH}}
"""Arguments that have no default."""
CLASSES = {
    name: value
    for name, value in vars(losses).items()
    if inspect.isclass(value)
    and not name.startswith(("Base", "Generic"))
    and not name.endswith("Mixin")
}
REFUSED = {
    "CrossBatchMemory": "keeps the features of earlier batches while it computes",
    "DynamicSoftMarginLoss": "keeps something of every batch for the next one and saves it nowhere",
    "ManifoldLoss": "does not work on a batch of vectors and identities .* are not supported",
    "MultipleLosses": r"only adds other losses up; give each of them its own \[\[loss\]\]",
    "P2SGradLoss": "changes its own weights while it computes",
    "SelfSupervisedLoss": "compares two augmented pictures of each row, and a batch has one",
    "VICRegLoss": "does not work on a batch of vectors and identities .* are not supported",
}


def given(**changes: Any) -> Given:
    defaults: dict[str, Any] = {
        "identities": IDENTITIES,
        "features": {"neck.bn": Feature.vector(LENGTH)},
        "batch": BatchShape(8, 4, 2),
    }
    return Given((64, 32), **(defaults | changes))


def settings(loss: str, **keys: Any) -> Settings:
    return Settings(feature="neck.bn", loss=loss, **({"arguments": NEEDED.get(loss, {})} | keys))


def built(loss: str, seed: int = 0, **keys: Any) -> MetricLoss:
    torch.manual_seed(seed)
    return build_loss(settings(loss, **keys), Context(given(), "metric"))


def vectors(seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(len(LABELS), LENGTH, generator=draw, requires_grad=True)


def result(loss: MetricLoss, x: Tensor, labels: list[int] = LABELS) -> tuple[Tensor, dict]:
    pid = torch.tensor(labels)
    none = torch.zeros_like(pid)
    images = Images(torch.zeros(len(pid), 3, 1, 1), none, none)
    torch.manual_seed(3)
    return loss({"neck.bn": x}, Batch(images, pid))


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_works_or_is_refused(name):
    """What the library has is a loss whose forward changes nothing and whose state is all in its
    state_dict, or is refused when a run is wired, with the reason."""
    if name in REFUSED:
        with pytest.raises(WiringError, match=REFUSED[name]):
            settings(name).check(given())
        return
    settings(name).check(given())
    loss, other = built(name, seed=0), built(name, seed=1)
    first, second = vectors(1), vectors(2)
    value, _ = result(loss, first)
    assert value.shape == () and value.isfinite()
    value.backward()
    assert first.grad.abs().sum() > 0
    optimizer = torch.optim.SGD([*loss.parameters(), torch.zeros(1, requires_grad=True)], lr=0.1)
    optimizer.step()
    kept = copy.deepcopy(loss.state_dict())
    expected, terms = result(loss, second)
    assert all(torch.equal(value, loss.state_dict()[key]) for key, value in kept.items())
    other.load_state_dict(kept)
    again, same_terms = result(other, second)
    assert torch.equal(again, expected) and terms == same_terms


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - REFUSED.keys()))
def test_weights_of_identities_have_the_runs_sizes(name):
    """Losses that are built for classes get the run's, and their weights have a gradient."""
    loss = built(name)
    if {"num_classes", "embedding_size"} <= keywords(CLASSES[name]).keys():
        (weight,) = loss.parameters()
        assert weight.numel() % (IDENTITIES * LENGTH) == 0
        result(loss, vectors())[0].backward()
        assert weight.grad.abs().sum() > 0
    else:
        assert not list(loss.parameters())


def naive_arcface(x: Tensor, weight: Tensor, labels: list[int]) -> tuple[float, float]:
    """Deng et al. 2019, eq. 3, with the library's margin of 28.6 degrees and scale of 64, and the
    share of rows whose own class is nearest, by loops in float64."""
    loss, right = 0.0, 0
    for row, label in zip(x.double().tolist(), labels, strict=True):
        cosines = []
        for one in weight.double().T.tolist():
            product = sum(a * b for a, b in zip(row, one, strict=True))
            cosines.append(product / math.hypot(*row) / math.hypot(*one))
        right += max(range(len(cosines)), key=cosines.__getitem__) == label
        angle = math.acos(cosines[label]) + math.radians(28.6)
        assert angle < math.pi
        logits = [64 * cosine for cosine in cosines]
        logits[label] = 64 * math.cos(angle)
        loss += math.log(sum(math.exp(one - logits[label]) for one in logits))
    return loss / len(labels), right / len(labels)


def test_arcface_and_its_accuracy():
    loss, x = built("ArcFaceLoss"), vectors(1)
    value, terms = result(loss, x)
    (weight,) = loss.parameters()
    expected, accuracy = naive_arcface(x.detach(), weight.detach(), LABELS)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert terms["accuracy"].item() == accuracy and 0 < accuracy < 1


def naive_mined_triplets(x: Tensor, labels: list[int]) -> tuple[float, int]:
    """Every row with its farthest positive and nearest negative, by loops; the mean of the excess
    over a margin of 0.7 where there is one, of Euclidean distances of the vectors as they are."""
    rows = x.double().tolist()
    excess = []
    for i, own in enumerate(labels):
        distances = [math.dist(rows[i], other) for other in rows]
        far = max(d for j, d in enumerate(distances) if labels[j] == own and j != i)
        near = min(d for j, d in enumerate(distances) if labels[j] != own)
        excess.append(max(0.0, far - near + 0.7))
    active = [one for one in excess if one > 0]
    return sum(active) / len(active), len(labels)


def test_a_miner_and_a_distance_with_arguments():
    """Triplets of the hardest pairs, with the loss's and the miner's distance not normalised."""
    raw = {"use": "LpDistance", "normalize_embeddings": False}
    loss = built(
        "TripletMarginLoss",
        arguments={"margin": 0.7, "distance": raw},
        miner="BatchHardMiner",
        miner_arguments={"distance": raw},
    )
    x = vectors()
    value, terms = result(loss, x)
    expected, count = naive_mined_triplets(x.detach(), LABELS)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert terms == {"mined": count}


@pytest.mark.parametrize(
    ("miner", "arguments", "labels", "count"),
    [
        # All pairs of a batch with their order: 8 of one identity, and 48 of two.
        ("BatchEasyHardMiner", {"pos_strategy": "all", "neg_strategy": "all"}, LABELS, 56),
        # Each of 8 rows with its one positive and the 6 negatives.
        ("TripletMarginMiner", {"margin": 100}, LABELS, 48),
        # No row has a positive.
        ("TripletMarginMiner", {}, [0, 1, 2, 3, 4], 0),
    ],
    ids=["pairs", "triplets", "none"],
)
def test_the_number_of_what_is_mined(miner, arguments, labels, count):
    """Pairs or triplets are counted; where there are none the loss is 0 and still has a graph."""
    loss = built("TripletMarginLoss", miner=miner, miner_arguments=arguments)
    value, terms = result(loss, vectors()[: len(labels)], labels)
    assert terms["mined"].item() == count
    assert value.requires_grad and (count > 0 or value.item() == 0)


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, one in vars(miners).items()
        if inspect.isclass(one) and name not in ("BaseMiner", "EmbeddingsAlreadyPackagedAsTriplets")
    ),
)
def test_every_miner_leaves_nothing_behind(name):
    """A miner works with a loss, and its attributes are the same after a forward pass."""
    settings("TripletMarginLoss", miner=name).check(given())
    loss = built("TripletMarginLoss", miner=name)
    before = {key: repr(value) for key, value in vars(loss.miner).items()}
    result(loss, vectors())
    assert before == {key: repr(value) for key, value in vars(loss.miner).items()}


def test_it_computes_in_float32_under_autocast():
    """Training in mixed precision gives the loss as without."""
    loss, x = built("ProxyAnchorLoss", miner="MultiSimilarityMiner"), vectors()
    plain, _ = result(loss, x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = result(loss, x)
    assert torch.equal(plain, mixed)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"loss": "TripletMarginLos"},
            r"loss names 'TripletMarginLos', which is no loss of pytorch-metric-learning [\d.]+, "
            r"did you mean 'TripletMarginLoss'\? There are AngularLoss, ArcFaceLoss, ",
        ),
        ({"loss": "GenericPairLoss"}, "loss names 'GenericPairLoss', which is no loss of"),
        (
            {"miner": "MultiSimMiner"},
            "miner names 'MultiSimMiner', which is no miner of .*, did you mean 'MultiSimilarity",
        ),
        ({"miner": "BaseMiner"}, "miner names 'BaseMiner', which is no miner of"),
        (
            {"arguments": {"margn": 0.1}},
            r"arguments have 'margn', which TripletMarginLoss does not take, did you mean "
            r"'margin'\? TripletMarginLoss takes distance, .*, margin = 0\.05, reducer, ",
        ),
        (
            {"arguments": {"collect_stats": True}},
            "arguments have 'collect_stats', which TripletMarginLoss does not take",
        ),
        (
            {"arguments": {"margin": "big"}},
            "arguments have margin = 'big', but TripletMarginLoss takes a number there",
        ),
        (
            {"arguments": {"margin": True}},
            "arguments have margin = True, but TripletMarginLoss takes a number there",
        ),
        (
            {"arguments": {"swap": 1}},
            "arguments have swap = 1, but TripletMarginLoss takes true or false there",
        ),
        (
            {"arguments": {"triplets_per_anchor": 0.5}},
            "have triplets_per_anchor = 0.5, but .* takes a text or an integer there",
        ),
        (
            {"loss": "HistogramLoss", "arguments": {"n_bins": 10.5}},
            "arguments have n_bins = 10.5, but HistogramLoss takes an integer there",
        ),
        (
            {"arguments": {"margin": {"use": "LpDistance"}}},
            "have margin = .*, but TripletMarginLoss takes a number there",
        ),
        (
            {"loss": "RankedListLoss", "arguments": {}},
            "arguments lack margin, Tn, which RankedListLoss needs",
        ),
        (
            {"loss": "ArcFaceLoss", "arguments": {"num_classes": 3}},
            "arguments have 'num_classes', which the run gives to ArcFaceLoss itself",
        ),
        (
            {"loss": "ArcFaceLoss", "arguments": {"distance": "LpDistance"}},
            "arguments do not suit ArcFaceLoss: AssertionError: .* CosineSimilarity",
        ),
        (
            {"arguments": {"distance": "CosinSimilarity"}},
            "arguments name 'CosinSimilarity', which is no distance of .* mean 'CosineSimilarity'",
        ),
        (
            {"arguments": {"distance": {"use": "LpDistance", "q": 1}}},
            "arguments have 'q', which LpDistance does not take. LpDistance takes is_inverted",
        ),
        (
            {"arguments": {"distance": {"p": 1}}},
            "have distance = .* takes the name of a class there, or a table such as",
        ),
        (
            {"arguments": {"reducer": "DoNothingReducer"}},
            "loss is 'TripletMarginLoss', which does not work .*: it is not reduced to one number",
        ),
        (
            {"loss": "PNPLoss", "miner": "BatchHardMiner"},
            "loss is 'PNPLoss' with the miner 'BatchHardMiner', .* indices_tuple is not supported",
        ),
        (
            {"miner": "EmbeddingsAlreadyPackagedAsTriplets"},
            "with the miner 'EmbeddingsAlreadyPackagedAsTriplets', which does not work on a batch",
        ),
        ({"miner_arguments": {"epsilon": 0.1}}, "miner_arguments are for a miner, but"),
        (
            {"miner": "MultiSimilarityMiner", "miner_arguments": {"epsilom": 0.1}},
            "miner_arguments have 'epsilom', which .* does not take, did you mean 'epsilon'",
        ),
    ],
    ids=str,
)
def test_messages(keys, message):
    """Names, keys and types are checked against the installed library when a run is wired."""
    keys = {"loss": "TripletMarginLoss"} | keys
    with pytest.raises(WiringError, match=message):
        settings(**keys).check(given())


def test_triplets_that_do_not_fit_the_identities_are_refused():
    """Batches in the order of triplets, which this miner expects, are no run's."""
    shape = BatchShape(9, 3, 3)
    with pytest.raises(WiringError, match=r"miner is .*, which does not go by the identities of"):
        settings("TripletMarginLoss", miner="EmbeddingsAlreadyPackagedAsTriplets").check(
            given(batch=shape)
        )


def test_a_loss_is_tried_on_batches_as_the_sampler_makes_them():
    """Smooth-AP needs as many pictures of every identity, which a shuffled batch has not."""
    loss = settings("SmoothAPLoss")
    loss.check(given())
    with pytest.raises(WiringError, match="All classes must have the same number of elements"):
        loss.check(given(batch=BatchShape(32)))


def test_one_identity_is_refused():
    with pytest.raises(WiringError, match="two training identities; the data have 1"):
        settings("ArcFaceLoss").check(given(identities=1))


def test_the_trial_leaves_no_trace():
    """Wiring draws random numbers of its own, and does not make the weights of a million."""
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    settings("SoftTripleLoss").check(given(identities=10**9))
    assert torch.equal(torch.rand(3), expected)
