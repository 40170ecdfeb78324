"""Hooks of the plugin `msinet`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reid_msinet.settings_losses import Memory, Sam
from reid_msinet.settings_neck import Neck
from reid_msinet.settings_networks import Net, SuperNet
from reid_msinet.settings_search import Search
from reidcore.api import Component, hookimpl

PAPER = (
    "Gu et al., MSINet: Twins Contrastive Search of Multi-Scale Interaction for Object ReID, CVPR "
    "2023"
)
_CHANNELS = "channels = [8, 32, 32, 64]"
_NET = f"""
[backbone]
use = "msinet.net"
{_CHANNELS}
"""
_SUPERNET = f"""
[backbone]
use = "msinet.supernet"
{_CHANNELS}
"""
_POOL = """
[[head]]
name = "pool"
use = "core.pool"
source = "backbone.cell6"
"""
_COSINE = """
[[matcher]]
name = "look"
use = "core.cosine"
features = ["pool.vector"]
"""
_NECK = """
[[head]]
name = "neck"
use = "msinet.neck"
source = "backbone.cell6"
part_source = "backbone.down2"
part_channels = 8

[[matcher]]
name = "look"
use = "core.cosine"
features = ["neck.feature"]
"""
_NECK_LOSSES = """
[[loss]]
name = "id"
use = "core.softmax"
features = ["neck.bn"]

[[loss]]
name = "part_id"
use = "core.softmax"
features = ["neck.part_bn"]
"""
_TRIPLET = """
[[loss]]
name = "triplet"
use = "core.triplet"
feature = "pool.vector"
"""
_MEMORY = """
[[loss]]
name = "memory"
use = "msinet.memory"
feature = "pool.vector"
"""
_SAM = """
[[loss]]
name = "align"
use = "msinet.sam"
source = "backbone.cell6"
"""
_SEARCH = """
[procedure]
use = "msinet.search"
feature = "pool.vector"
"""


def _sample(*tables: str, identities: int = 4) -> str:
    """A small run on the demo data as a complete run file."""
    data = (
        f'{{ read = "core.demo", train_identities = {identities}, test_identities = 2, '
        "pictures = 8 }"
    )
    return f"""\
format = 1

[data]
train = {data}
test = [{data}]
image = [64, 32]
augment = []
batch = {{ use = "core.identities", ids = 2, per_id = 2 }}
{"".join(tables)}
[train]
epochs = 1

[optim]
lr = 0.001
"""


@hookimpl
def reid_backbones() -> Sequence[Component]:
    return [
        Component(
            "net",
            Net,
            "reid_msinet.network:build_net",
            "MSINet: cells of two scales with a chosen interaction in each of twelve slots",
            PAPER,
            _sample(_NET, _POOL, _COSINE, _TRIPLET),
        ),
        Component(
            "supernet",
            SuperNet,
            "reid_msinet.network:build_supernet",
            "MSINet with all interactions in every slot, for `msinet.search`",
            PAPER,
            _sample(_SUPERNET, _POOL, _COSINE, _TRIPLET),
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
            _sample(_NET, _NECK, _NECK_LOSSES),
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
            _sample(_NET, _POOL, _COSINE, _MEMORY),
        ),
        Component(
            "sam",
            Sam,
            "reid_msinet.sam:build_sam",
            "spatial alignment: where pictures respond to each other, alike within identities",
            PAPER,
            _sample(_NET, _POOL, _COSINE, _TRIPLET, _SAM),
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
            _sample(_SUPERNET, _POOL, _COSINE, _SEARCH, identities=10),
        )
    ]
