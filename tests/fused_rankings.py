"""A ranking by two small matchers, on random vectors."""

from __future__ import annotations

import torch

from reidcore.api import Matching, TensorSpec
from reidcore.model.training_pairs import Pairs
from reidcore.modules import Matcher, Meta
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.scales import fit
from reidcore.ranking.sides import Sides

PLAIN = Matching({"v": TensorSpec((4,))}, pair_bytes=16)


class Power(Matcher):
    """The sum of |a - b|^p."""

    def __init__(self, power: float):
        super().__init__()
        self.power = power

    def template(self, features):
        return {"v": features["v"]}

    def distance(self, a, b):
        return (a["v"][:, None] - b["v"]).abs().pow(self.power).sum(-1)


def vectors(size: int, seed: int) -> torch.Tensor:
    return torch.rand(size, 4, generator=torch.Generator().manual_seed(seed))


def meta(size: int) -> Meta:
    zeros = torch.zeros(size, dtype=torch.int64)
    return Meta(zeros, torch.zeros(size, dtype=torch.float64), zeros)


SCALE = fit("logistic", Pairs(torch.tensor([0.1, 0.3, 0.9]), torch.tensor([0.5, 1.0, 1.5, 2.0])))


def fused(scale=None, by_row: bool = False) -> tuple[MatcherRanking, dict, list[Share]]:
    shares = [Share("one", Power(1), PLAIN, 0.25, scale), Share("two", Power(2), PLAIN, 0.5, None)]
    sides = {
        "query": {"one": {"v": vectors(5, 0)}, "two": {"v": vectors(5, 1)}},
        "gallery": {"one": {"v": vectors(8, 2)}, "two": {"v": vectors(8, 3)}},
    }
    ranking = MatcherRanking(Fusion(shares, by_row), Sides(meta(5), meta(8), sides))
    return ranking, sides, shares
