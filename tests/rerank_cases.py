"""Distances to re-rank: of random points, with ties, duplicates and without symmetry."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from reidcore.builtin import settings
from reidcore.builtin.reranking import Rerank
from reidcore.modules import Meta
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.resources import Resources
from reidcore.ranking.sides import Sides


class Matrix:
    """A ranking whose matcher's distances are entries of `full` [N, N], queries first, the row's
    picture on the query side. Notes what it is asked for."""

    def __init__(self, full: Tensor, queries: int, symmetric: bool = False):
        self.full, self.symmetric = full, symmetric
        self.memo: dict[str, object] = {}
        self.asked: list[tuple[str, str, int]] = []
        self.sides = {"query": slice(0, queries), "gallery": slice(queries, None)}
        self.query, self.gallery = (meta(len(full[side])) for side in self.sides.values())

    def between(self, a: str, b: str, start: int, stop: int) -> Tensor:
        self.asked += [(a, b, row) for row in range(start, stop)]
        return self.full[self.sides[a], self.sides[b]][start:stop].clone()

    def within(self, side: str, entries: int) -> Iterator[tuple[int, int, Tensor]]:
        size = len(self.full[self.sides[side]])
        for start in range(0, size, step := max(1, entries // size)):
            rows = self.between(side, side, start, min(start + step, size))
            first = start if self.symmetric else 0
            yield start, first, rows[:, first:]

    def everyone(self, value: Tensor) -> list[Tensor]:
        return [value]

    def of_gallery(self, key: str, make) -> object:
        return self.memo[key] if key in self.memo else self.memo.setdefault(key, make())

    def pairs(self, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        return self.full[self.sides[a], self.sides[b]][i, j]

    def distances(self) -> Tensor:
        return self.between("query", "gallery", 0, len(self.query))


def meta(count: int) -> Meta:
    none = torch.zeros(count, dtype=torch.int64)
    return Meta(none, none.double(), none)


def rerank(
    full: Tensor, queries: int, entries: int = 2**24, symmetric=False, device="cpu", **config
) -> Tensor:
    ranking = Matrix(full.to(device), queries, symmetric)
    return Rerank(settings.Rerank(**config), entries)(ranking.distances(), ranking).cpu()


def vectors(count: int, seed: int, groups: int = 0) -> Tensor:
    """Random points in 6 dimensions, in `groups` clusters if there are any."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=draw, dtype=torch.float64)
    if groups:
        x = (
            0.4 * x
            + torch.randn(groups, 6, generator=draw, dtype=torch.float64)[
                torch.arange(count) % groups
            ]
        )
    return x


def spread(count: int = 60) -> Tensor:
    return torch.cdist(vectors(count, 0), vectors(count, 0))


def clustered(count: int = 60) -> Tensor:
    return torch.cdist(vectors(count, 1, 7), vectors(count, 1, 7))


def tied(count: int = 60) -> Tensor:
    return clustered(count).mul(2).round()


def duplicated(count: int = 60) -> Tensor:
    """Five copies of each picture, more than fit into the shorter lists."""
    x = vectors(count // 5, 2).repeat(5, 1)
    return (x[:, None] - x).norm(dim=2)


def asymmetric(count: int = 60, queries: int = 20) -> Tensor:
    """Self-distances that are not 0, and no symmetry except between the sides."""
    draw = torch.Generator().manual_seed(3)
    full = 0.2 + clustered(count) * (0.6 + torch.rand(count, count, generator=draw).double())
    full[queries:, :queries] = full[:queries, queries:].T
    return full


def equal(count: int = 60) -> Tensor:
    return torch.full((count, count), 0.25, dtype=torch.float64)


def zeros(count: int = 60) -> Tensor:
    return torch.zeros(count, count, dtype=torch.float64)


CASES = [spread, clustered, tied, duplicated, asymmetric, equal, zeros]


def matcher_ranking(
    matcher, matching, x: Tensor, queries: int, resources: Resources | None = None
) -> MatcherRanking:
    share = Share("look", matcher, matching)
    templates = {
        side: {"look": matcher.template({"x.x": rows.float()})}
        for side, rows in (("query", x[:queries]), ("gallery", x[queries:]))
    }
    sides = Sides(meta(queries), meta(len(x) - queries), templates)
    return MatcherRanking(Fusion([share]), sides, resources)
