"""The hook of the plugin `metric_learning`: its one component, without torch."""

from __future__ import annotations

from collections.abc import Sequence

from reid_metric_learning.settings import MetricLoss
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
use = "core.resnet"
depth = 18
width = 0.125

[[head]]
name = "neck"
use = "core.bnneck"
source = "backbone.layer4"

[[matcher]]
name = "look"
use = "core.cosine"
features = ["neck.bn"]

[[loss]]
name = "metric"
use = "metric_learning.loss"
feature = "neck.bn"
loss = "ProxyAnchorLoss"
miner = "MultiSimilarityMiner"
miner_arguments = {{ epsilon = 0.2 }}

[train]
epochs = 1

[optim]
lr = 0.001
"""


@hookimpl
def reid_losses() -> Sequence[Component]:
    return [
        Component(
            "loss",
            MetricLoss,
            "reid_metric_learning.loss:build_loss",
            "a loss of pytorch-metric-learning, with one of its miners or without",
            "Musgrave et al. 2020, PyTorch Metric Learning (arXiv 2008.09164)",
            _SAMPLE,
            heavy=True,
        )
    ]
