"""Postprocessor of the core: average query expansion."""

from __future__ import annotations

import torch
from torch import Tensor

from reidcore.builtin.settings.postprocessors import Expand as ExpandSettings
from reidcore.contracts.parts import Context
from reidcore.contracts.run_interfaces import Ranking
from reidcore.support.sorting import smallest_in_blocks

_ROWS = 512
"""Queries whose neighbours are looked for at once."""


class Expand:
    """Average query expansion (Chum et al. 2007): distances of queries that are merged with their
    nearest gallery pictures, all weighing the same.

    Of equally near pictures the first ones in the gallery's order are taken; where the gallery has
    fewer than `top`, all.
    """

    def __init__(self, config: ExpandSettings):
        self.top = config.top

    @torch.no_grad()
    def __call__(self, distances: Tensor, ranking: Ranking) -> Tensor:
        found = [smallest_in_blocks([rows], self.top)[1] for rows in distances.split(_ROWS)]
        return ranking.expanded(torch.cat(found))


def build_expand(config: ExpandSettings, context: Context) -> Expand:
    return Expand(config)
