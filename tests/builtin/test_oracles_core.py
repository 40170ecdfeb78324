"""The core's metrics and losses against vectors made by the published implementations."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs
import numpy as np
import pytest
import torch

from reidcore.api import Feature, Given
from reidcore.builtin import settings
from reidcore.builtin.distances import cosine_similarity, euclidean
from reidcore.builtin.heads import build_bnneck
from reidcore.builtin.losses import batch_hard, build_softmax, build_triplet
from reidcore.builtin.matchers import build_cosine
from reidcore.evaluation.metrics import draw_shots, rank_queries, summarize
from reidcore.modules import Batch, Context, Images, Matcher
from reidcore.runfiles.tables import Optim, Steps, Warmup
from reidcore.training.optimizers import rate_factor
from tests.oracles import Vectors, oracle

pytestmark = pytest.mark.oracle


def batch_of(labels: torch.Tensor) -> Batch:
    """A batch of which only the labels matter."""
    none = torch.zeros(len(labels), dtype=torch.int64)
    return Batch(Images(torch.zeros(len(labels), 3, 1, 1), none, none), labels)


def context_of(identities: int = 2, matchers=None, wanted=(), **vectors: int) -> Context:
    """A context with vector features "x.NAME" of the given lengths."""
    features = {f"x.{name}": Feature.vector(length) for name, length in vectors.items()}
    given = Given((1, 1), identities=identities, features=features)
    return Context(given, "part", wanted, matchers)


def classify(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """`core.softmax` on given logits: its classifier becomes the identity."""
    classes = logits.shape[1]
    config = settings.Softmax(features=["x.logits"], smoothing=smoothing)
    loss = build_softmax(config, context_of(classes, logits=classes)).to(logits.dtype)
    with torch.no_grad():
        loss.classifier.weight.copy_(torch.eye(classes))
    return loss({"x.logits": logits}, batch_of(labels))[0]


def chosen(distances: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Columns whose distances `batch_hard` takes, read from its gradients."""
    distances = distances.detach().requires_grad_()
    gradients = [
        torch.autograd.grad(value.sum(), distances, retain_graph=True)[0]
        for value in batch_hard(distances, labels)
    ]
    return gradients[0].argmax(1).numpy(), gradients[1].argmax(1).numpy()


def parallel_sums(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Sums gradients over rows of x that are multiples of each other.

    Which of such rows takes the gradient of their common cosine distance is open; scaled by its
    length, the sum is the same.
    """
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / length
    groups = (unit @ unit.T > 1 - 1e-12).astype(x.dtype)
    return lambda gradient: groups @ (gradient * length)


Masks = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def masks(vectors: Vectors, dist: str, ids: tuple[str, str], cams: tuple[str, str] | None) -> Masks:
    """Distances, matches, and what is ignored, which is nothing without cameras."""
    query, gallery = (vectors.input(name) for name in ids)
    match = query[:, None] == gallery
    ignored = torch.zeros_like(match)
    if cams is not None:
        query, gallery = (vectors.input(name) for name in cams)
        ignored = match & (query[:, None] == gallery)
    return vectors.input(dist), match, ignored


def market(vectors: Vectors, case: str, cameras: bool = True) -> Masks:
    """`masks` for the array names of the Market-style file."""
    return masks(
        vectors,
        f"{case}_dist",
        (f"{case}_q_ids", f"{case}_g_ids"),
        (f"{case}_q_cams", f"{case}_g_cams") if cameras else None,
    )


def test_market_style_scores_equal_the_published_evaluators():
    """AP, CMC, INP and mAP equal those of four evaluators, with and without same-camera removal,
    with queries that have no match, and with ties in every mode; those of Market-1501's own
    program, by trapezoids and over all queries; and CMC of galleries of one drawn picture each."""
    with oracle("protocols/market_style_eval") as vectors:
        for case in (name.removesuffix("_AP") for name in vectors.names("*_AP")):
            given = market(vectors, case)
            each = rank_queries(*given)
            valid = each.matches > 0
            vectors.compare(f"{case}_AP", each.ap[valid], rtol=1e-12)
            vectors.compare(f"{case}_INP", each.inp[valid], rtol=1e-12)
            scores = summarize([each], vectors.arrays[f"{case}_cmc"].size)
            vectors.compare(f"{case}_mAP", scores.map, rtol=1e-12)
            vectors.compare(f"{case}_cmc", scores.cmc, rtol=1e-12)
            free = rank_queries(*market(vectors, case, cameras=False))
            scores = summarize([free], vectors.arrays[f"{case}_nocam_cmc"].size)
            vectors.compare(f"{case}_nocam_mAP", scores.map, rtol=1e-12)
            vectors.compare(f"{case}_nocam_cmc", scores.cmc, rtol=1e-6)  # stored in float32
            official = rank_queries(*given, precision="trapezoid")
            scores = summarize([official], vectors.arrays[f"{case}_matlab_cmc"].size, "all")
            vectors.compare(f"{case}_matlab_mAP", scores.map, rtol=1e-12)
            vectors.compare(f"{case}_matlab_cmc", scores.cmc, rtol=1e-12)
        for mode, array in (
            ("gallery", "ties_mAP_stable"),
            ("grouped", "ties_openreid_mAP"),
            ("optimistic", "ties_mAP_optimistic"),
            ("pessimistic", "ties_mAP_pessimistic"),
        ):
            scores = summarize([rank_queries(*market(vectors, "ties"), ties=mode)])
            vectors.compare(array, scores.map, rtol=1e-12)

        given = market(vectors, "cuhk")
        each = rank_queries(*given)
        vectors.compare("cuhk_mAP", summarize([each]).map, rtol=1e-12)
        draw = np.random.RandomState(int(vectors.input("cuhk_numpy_seed")))
        repeats = int(vectors.number("cuhk_cmc", r"(\d+) repeats"))
        first = draw_shots(*given, vectors.input("cuhk_g_ids"), draw, repeats)
        size = vectors.arrays["cuhk_cmc"].size
        scores = summarize([attrs.evolve(each, first=first)], size)
        vectors.compare("cuhk_cmc", scores.cmc, rtol=1e-6)  # stored in float32


@pytest.mark.parametrize("name", ["eval_cmc_map_20_80", "eval_map_ties_20_80"])
def test_open_reid_scores_equal_qaconvs_evaluation(name):
    """AP by steps and by trapezoids, mAP, CMC and the number of valid queries equal QAConv's, with
    ties grouped, with junk detections in the gallery and without."""
    with oracle(f"qaconv/{name}") as vectors:
        close = {"rtol": vectors.sidecar["suggested_tolerance"]["float64"]}
        ids, cams = ("query_ids", "gallery_ids"), ("query_cams", "gallery_cams")
        distances, match, ignored = masks(vectors, "dist", ids, cams)
        junk = (vectors.input("gallery_ids") == -1).expand_as(match)
        for case, left_out in (("all", ignored), ("nojunk", ignored | junk)):
            for precision in ("step", "trapezoid"):
                each = rank_queries(distances, match, left_out, "grouped", precision)
                ap = torch.where(each.matches > 0, each.ap, torch.nan)
                vectors.compare(f"{case}_ap_{precision}", ap, **close)
                vectors.compare(f"{case}_map_{precision}", summarize([each]).map, **close)
            vectors.compare(f"{case}_num_valid_queries", summarize([each]).valid)
            if (cmc := vectors.arrays.get(f"{case}_cmc")) is not None:
                vectors.compare(f"{case}_cmc", summarize([each], cmc.size).cmc, **close)


def test_qaconvs_published_scores_are_trapezoids_of_grouped_ties():
    """Rank-1 and mAP of the authors' distances, re-ranked distances and lifted similarities, as
    the tables of the paper have them."""
    with oracle("qaconv/pipeline_16_60") as vectors:
        ids, cams = ("query_ids", "gallery_ids"), ("query_cams", "gallery_cams")
        distances, *counted = masks(vectors, "dist_pg", ids, cams)
        for stage, ranked in (
            ("qaconv", distances),
            ("rerank", vectors.input("rerank_authors")),
            ("rerank_tlift", 1 - vectors.input("tlift_score_authors")),
        ):
            scores = summarize([rank_queries(ranked, *counted, "grouped", "trapezoid")], 1)
            vectors.compare(f"rank1_map_{stage}", [scores.cmc.item(), scores.map], rtol=1e-6)
        vectors.later("*_fea", "QAConv's matcher is its plugin's")
        for pattern in ("full_dist", "*bn_*", "fc_*", "*_times", "*_float64"):
            vectors.later(pattern, "what the distances are made from is compared elsewhere")


def test_euclidean_triplet_equals_ddags():
    """Loss, gradient and number of satisfied anchors equal DDAG's, and with weights AGW's,
    duplicates included."""
    with oracle("ddag/triplet") as vectors:
        for number, case in enumerate(vectors.sidecar["cases"]):
            prefix = f"c{number}"
            x = vectors.input(f"{prefix}_x").requires_grad_()
            labels = vectors.input(f"{prefix}_labels")
            config = settings.Triplet(feature="x.x", margin=case["margin"])
            loss, _ = build_triplet(config, context_of(x=x.shape[1]))({"x.x": x}, batch_of(labels))
            loss.backward()
            vectors.compare(f"{prefix}_hard_loss", loss, rtol=1e-10)
            atol = 1e-6 if case["duplicates"] else 1e-9
            vectors.compare(f"{prefix}_hard_grad", x.grad, rtol=1e-7, atol=atol)
            positive, negative = batch_hard(euclidean(x, x), labels)
            vectors.compare(f"{prefix}_hard_correct", (negative >= positive).sum())
            for name, metric in (("wrt", "euclidean"), ("wrt_norm", "unit")):
                x.grad = None
                config = settings.Triplet(
                    feature="x.x", metric=metric, mining="weighted", soft=True
                )
                triplet = build_triplet(config, context_of(x=x.shape[1]))
                loss, terms = triplet({"x.x": x}, batch_of(labels))
                loss.backward()
                vectors.compare(f"{prefix}_{name}_loss", loss, rtol=1e-10)
                vectors.compare(f"{prefix}_{name}_grad", x.grad, rtol=1e-7, atol=atol)
                right = len(labels) * (1 - terms["hard"].double())
                vectors.compare(f"{prefix}_{name}_correct", right.round().long())


def test_cosine_triplet_equals_airnets_equation():
    """Distances, hardest pairs, losses and gradients equal AIR-Net's equation 6."""
    with oracle("airnet/triplet_cosine") as vectors:
        for case in vectors.sidecar["cases"]:
            prefix = case["prefix"]
            feat = vectors.input(f"{prefix}_feat").requires_grad_()
            labels = vectors.input(f"{prefix}_labels")
            distances = 1 - cosine_similarity(feat, feat)
            positive, negative = batch_hard(distances, labels)
            close = {"rtol": 1e-9, "atol": 1e-12}
            vectors.compare(f"{prefix}_D", distances, **close)
            vectors.compare(f"{prefix}_ap", positive, **close)
            vectors.compare(f"{prefix}_an", negative, **close)
            for kind, taken, worse in (
                ("p", chosen(distances, labels)[0], -torch.inf),
                ("n", chosen(distances, labels)[1], torch.inf),
            ):
                same = labels[:, None] == labels
                fits = same if kind == "p" else ~same
                order = distances.detach().masked_fill(~fits, worse).sort(1).values
                gap = order[:, -1] - order[:, -2] if kind == "p" else order[:, 1] - order[:, 0]
                expected = vectors.arrays[f"{prefix}_{kind}_index"]
                # Where two candidates tie, either is right.
                taken = np.where(gap > 1e-9, taken, expected)
                vectors.compare(f"{prefix}_{kind}_index", taken)
            hinge = torch.relu(positive - negative + case["margin"])
            vectors.compare(f"{prefix}_hinge", hinge, **close)

            config = settings.Triplet(feature="x.x", metric="cosine", margin=case["margin"])
            loss, _ = build_triplet(config, context_of(x=feat.shape[1]))(
                {"x.x": feat}, batch_of(labels)
            )
            loss.backward()
            vectors.compare(f"{prefix}_loss_mean", loss, **close)
            vectors.compare(f"{prefix}_loss_sum", loss * len(feat), **close)
            if case["special"] == "dups":
                grad = {"atol": 1e-6, "through": parallel_sums(feat.detach().numpy())}
            else:
                grad = close
            vectors.compare(f"{prefix}_grad_mean", feat.grad, **grad)
        vectors.later(
            "*_printed_sign_loss_sum", "a misprint, stored for documentation: no component has it"
        )


def test_necks_losses_and_descriptor_equal_airnets():
    """Three necks with their classifiers and cosine triplets give AIR-Net's terms and total, and
    its two descriptors their cosine distances."""
    with oracle("airnet/loss_and_descriptor") as vectors:
        close = {"rtol": 1e-9, "atol": 1e-12}
        labels = vectors.input("labels")
        batch = batch_of(labels)
        names = [name.removesuffix("_v") for name in vectors.names("*_v")]
        entropy, triplet, sides = [], [], {"q": {}, "g": {}}
        for name in names:
            x = vectors.input(f"{name}_v")
            weight = vectors.input(f"{name}_W")
            context = context_of(len(weight), wanted=("pooled", "bn"), v=x.shape[1])
            neck = build_bnneck(settings.BNNeck(source="x.v", shift=True), context).double()
            with torch.no_grad():
                neck.norm.weight.copy_(vectors.input(f"{name}_gamma"))
                neck.norm.bias.copy_(vectors.input(f"{name}_beta"))
            out = neck({"x.v": x}, batch.images)
            vectors.compare(f"{name}_bn_train", out["bn"], **close)

            softmax = build_softmax(settings.Softmax(features=["x.v"]), context).double()
            with torch.no_grad():
                softmax.classifier.weight.copy_(weight)
            vectors.compare(f"{name}_logits", softmax.classifier(out["bn"]), **close)
            entropy.append(softmax({"x.v": out["bn"]}, batch)[0])
            vectors.compare(f"{name}_ce", entropy[-1], **close)

            margin = vectors.number(f"{name}_tri", r"margin ([\d.]+)")
            config = settings.Triplet(feature="x.v", metric="cosine", margin=margin)
            triplet.append(build_triplet(config, context)({"x.v": out["pooled"]}, batch)[0])
            vectors.compare(f"{name}_tri", triplet[-1], **close)

            neck.eval()
            neck.norm.running_mean.copy_(vectors.input(f"{name}_run_mean"))
            neck.norm.running_var.copy_(vectors.input(f"{name}_run_var"))
            for side, features in sides.items():
                x = vectors.input(f"{name}_{side}")
                features[f"x.{name}"] = neck({"x.v": x}, batch.images)["bn"]
                vectors.compare(f"{name}_{side}_bn", features[f"x.{name}"], **close)
        total = torch.stack(entropy).mean() + torch.stack(triplet).mean()
        vectors.compare("total_mean", total, **close)
        vectors.compare("total_sum", total * len(labels), **close)

        lengths = {name: sides["q"][f"x.{name}"].shape[1] for name in names}
        for array, each in (("concat", False), ("per_branch_l2", True)):
            config = settings.Cosine(features=[f"x.{name}" for name in names], each=each)
            matcher = build_cosine(config, context_of(**lengths))
            templates = {side: matcher.template(sides[side]) for side in sides}
            for side, template in templates.items():
                # Each branch is normalised in `distance`, so that stored views can be averaged.
                vector = matcher.descriptor(template)
                vectors.compare(f"desc_{side}_{array}", vector, **close)
            distances = 2 * matcher.distance(templates["q"], templates["g"])
            vectors.compare(f"dist_{array}", distances, **close)


class GivenDistances(Matcher):
    """A matcher whose distances are given: its template is the row's number."""

    def __init__(self, distances: torch.Tensor):
        super().__init__()
        self.distances = distances

    def template(self, features):
        return {"row": features["x.row"]}

    def distance(self, a, b):
        return self.distances[a["row"]][:, b["row"]]


def test_losses_equal_ipads():
    """Cross-entropy, its smoothed form, the triplets on features and on a matcher's distances, and
    the three totals equal IPAD's."""
    with oracle("ipad/losses") as vectors:
        labels = vectors.input("labels")
        close = {"rtol": 1e-10}

        entropy = {}
        for branch in ("g", "s"):
            logits = vectors.input(f"logits_{branch}")
            for kind in ("ls", "plain"):
                array = f"ce_{branch}_{kind}"
                smoothing = vectors.number(array, r"label smoothing ([\d.]+)")
                entropy[array] = classify(logits, labels, smoothing)
                vectors.compare(array, entropy[array], **close)

        triplet = {}
        for branch in ("g", "s", "m", "mpre"):
            array = f"tri_{branch}"
            margin = vectors.number(array, r"margin ([\d.]+)")
            if branch in ("g", "s"):
                x = vectors.input(branch)
                config = settings.Triplet(feature="x.x", margin=margin)
                loss = build_triplet(config, context_of(x=x.shape[1]))
                triplet[branch] = loss({"x.x": x}, batch_of(labels))[0]
                distances = euclidean(x, x)
                # The loss's distance is at least 1e-6, so that its root has a gradient.
                vectors.compare(f"D_{branch}", distances, rtol=1e-10, atol=2e-6)
            else:
                distances = vectors.input(f"D_{branch}")
                config = settings.Triplet(matcher="given", margin=margin)
                loss = build_triplet(
                    config, context_of(matchers={"given": GivenDistances(distances)})
                )
                rows = {"x.row": torch.arange(len(labels))}
                triplet[branch] = loss(rows, batch_of(labels))[0]
            positive, negative = batch_hard(distances, labels)
            vectors.compare(f"{array}_ap", positive, **close)
            vectors.compare(f"{array}_an", negative, **close)
            vectors.compare(array, triplet[branch], **close)

        first = triplet["g"] + entropy["ce_g_ls"]
        second = triplet["s"] + entropy["ce_s_ls"]
        vectors.compare("total_v1", first + triplet["m"], **close)
        vectors.compare("total_v2", first + second, **close)
        vectors.compare("total_ipad", first + second + triplet["m"], **close)
        # What D_m and D_mpre are made from: the mutual distance is a component of the plugin ipad.
        vectors.inputs_only("K", "f")


def rates(vectors: Vectors, array: str, base: float) -> np.ndarray:
    """Learning rates of all epochs of a schedule that the side-car states in words."""
    words = _words(vectors, array)
    listed = re.search(r"milestones \[([\d, ]+)\]", words)
    assert listed
    warmup = None
    if found := re.search(r"warm-up (\d+) epochs from (\d+)%", words):
        # Their rise ends after that many epochs, ours in the epoch with that number.
        warmup = Warmup(epochs=int(found[1]) + 1, start=int(found[2]) / 100)
    steps = Steps(at=[int(epoch) for epoch in listed[1].split(",")], by=0.1)
    optim = Optim(lr=base, steps=steps, warmup=warmup)
    epochs = vectors.arrays[array].size
    return np.array([base * rate_factor(optim, epoch, epochs) for epoch in range(epochs)])


def test_losses_schedules_and_metrics_equal_msinets():
    """Smoothed cross-entropy and both triplets with gradients, all learning rates, distances, CMC
    and mAP equal those of MSINet's program."""
    close = {"rtol": 1e-6, "atol": 1e-9}
    with oracle("msinet/g_extras") as vectors:
        labels = vectors.input("loss/labels")
        logits = vectors.input("loss/logits").double().requires_grad_()
        loss = classify(logits, labels, vectors.number("loss/ce_smooth", r"smoothing ([\d.]+\d)"))
        vectors.compare("loss/ce_smooth", loss, **close)
        vectors.compare("loss/ce_smooth_grad", torch.autograd.grad(loss, logits)[0], **close)
        margin = vectors.number("loss/triplet_norm", r"margin ([\d.]+\d)")
        for array, metric in (("loss/triplet_norm", "unit"), ("loss/triplet_raw", "euclidean")):
            x = vectors.input("loss/embeddings").double().requires_grad_()
            config = settings.Triplet(feature="x.x", metric=metric, margin=margin)
            triplet = build_triplet(config, context_of(x=x.shape[1]))
            loss, _ = triplet({"x.x": x}, batch_of(labels))
            vectors.compare(array, loss, **close)
            vectors.compare(f"{array}_grad", torch.autograd.grad(loss, x)[0], **close)
            if metric == "unit":
                positive, negative = batch_hard(triplet.distances({"x.x": x}), labels)
                share = (negative > positive).double().mean()
                vectors.compare("loss/triplet_norm_precision", share, **close)

        for array in ("lr/weights_train", "lr/weights_search"):
            base = float(re.search(r"base ([\d.]+)", _words(vectors, array))[1])
            vectors.compare(array, rates(vectors, array, base), **close)
        for array in ("lr/alpha_code", "lr/alpha_paper"):
            base = float(vectors.arrays[array][0])  # no warm-up: the first epoch has the base rate
            vectors.compare(array, rates(vectors, array, base), **close)

        features = vectors.input("metric/features").double()
        pid, camera = vectors.input("metric/pids"), vectors.input("metric/cams")
        queries = len(vectors.arrays["metric/distance"])
        matcher = build_cosine(settings.Cosine(features=["x.x"]), context_of(x=features.shape[1]))
        query, gallery = (
            matcher.template({"x.x": part}) for part in (features[:queries], features[queries:])
        )
        # |a - b|^2 of unit vectors is 2 - 2 cos.
        distances = 4 * matcher.distance(query, gallery)
        vectors.compare("metric/distance", distances, **close)
        match = pid[:queries, None] == pid[queries:]
        for rule, ignored in (
            ("same_camera_removed", match & (camera[:queries, None] == camera[queries:])),
            ("nothing_removed", torch.zeros_like(match)),
        ):
            ranks = vectors.arrays[f"metric/{rule}/cmc"].size
            scores = summarize([rank_queries(distances, match, ignored)], ranks)
            vectors.compare(f"metric/{rule}/cmc", scores.cmc, atol=1e-6)
            vectors.compare(f"metric/{rule}/mAP", scores.map, **close)
        vectors.later("split/*", "splitting the categories belongs to MSINet's search")


def _words(vectors: Vectors, array: str) -> str:
    return vectors.sidecar["arrays"][array]["description"]
