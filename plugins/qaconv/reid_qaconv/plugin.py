"""Hooks of the plugin `qaconv`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reid_qaconv.settings_graph import Graph
from reid_qaconv.settings_losses import Memory, Pairwise, Triplet, Vectors
from reid_qaconv.settings_matching import Local, Matcher
from reid_qaconv.settings_tlift import TLift
from reidcore.api import Component, hookimpl

PAPER = (
    "Liao and Shao, Interpretable and Generalizable Person Re-identification with Query-adaptive "
    "Convolution and Temporal Lifting, ECCV 2020"
)
GRAPH_SAMPLING = (
    "Liao and Shao, Graph Sampling Based Deep Metric Learning for Generalizable Person "
    "Re-Identification, CVPR 2022"
)
_LOCAL = """
[[head]]
name = "local"
use = "qaconv.local"
source = "backbone.layer3"
channels = 8
"""
_MATCHER = """
[[matcher]]
name = "pairs"
use = "qaconv.matcher"
feature = "local.map"
"""
_MEMORY = """
[[loss]]
name = "memory"
use = "qaconv.memory"
feature = "local.map"
matcher = "pairs"
"""
_PAIRWISE = """
[[loss]]
name = "pairwise"
use = "qaconv.pairwise"
matcher = "pairs"
"""
_POOL = """
[[head]]
name = "pool"
use = "core.pool"
source = "backbone.layer4"
"""
_COSINE = """
[[matcher]]
name = "look"
use = "core.cosine"
features = ["pool.vector"]
"""
_VECTORS = """
[[loss]]
name = "vectors"
use = "qaconv.vectors"
feature = "pool.vector"
"""
_TLIFT = """
[[post]]
name = "tlift"
use = "qaconv.tlift"
k = 4
"""
_IDENTITIES = '{ use = "core.identities", ids = 2, per_id = 2 }'


def _sample(
    head: str = _LOCAL,
    matcher: str = _MATCHER,
    loss: str = _MEMORY,
    batch: str = _IDENTITIES,
    post: str = "",
) -> str:
    """A small run on the demo data as a complete run file."""
    data = '{ read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8 }'
    return f"""\
format = 1

[data]
train = {data}
test = [{data}]
image = [64, 32]
augment = []
batch = {batch}

[backbone]
use = "core.resnet"
depth = 18
width = 0.125
{head}{matcher}{loss}{post}
[train]
epochs = 1

[optim]
lr = 0.001
"""


@hookimpl
def reid_heads() -> Sequence[Component]:
    return [
        Component(
            "local",
            Local,
            "reid_qaconv.local:build_local",
            "a map with fewer channels and a unit vector at every location",
            PAPER,
            _sample(),
        )
    ]


@hookimpl
def reid_losses() -> Sequence[Component]:
    return [
        Component(
            "memory",
            Memory,
            "reid_qaconv.memory:build_memory",
            "focal binary cross-entropy of a matcher's logits against the last map of every "
            "identity",
            PAPER,
            _sample(),
        ),
        Component(
            "vectors",
            Vectors,
            "reid_qaconv.memory:build_vectors",
            "focal binary cross-entropy of normalised cosines to the last vector of every identity",
            PAPER,
            _sample(head=_POOL, matcher=_COSINE, loss=_VECTORS),
        ),
        Component(
            "pairwise",
            Pairwise,
            "reid_qaconv.pairwise:build_pairwise",
            "binary cross-entropy of a matcher's logits between all pairs of a batch",
            GRAPH_SAMPLING,
            _sample(loss=_PAIRWISE),
        ),
        Component(
            "triplet",
            Triplet,
            "reid_qaconv.pairwise:build_triplet",
            "batch-hard triplet loss on a matcher's logits",
            GRAPH_SAMPLING,
            _sample(loss=_PAIRWISE.replace("pairwise", "triplet")),
        ),
    ]


@hookimpl
def reid_matchers() -> Sequence[Component]:
    return [
        Component(
            "matcher",
            Matcher,
            "reid_qaconv.matching:build_matcher",
            "query-adaptive convolution: the best matches of all locations of two maps, weighed",
            PAPER,
            _sample(),
        )
    ]


@hookimpl
def reid_postprocessors() -> Sequence[Component]:
    return [
        Component(
            "tlift",
            TLift,
            "reid_qaconv.tlift:build_tlift",
            "temporal lifting: pictures rank higher that were taken when those who walked near a "
            "query passed their camera",
            PAPER,
            _sample(post=_TLIFT),
        )
    ]


@hookimpl
def reid_samplers() -> Sequence[Component]:
    return [
        Component(
            "graph",
            Graph,
            "reid_qaconv.graph:build_graph",
            "batches of every identity with those that the matcher finds nearest to it",
            GRAPH_SAMPLING,
            _sample(batch='{ use = "qaconv.graph", matcher = "pairs", ids = 2, per_id = 2 }'),
        )
    ]
