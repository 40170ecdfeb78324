"""Hooks of the plugin `msinet`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from reid_msinet.settings_losses import Memory, Sam
from reid_msinet.settings_neck import Neck
from reid_msinet.settings_networks import Net, SuperNet
from reid_msinet.settings_search import Search
from reidcore.api import Component, hookimpl, sample_run

PAPER = (
    "Gu et al., MSINet: Twins Contrastive Search of Multi-Scale Interaction for Object ReID, CVPR "
    "2023"
)
_CHANNELS = [8, 32, 32, 64]
_SUPERNET = dict(use="msinet.supernet", channels=_CHANNELS)
_TRIPLET = dict(name="triplet", use="core.triplet", feature="pool.vector")
_sample = partial(
    sample_run,
    backbone=dict(use="msinet.net", channels=_CHANNELS),
    head=dict(name="pool", use="core.pool", source="backbone.cell6"),
    matcher=dict(name="look", use="core.cosine", features=["pool.vector"]),
    loss=_TRIPLET,
)


@hookimpl
def reid_backbones() -> Sequence[Component]:
    return [
        Component(
            "net",
            Net,
            "reid_msinet.network:build_net",
            "MSINet: cells of two scales with a chosen interaction in each of twelve slots",
            PAPER,
            _sample(),
        ),
        Component(
            "supernet",
            SuperNet,
            "reid_msinet.network:build_supernet",
            "MSINet with all interactions in every slot, for `msinet.search`",
            PAPER,
            _sample(backbone=_SUPERNET),
        ),
    ]


@hookimpl
def reid_heads() -> Sequence[Component]:
    return [
        Component(
            "neck",
            Neck,
            "reid_msinet.neck:build_neck",
            "a global vector and one of two horizontal parts of an earlier map",
            PAPER,
            _sample(
                head=dict(
                    name="neck",
                    use="msinet.neck",
                    source="backbone.cell6",
                    part_source="backbone.down2",
                    part_channels=8,
                ),
                matcher=dict(name="look", use="core.cosine", features=["neck.feature"]),
                loss=[
                    dict(name="id", use="core.softmax", features=["neck.bn"]),
                    dict(name="part_id", use="core.softmax", features=["neck.part_bn"]),
                ],
            ),
        )
    ]


@hookimpl
def reid_losses() -> Sequence[Component]:
    return [
        Component(
            "memory",
            Memory,
            "reid_msinet.memory:build_memory",
            "contrastive loss against one running mean of every training identity",
            PAPER,
            _sample(loss=dict(name="memory", use="msinet.memory", feature="pool.vector")),
        ),
        Component(
            "sam",
            Sam,
            "reid_msinet.sam:build_sam",
            "spatial alignment: where pictures respond to each other, alike within identities",
            PAPER,
            _sample(loss=[_TRIPLET, dict(name="align", use="msinet.sam", source="backbone.cell6")]),
        ),
    ]


@hookimpl
def reid_procedures() -> Sequence[Component]:
    return [
        Component(
            "search",
            Search,
            "reid_msinet.search:search",
            "architecture search with a training and a validation memory; writes a genotype file",
            PAPER,
            _sample(
                data=dict(read="core.demo", train_identities=10, test_identities=2, pictures=8),
                backbone=_SUPERNET,
                loss=[],
                procedure=dict(use="msinet.search", feature="pool.vector"),
            ),
        )
    ]
