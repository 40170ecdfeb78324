"""What IPAD takes from the core: losses on its parts, and the fusion of its distances."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from torch import Tensor

from reid_ipad.mutual import build_mutual
from reid_ipad.settings_matchers import Mutual
from reidcore.api import Feature, Given, Matching
from reidcore.builtin import settings
from reidcore.builtin.losses import batch_hard, build_softmax, build_triplet
from reidcore.builtin.matchers import build_euclidean
from reidcore.cli.main import main
from reidcore.modules import Batch, Context, Images, Matcher, Meta
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.scales import row_minmax
from reidcore.ranking.sides import Sides
from tests.oracles import Vectors, oracle

CLOSE = {"rtol": 1e-10}


def batch_of(labels: Tensor) -> Batch:
    none = torch.zeros(len(labels), dtype=torch.int64)
    return Batch(Images(torch.zeros(len(labels), 3, 1, 1), none, none), labels)


def at_least_the_core_does(distances: np.ndarray) -> np.ndarray:
    """core.euclidean keeps distances at least 1e-6, where its square root has a gradient."""
    return np.maximum(distances, 1e-6)


@pytest.mark.oracle
def test_losses_equal_the_transcription():
    """Batch-hard triplet losses on both features and on the mutual distance, with and without
    normalised vectors, label smoothing, and the totals of IPAD, V1 and V2."""
    with oracle("ipad/losses") as vectors:
        labels = vectors.input("labels")
        features = {
            "x.g": vectors.input("g"),
            "x.s": vectors.input("s"),
            "x.kernel": vectors.input("K"),
            "x.vector": vectors.input("f"),
        }
        shapes = {
            name: Feature("tensor" if name == "x.kernel" else "vector", tuple(value.shape[1:]))
            for name, value in features.items()
        }
        given = Given((8, 8), identities=vectors.arrays["logits_g"].shape[1], features=shapes)
        matchers = {
            norm: build_mutual(
                Mutual(feature="x.vector", kernel="x.kernel", feature_norm=norm),
                Context(given, norm),
            )
            for norm in ("none", "pre")
        }
        context = Context(given, "triplet", matchers=matchers)
        batch = batch_of(labels)
        found = {}
        for name, where in (
            ("g", {"feature": "x.g"}),
            ("s", {"feature": "x.s"}),
            ("m", {"matcher": "none"}),
            ("mpre", {"matcher": "pre"}),
        ):
            margin = vectors.number(f"tri_{name}", r"margin ([\d.]+)")
            loss = build_triplet(settings.Triplet(margin=margin, **where), context)
            found[name], _ = loss(features, batch)
            vectors.compare(f"tri_{name}", found[name], **CLOSE)
            distances = loss.distances(features)
            vectors.compare(f"D_{name}", distances, **CLOSE, through=at_least_the_core_does)
            positive, negative = batch_hard(distances, labels)
            vectors.compare(f"tri_{name}_ap", positive, **CLOSE)
            vectors.compare(f"tri_{name}_an", negative, **CLOSE)
        for name in ("g", "s"):
            for kind in ("ls", "plain"):
                array = f"ce_{name}_{kind}"
                smoothing = vectors.number(array, r"smoothing ([\d.]+)")
                found[array] = classified(vectors.input(f"logits_{name}"), batch, smoothing)
                vectors.compare(array, found[array], **CLOSE)
        whole = found["g"] + found["ce_g_ls"]
        own = found["s"] + found["ce_s_ls"]
        vectors.compare("total_ipad", whole + own + found["m"], **CLOSE)
        vectors.compare("total_v1", whole + found["m"], **CLOSE)
        vectors.compare("total_v2", whole + own, **CLOSE)


def classified(logits: Tensor, batch: Batch, smoothing: float) -> Tensor:
    """core.softmax's loss of these logits: a classifier that hands them through."""
    classes = logits.shape[1]
    given = Given((8, 8), identities=classes, features={"x.logits": Feature.vector(classes)})
    config = settings.Softmax(features=["x.logits"], smoothing=smoothing)
    loss = build_softmax(config, Context(given, "id")).double()
    loss.classifier.weight.data.copy_(torch.eye(classes))
    return loss({"x.logits": logits}, batch)[0]


class Listed(Matcher):
    """Distances that are listed: a query's template is its row, a gallery picture's its column."""

    def template(self, features):
        return {"row": features["x.row"]}

    def distance(self, a, b):
        return a["row"] @ b["row"].T


@pytest.mark.oracle
def test_fusion_equals_the_transcription():
    """Features averaged over both views and scaled to unit length, or not, and rankings by sums of
    distances: equal weights, other weights, stretched row by row, V1 and V2."""
    with oracle("ipad/test_fusion") as vectors:
        names = ("global", "self", "mutual")
        weights = dict(zip(names, vectors.input("weights").tolist(), strict=True))
        shares, sides, exact = fusible(vectors)
        equal = dict.fromkeys(weights, 1.0)
        for array, share, by_row in (
            ("fused_sum", equal, False),
            ("fused_weighted", weights, False),
            ("fused_minmax", equal, True),
            ("fused_v1", {"global": 1.0, "mutual": 1.0}, False),
            ("fused_v2", {"global": 1.0, "self": 1.0}, False),
        ):
            scaled = {key: row_minmax(one) if by_row else one for key, one in exact.items()}
            total = sum(weight * scaled[key] for key, weight in share.items())
            vectors.compare(array, total, **CLOSE)
            meta = [Meta(*[torch.zeros(size)] * 3) for size in total.shape]
            chosen = [Share(key, *shares[key], weight) for key, weight in share.items()]
            ranking = MatcherRanking(Fusion(chosen, by_row), Sides(*meta, sides))
            ranked = ranking.between("query", "gallery", 0, len(total))
            # The core ranks in float32.
            np.testing.assert_allclose(ranked, vectors.arrays[array], rtol=1e-5, atol=1e-5)
            if array == "fused_sum":
                vectors.compare("order_sum", ranked.argsort(dim=1, stable=True))


def fusible(vectors: Vectors) -> tuple[dict, dict, dict[str, Tensor]]:
    """Matchers with what they promise, templates of both sides, and distances in float64."""
    shares, sides, exact = {}, {"query": {}, "gallery": {}}, {}
    for name in ("global", "self"):
        views = {
            side: [vectors.input(f"{name}_{side[0]}{view}") for view in (0, 1)] for side in sides
        }
        given = Given((8, 8), features={"x.v": Feature.vector(views["query"][0].shape[1])})
        for unit, array in (("none", "raw"), ("merged", "l2")):
            config = settings.Euclidean(features=["x.v"], unit=unit)
            matcher = build_euclidean(config, Context(given, name))
            for side, found in views.items():
                sides[side][name] = matcher.merge([matcher.template({"x.v": x}) for x in found])
            exact[name] = matcher.distance(sides["query"][name], sides["gallery"][name])
            vectors.compare(f"D_{name}_{array}", exact[name], **CLOSE)
        shares[name] = (matcher, config.describe(given))
    exact["mutual"] = vectors.input("D_mutual")
    sides["query"]["mutual"] = {"row": torch.eye(len(exact["mutual"]), dtype=torch.float64)}
    sides["gallery"]["mutual"] = {"row": exact["mutual"].T.contiguous()}
    shares["mutual"] = (Listed(), Matching({}))
    return shares, sides, exact


SMALL = [
    "data.train={ read = 'core.demo', train_identities = 8, test_identities = 6, pictures = 8 }",
    "data.test=[{ read = 'core.demo', train_identities = 8, test_identities = 6, pictures = 8 }]",
    "data.image=[64, 32]",
    "data.batch.ids=4",
    "data.batch.per_id=2",
    "backbone={ use = 'core.resnet', depth = 18, width = 0.125 }",
    "train.epochs=1",
    "repeat={}",
    "head.own.channels=32",
    "head.pair.channels=16",
]


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    """The demo drawn into this session, and where it is."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("REID_CACHE", str(folder))
    return folder


def arguments() -> list[str]:
    """`ipad:ward` on few drawn pictures with a small network."""
    return [word for one in SMALL for word in ("--set", one)]


@pytest.mark.parametrize(
    "more",
    [[], ["--set", "backbone={ use = 'core.osnet', width = 0.25 }"]],
    ids=["resnet", "osnet"],
)
def test_every_parameter_gets_a_gradient(more, cache, capsys):
    """The dry run of a step with all five losses names none that no loss reaches."""
    assert main(["check", "ipad:ward", *arguments(), *more]) == 0
    said = capsys.readouterr().out
    assert "ok: keys, wiring and dry run" in said and "no gradient" not in said


def test_ipad_trains_with_five_losses_and_ranks_by_three_distances(tmp_path, cache, capsys):
    """The fused ranking differs from each of its parts, and every part explains a pair."""
    out = tmp_path / "run"
    assert main(["run", "ipad:ward", "--out", str(out), *arguments()]) == 0
    said = capsys.readouterr().out
    for loss in ("id", "triplet", "self_id", "self_triplet", "mutual_triplet"):
        assert re.search(rf"  {loss} \d", said)
    scores = json.loads((out / "scores.json").read_text())["demo"]
    assert list(scores) == ["fused", "global_alone", "self_alone", "mutual_alone"]
    assert len({stages["plain"]["mAP"] for stages in scores.values()}) == 4

    pictures = sorted(path for path in cache.rglob("*") if path.suffix in (".png", ".jpg"))[:3]
    for name, chosen in (("new", pictures[:1]), ("known", pictures[1:])):
        (tmp_path / name).mkdir()
        for path in chosen:
            shutil.copy(path, tmp_path / name)
    sides = ["--query", str(tmp_path / "new"), "--gallery", str(tmp_path / "known")]
    why = tmp_path / "why"
    branches = ["--losses", "--feature", "whole.bn", "--feature", "own_neck.bn"]
    branches += ["--map", "backbone.layer4", "--map", "own.map"]
    assert main(["explain", str(out), *sides, *branches, "--top", "1", "-o", str(why)]) == 0
    with (why / "index.csv").open() as lines:
        found = {line["explanation"]: line for line in csv.DictReader(lines)}
    assert {
        "head.own.global_branch",
        "head.own.self_guided_branch",
        "head.own.distances",
        "matcher.mutual.distances",
        "gradcam.id.whole.bn.backbone.layer4",
        "gradcam.self_id.own_neck.bn.own.map",
    } <= set(found)
