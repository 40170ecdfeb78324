"""Hooks of the plugin `qaconv`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from reid_qaconv.settings_graph import Graph
from reid_qaconv.settings_losses import Memory, Pairwise, Triplet, Vectors
from reid_qaconv.settings_matching import Local, Matcher
from reid_qaconv.settings_tfusion import TFusion
from reid_qaconv.settings_tlift import TLift
from reidcore.api import Component, hookimpl, sample_run

PAPER = (
    "Liao and Shao, Interpretable and Generalizable Person Re-identification with Query-adaptive "
    "Convolution and Temporal Lifting, ECCV 2020"
)
GRAPH_SAMPLING = (
    "Liao and Shao, Graph Sampling Based Deep Metric Learning for Generalizable Person "
    "Re-Identification, CVPR 2022"
)
TFUSION = (
    "Lv, Chen, Li and Yang, Unsupervised Cross-dataset Person Re-identification by Transfer "
    "Learning of Spatial-Temporal Patterns, CVPR 2018"
)
_sample = partial(
    sample_run,
    head=dict(name="local", use="qaconv.local", source="backbone.layer3", channels=8),
    matcher=dict(name="pairs", use="qaconv.matcher", feature="local.map"),
    loss=dict(name="memory", use="qaconv.memory", feature="local.map", matcher="pairs"),
)


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
            sample_run(
                head=dict(name="pool", use="core.pool", source="backbone.layer4"),
                matcher=dict(name="look", use="core.cosine", features=["pool.vector"]),
                loss=dict(name="vectors", use="qaconv.vectors", feature="pool.vector"),
            ),
        ),
        Component(
            "pairwise",
            Pairwise,
            "reid_qaconv.pairwise:build_pairwise",
            "binary cross-entropy of a matcher's logits between all pairs of a batch",
            GRAPH_SAMPLING,
            _sample(loss=dict(name="pairwise", use="qaconv.pairwise", matcher="pairs")),
        ),
        Component(
            "triplet",
            Triplet,
            "reid_qaconv.pairwise:build_triplet",
            "batch-hard triplet loss on a matcher's logits",
            GRAPH_SAMPLING,
            _sample(loss=dict(name="triplet", use="qaconv.triplet", matcher="pairs")),
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
            _sample(post=dict(name="tlift", use="qaconv.tlift", k=4)),
        ),
        Component(
            "tfusion",
            TFusion,
            "reid_qaconv.tfusion:build_tfusion",
            "pictures rank higher whose time difference is usual between the cameras of similar "
            "pictures",
            TFUSION,
            _sample(post=dict(name="tfusion", use="qaconv.tfusion", top=4)),
        ),
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
            _sample(batch=dict(use="qaconv.graph", matcher="pairs", ids=2, per_id=2)),
        )
    ]
