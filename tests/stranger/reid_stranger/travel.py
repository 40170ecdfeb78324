"""The postprocessor."""

from __future__ import annotations

import torch
from torch import Tensor

from reid_stranger import plugin
from reidcore.modules import Context, Ranking


class Travel:
    """The mean of four views of a pair, each in [0, 1]: the expanded query, the gallery picture's
    nearest neighbour, the time between them, and how close the query's best match is."""

    def __init__(self, config: plugin.Travel):
        self.seconds = config.seconds

    def __call__(self, distances: Tensor, ranking: Ranking) -> Tensor:
        size = len(ranking.gallery)
        among = torch.cat(
            [ranking.between("gallery", "gallery", i, min(i + 5, size)) for i in range(0, size, 5)]
        )
        among.fill_diagonal_(torch.inf)
        neighbour = among.argmin(1)
        nearest = distances.argmin(1)
        rows = torch.arange(len(distances), device=distances.device)
        best = ranking.pairs("query", rows, "gallery", nearest)
        apart = (ranking.query.time[:, None] - ranking.gallery.time).abs()
        views = [
            ranking.expanded(nearest[:, None]),
            (distances + distances[:, neighbour]) / 2,
            1 - torch.exp(-apart / self.seconds).float(),
            best[:, None].expand_as(distances),
        ]
        return torch.stack(views).mean(0)


def build(config: plugin.Travel, context: Context) -> Travel:
    return Travel(config)
