"""Hooks of the plugin `ddag`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reid_ddag.pseudo_infrared import PseudoInfrared
from reid_ddag.settings_graph import Graph
from reid_ddag.settings_parts import Parts
from reid_ddag.settings_two_stream import TwoStream
from reidcore.api import Component, hookimpl, sample_run

PAPER = (
    "Ye et al., Dynamic Dual-Attentive Aggregation Learning for Visible-Infrared Person "
    "Re-Identification, ECCV 2020"
)
SAMPLE = sample_run(
    data=dict(
        read="core.demo",
        train_identities=4,
        test_identities=2,
        pictures=8,
        infrared_cameras=2,
    ),
    batch=dict(use="core.two_modalities", ids=2, per_id=2),
    backbone=dict(use="ddag.two_stream", depth=18, width=0.125),
    head=[
        dict(name="neck", use="core.bnneck", source="backbone.layer4"),
        dict(name="parts", use="ddag.parts", source="backbone.layer4", base="neck.bn"),
    ],
    matcher=dict(name="x", use="core.cosine", features=["parts.x"]),
    loss=[
        dict(name="id", use="core.softmax", features=["neck.bn", "parts.x"]),
        dict(name="triplet", use="core.triplet", feature="neck.pooled"),
        dict(
            name="graph",
            use="ddag.graph",
            feature="neck.pooled",
            dim=16,
            balance=["id", "triplet"],
        ),
    ],
    eval=dict(protocol="cross_modality"),
)
"""A small run of the whole method, in which every component stands."""


@hookimpl
def reid_readers() -> Sequence[Component]:
    return [
        Component(
            "pseudo_infrared",
            PseudoInfrared,
            summary="colour pictures of a manifest, some cameras of which are shown as infrared",
            sample=sample_run(data=dict(read="ddag.pseudo_infrared", root="colour.csv")),
        )
    ]


@hookimpl
def reid_backbones() -> Sequence[Component]:
    return [
        Component(
            "two_stream",
            TwoStream,
            "reid_ddag.two_stream:build_two_stream",
            "ResNet with a stem of its own for every modality and shared stages behind it",
            PAPER,
            SAMPLE,
        )
    ]


@hookimpl
def reid_heads() -> Sequence[Component]:
    return [
        Component(
            "parts",
            Parts,
            "reid_ddag.parts:build_parts",
            "horizontal parts that attend to each other, added to a vector of the whole (IWPA)",
            PAPER,
            SAMPLE,
        )
    ]


@hookimpl
def reid_losses() -> Sequence[Component]:
    return [
        Component(
            "graph",
            Graph,
            "reid_ddag.graph:build_graph",
            "cross-entropy of graph attention over a batch's pictures of both modalities (CGSA), "
            "weighted by how well other losses do",
            PAPER,
            SAMPLE,
        )
    ]
