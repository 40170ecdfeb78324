"""Hooks of the plugin `ipad`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reid_ipad.settings_heads import Compressed, MutualGuided, SelfAttention, SelfGuided
from reid_ipad.settings_matchers import CoAttention, Mutual
from reidcore.api import Component, hookimpl, sample_run

PAPER = (
    "Jiao et al., Instance and Pair-Aware Dynamic Networks for Re-Identification, arXiv "
    "2103.05395, 2021"
)


def _sample(head: dict[str, Any], matcher: dict[str, Any]) -> str:
    """Return a small run of a head and a matcher, trained through the matcher's distances."""
    return sample_run(
        head=dict(source="backbone.layer4", channels=16, **head),
        matcher=matcher,
        loss=dict(name="triplet", use="core.triplet", matcher=matcher["name"]),
    )


_EUCLIDEAN = dict(name="own", use="core.euclidean", features=["own.vector"], unit="merged")
SELF_GUIDED = _sample(dict(name="own", use="ipad.self_guided", squeeze=4), _EUCLIDEAN)
SELF_ATTENTION = _sample(dict(name="own", use="ipad.self_attention"), _EUCLIDEAN)
MUTUAL = _sample(
    dict(name="pair", use="ipad.mutual_guided", squeeze=4),
    dict(name="mutual", use="ipad.mutual", feature="pair.vector", kernel="pair.kernel"),
)
CO_ATTENTION = _sample(
    dict(name="pair", use="ipad.compressed"),
    dict(name="mutual", use="ipad.co_attention", feature="pair.map"),
)


@hookimpl
def reid_heads() -> Sequence[Component]:
    return [
        Component(
            "self_guided",
            SelfGuided,
            "reid_ipad.branches:build_self_guided",
            "a compressed map under a convolution whose kernel the picture itself makes",
            PAPER,
            SELF_GUIDED,
        ),
        Component(
            "mutual_guided",
            MutualGuided,
            "reid_ipad.branches:build_mutual_guided",
            "the vector and the kernel of a picture that `ipad.mutual` compares",
            PAPER,
            MUTUAL,
        ),
        Component(
            "self_attention",
            SelfAttention,
            "reid_ipad.attention:build_self_attention",
            "self-attention over a compressed map, in place of `ipad.self_guided`",
            PAPER,
            SELF_ATTENTION,
        ),
        Component(
            "compressed",
            Compressed,
            "reid_ipad.branches:build_compressed",
            "a compressed map, which `ipad.co_attention` compares",
            PAPER,
            CO_ATTENTION,
        ),
    ]


@hookimpl
def reid_matchers() -> Sequence[Component]:
    return [
        Component(
            "mutual",
            Mutual,
            "reid_ipad.mutual:build_mutual",
            "distance of two pictures' vectors, each under the other's kernel",
            PAPER,
            MUTUAL,
        ),
        Component(
            "co_attention",
            CoAttention,
            "reid_ipad.attention:build_co_attention",
            "distance of two pictures' maps, each pooled as the other asks, in place of "
            "`ipad.mutual`",
            PAPER,
            CO_ATTENTION,
        ),
    ]
