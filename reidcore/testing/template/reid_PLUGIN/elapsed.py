"""Re-ranking by time, for cameras that the same people pass shortly after one another."""

from __future__ import annotations

import torch
from reidcore.modules import Context, Ranking
from torch import Tensor

from reid_PLUGIN.settings_elapsed import Elapsed as Settings


class Elapsed:
    """(1 - weight) d + weight (1 - exp(-t / seconds)), t being the seconds between the two
    pictures. What lies in [0, 1] stays there. Distances of a narrow range drown in time: scale
    them in the ranking (`scale = "logistic"`)."""

    def __init__(self, config: Settings):
        self.seconds = config.seconds
        self.weight = config.weight

    def __call__(self, distances: Tensor, ranking: Ranking) -> Tensor:
        """[Q, G] to [Q, G], in place. Every row follows from its own query alone."""
        for row, time in zip(distances, ranking.query.time, strict=True):
            apart = (ranking.gallery.time - time).abs()
            late = 1 - torch.exp(-apart / self.seconds)
            row.lerp_(late.to(row), self.weight)
        return distances


def build(config: Settings, context: Context) -> Elapsed:
    return Elapsed(config)
