"""The head and the matcher."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_stranger import plugin
from reidcore.modules import Context, Images, Matcher, Template


class Local(nn.Module):
    """`map` [B, C, H, W] with positions of unit length; `vector` [B, C], its mean; `each`
    [B, cameras, C], the mean moved by every training camera's learned shift."""

    def __init__(self, config: plugin.Local, context: Context):
        super().__init__()
        self.source = config.source
        self.wanted = context.wanted
        self.reduce = nn.Conv2d(context.map(config.source)[0], config.channels, 1)
        self.norm = nn.BatchNorm2d(config.channels)
        if "each" in self.wanted:
            self.shift = nn.Parameter(torch.zeros(context.cameras, config.channels))

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        reduced = F.normalize(self.norm(self.reduce(features[self.source])), dim=1)
        mean = reduced.mean((2, 3))
        made = {"map": reduced, "vector": mean}
        if "each" in self.wanted:
            made["each"] = mean[:, None] + self.shift
        return {name: made[name] for name in self.wanted}


class Pairs(Matcher):
    """sigmoid(-logit) of the positions' best correlations, weighed by what is seen of them."""

    def __init__(self, config: plugin.Pairs, context: Context):
        super().__init__()
        self.feature = config.feature
        channels, height, width = context.map(config.feature)
        self.look = nn.Conv2d(channels, 1, 1)
        self.steady = nn.BatchNorm2d(1)
        self.weigh = nn.Linear(height * width, 1)
        self.norm = nn.BatchNorm1d(1)

    def template(self, features: Mapping[str, Tensor]) -> Template:
        maps = features[self.feature].to(self.look.weight)
        return {"map": maps, "seen": self.steady(self.look(maps)).flatten(1).sigmoid()}

    def logits(self, a: Template, b: Template) -> Tensor:
        left, right = a["map"].flatten(2), b["map"].flatten(2)
        correlations = torch.einsum("acp,bcq->abpq", left, right)
        forth = self.weigh(correlations.amax(3) * a["seen"][:, None])
        back = self.weigh(correlations.amax(2) * b["seen"])
        sums = forth + back
        return self.norm(sums.flatten()[:, None]).view(sums.shape[:2])

    def distance(self, a: Template, b: Template) -> Tensor:
        return torch.sigmoid(-self.logits(a, b))


def build_local(config: plugin.Local, context: Context) -> Local:
    return Local(config, context)


def build_pairs(config: plugin.Pairs, context: Context) -> Pairs:
    return Pairs(config, context)
