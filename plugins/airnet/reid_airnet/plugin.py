"""Hooks of the plugin `airnet`: descriptors of its components, without torch and numpy."""

from __future__ import annotations

from collections.abc import Sequence

from reid_airnet.settings_pool import Pool
from reid_airnet.settings_resnet import ResNet
from reidcore.api import Component, hookimpl

PAPER = (
    "Blythman et al., On the Importance of Appearance and Interaction Feature Representations for "
    "Person Re-Identification, WACV Workshops 2022"
)
_SAMPLE = """\
format = 1

[data]
train = { read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8 }
test = [{ read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8 }]
image = [64, 32]
augment = []
batch = { use = "core.identities", ids = 2, per_id = 2 }

[backbone]
use = "airnet.resnet"
depth = 18
width = 0.125

[[head]]
name = "pool"
use = "airnet.pool"
a1 = "backbone.layer4a"
a2 = "backbone.layer4i"
i = "backbone.layer4i"
m = "backbone.layer4i"

[[matcher]]
name = "look"
use = "core.cosine"
features = ["pool.a1_bn", "pool.a2_bn", "pool.i_bn", "pool.m_bn"]

[[loss]]
name = "id"
use = "core.softmax"
features = ["pool.a1_bn", "pool.a2_bn", "pool.i_bn", "pool.m_bn"]

[[loss]]
name = "triplet"
use = "core.triplet"
feature = "pool.i"
metric = "cosine"

[train]
epochs = 1

[optim]
lr = 0.001
"""


@hookimpl
def reid_backbones() -> Sequence[Component]:
    return [
        Component(
            "resnet",
            ResNet,
            "reid_airnet.resnet:build_resnet",
            "ResNet or IBN-ResNet with two last stages that start alike, and global context blocks",
            f"{PAPER}; Cao et al., GCNet, ICCV Workshops 2019; Pan et al., Two at Once, ECCV 2018",
            _SAMPLE,
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
            _SAMPLE,
        )
    ]
