"""A pairwise matcher: two pictures are compared position by position."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from reidcore.modules import Context, Matcher, Template, at_least_float32
from torch import Tensor

from reid_PLUGIN.settings_positions import Positions as Settings


class Positions(Matcher):
    """(1 - s) / 2, where s is the mean over all positions of both pictures of the largest cosine
    with a position of the other picture. In [0, 1] and symmetric."""

    def __init__(self, config: Settings):
        super().__init__()
        self.feature = config.feature

    def template(self, features: Mapping[str, Tensor]) -> Template:
        return {"map": at_least_float32(features[self.feature])}

    def distance(self, a: Template, b: Template) -> Tensor:
        with torch.autocast(a["map"].device.type, enabled=False):
            left, right = (F.normalize(x["map"].flatten(2), dim=1) for x in (a, b))
            cosines = torch.einsum("acp,bcq->abpq", left, right)
            best = (cosines.amax(3).mean(2) + cosines.amax(2).mean(2)) / 2
            return ((1 - best) / 2).clamp(0, 1)


def build(config: Settings, context: Context) -> Positions:
    return Positions(config)
