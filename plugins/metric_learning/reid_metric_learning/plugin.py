"""The hook of the plugin `metric_learning`: its one component, without torch."""

from __future__ import annotations

from collections.abc import Sequence

from reid_metric_learning.wiring import MetricLoss
from reidcore.api import Component, hookimpl, sample_run


@hookimpl
def reid_losses() -> Sequence[Component]:
    return [
        Component(
            "loss",
            MetricLoss,
            "reid_metric_learning.loss:build_loss",
            "a loss of pytorch-metric-learning, with one of its miners or without",
            "Musgrave et al. 2020, PyTorch Metric Learning (arXiv 2008.09164)",
            sample_run(
                loss=dict(
                    name="metric",
                    use="metric_learning.loss",
                    feature="neck.bn",
                    loss="ProxyAnchorLoss",
                    miner="MultiSimilarityMiner",
                    miner_arguments=dict(epsilon=0.2),
                ),
            ),
            heavy=True,
        )
    ]
