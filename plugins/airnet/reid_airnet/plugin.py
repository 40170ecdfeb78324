"""Hooks of the plugin `airnet`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reid_airnet.settings_pool import Pool
from reid_airnet.settings_resnet import ResNet
from reidcore.api import Component, hookimpl, sample_run

PAPER = (
    "Blythman et al., On the Importance of Appearance and Interaction Feature Representations for "
    "Person Re-Identification, WACV Workshops 2022"
)
_VECTORS = ["pool.a1_bn", "pool.a2_bn", "pool.i_bn", "pool.m_bn"]
SAMPLE = sample_run(
    backbone=dict(use="airnet.resnet", depth=18, width=0.125),
    head=dict(
        name="pool",
        use="airnet.pool",
        a1="backbone.layer4a",
        a2="backbone.layer4i",
        i="backbone.layer4i",
        m="backbone.layer4i",
    ),
    matcher=dict(name="look", use="core.cosine", features=_VECTORS),
    loss=[
        dict(name="id", use="core.softmax", features=_VECTORS),
        dict(name="triplet", use="core.triplet", feature="pool.i", metric="cosine"),
    ],
)
"""A small run in which both components stand."""


@hookimpl
def reid_backbones() -> Sequence[Component]:
    return [
        Component(
            "resnet",
            ResNet,
            "reid_airnet.resnet:build_resnet",
            "ResNet or IBN-ResNet with two last stages that start alike, and global context blocks",
            f"{PAPER}; Cao et al., GCNet, ICCV Workshops 2019; Pan et al., Two at Once, ECCV 2018",
            SAMPLE,
        )
    ]


@hookimpl
def reid_heads() -> Sequence[Component]:
    return [
        Component(
            "pool",
            Pool,
            "reid_airnet.pool:build_pool",
            "vectors of any maps by maximum, attention-based pooling and global context, each "
            "before and after batch normalisation",
            PAPER,
            SAMPLE,
        )
    ]
