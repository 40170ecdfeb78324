"""The hook of the plugin `timm`: its one component, without torch and timm."""

from __future__ import annotations

from collections.abc import Sequence

from reid_timm.settings import Features
from reidcore.api import Component, hookimpl

_DATA = '{ read = "core.demo", train_identities = 4, test_identities = 2, pictures = 8 }'
_SAMPLE = f"""\
format = 1

[data]
train = {_DATA}
test = [{_DATA}]
image = [64, 32]
augment = []
batch = {{ use = "core.identities", ids = 2, per_id = 2 }}

[backbone]
use = "timm.features"
model = "mobilenetv3_small_050"

[[head]]
name = "neck"
use = "core.bnneck"
source = "backbone.layer5"

[[matcher]]
name = "look"
use = "core.cosine"
features = ["neck.bn"]

[[loss]]
name = "id"
use = "core.softmax"
features = ["neck.bn"]

[train]
epochs = 1

[optim]
lr = 0.001
"""


@hookimpl
def reid_backbones() -> Sequence[Component]:
    return [
        Component(
            "features",
            Features,
            "reid_timm.backbone:build_features",
            "a model of timm, its stages as the maps layer1, layer2, ...",
            "Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models",
            _SAMPLE,
            heavy=True,
        )
    ]
