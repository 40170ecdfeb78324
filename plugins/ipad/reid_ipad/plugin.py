"""Hooks of the plugin `ipad`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reid_ipad.settings_heads import Compressed, MutualGuided, SelfAttention, SelfGuided
from reid_ipad.settings_matchers import CoAttention, Mutual
from reidcore.api import Component, hookimpl

PAPER = (
    "Jiao et al., Instance and Pair-Aware Dynamic Networks for Re-Identification, arXiv "
    "2103.05395, 2021"
)
_SELF = """
[[head]]
name = "own"
use = "ipad.self_guided"
source = "backbone.layer4"
channels = 16
squeeze = 4
"""
_ATTENTION = """
[[head]]
name = "own"
use = "ipad.self_attention"
source = "backbone.layer4"
channels = 16
"""
_SELF_MATCHER = """
[[matcher]]
name = "own"
use = "core.euclidean"
features = ["own.vector"]
unit = "merged"
"""
_MUTUAL = """
[[head]]
name = "pair"
use = "ipad.mutual_guided"
source = "backbone.layer4"
channels = 16
squeeze = 4
"""
_MUTUAL_MATCHER = """
[[matcher]]
name = "mutual"
use = "ipad.mutual"
feature = "pair.vector"
kernel = "pair.kernel"
"""
_COMPRESSED = """
[[head]]
name = "pair"
use = "ipad.compressed"
source = "backbone.layer4"
channels = 16
"""
_CO_MATCHER = """
[[matcher]]
name = "mutual"
use = "ipad.co_attention"
feature = "pair.map"
"""


def _sample(head: str, matcher: str, name: str = "mutual") -> str:
    """A small run on the demo data as a complete run file."""
    data = '{ read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8 }'
    return f"""\
format = 1

[data]
train = {data}
test = [{data}]
image = [64, 32]
augment = []
batch = {{ use = "core.identities", ids = 2, per_id = 2 }}

[backbone]
use = "core.resnet"
depth = 18
width = 0.125
{head}{matcher}
[[loss]]
name = "triplet"
use = "core.triplet"
matcher = "{name}"

[train]
epochs = 1

[optim]
lr = 0.001
"""


@hookimpl
def reid_heads() -> Sequence[Component]:
    return [
        Component(
            "self_guided",
            SelfGuided,
            "reid_ipad.branches:build_self_guided",
            "a compressed map under a convolution whose kernel the picture itself makes",
            PAPER,
            _sample(_SELF, _SELF_MATCHER, "own"),
        ),
        Component(
            "mutual_guided",
            MutualGuided,
            "reid_ipad.branches:build_mutual_guided",
            "the vector and the kernel of a picture that `ipad.mutual` compares",
            PAPER,
            _sample(_MUTUAL, _MUTUAL_MATCHER),
        ),
        Component(
            "self_attention",
            SelfAttention,
            "reid_ipad.attention:build_self_attention",
            "self-attention over a compressed map, in place of `ipad.self_guided`",
            PAPER,
            _sample(_ATTENTION, _SELF_MATCHER, "own"),
        ),
        Component(
            "compressed",
            Compressed,
            "reid_ipad.branches:build_compressed",
            "a compressed map, which `ipad.co_attention` compares",
            PAPER,
            _sample(_COMPRESSED, _CO_MATCHER),
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
            _sample(_MUTUAL, _MUTUAL_MATCHER),
        ),
        Component(
            "co_attention",
            CoAttention,
            "reid_ipad.attention:build_co_attention",
            "distance of two pictures' maps, each pooled as the other asks, in place of "
            "`ipad.mutual`",
            PAPER,
            _sample(_COMPRESSED, _CO_MATCHER),
        ),
    ]
