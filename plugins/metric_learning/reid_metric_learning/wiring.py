"""Wiring of the plugin's loss. Importing this does not import torch; `check` does."""

from __future__ import annotations

import attrs

from reid_metric_learning.settings import MetricLossSettings
from reidcore.api import Given


@attrs.frozen
class MetricLoss(MetricLossSettings):
    """Settings of `metric_learning.loss` that can be checked against a run."""

    def check(self, given: Given) -> None:
        given.need_identities()
        given.need(
            bool(self.miner) or not self.miner_arguments,
            "miner_arguments",
            "are for a miner, but miner is not set",
        )
        from reid_metric_learning.trial import try_loss

        try_loss(self, given)
