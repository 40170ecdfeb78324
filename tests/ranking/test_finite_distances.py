"""Whatever distances a postprocessor asks for, none that is not finite reaches it, and none that it
makes is ranked."""

from __future__ import annotations

import math
import re

import pytest
import torch

from reidcore.errors import ReidError
from reidcore.ranking.fusion import Fusion, Share, Shortlisting
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.sides import Sides
from tests.fused_rankings import PLAIN, SCALE, Power, meta, vectors

MARK = 9.0
SIZES = {"query": 6, "gallery": 11}
MARKED = {"query": [3], "gallery": [2, 7]}
"""Pictures of which any two have a distance that is not finite."""


class Spoiled(Power):
    """The distance of two marked pictures is `bad`; that of merged templates is the first one's."""

    def __init__(self, bad: float):
        super().__init__(1)
        self.bad = bad

    def merge(self, views):
        return views[0]

    def distance(self, a, b):
        marked = (a["v"][:, :1] == MARK) & (b["v"][:, 0] == MARK)
        return super().distance(a, b).masked_fill(marked, self.bad)


def ranking(bad: float, weight: float = 1.0, **fusion) -> MatcherRanking:
    sides = {}
    for seed, (side, size) in enumerate(SIZES.items()):
        sides[side] = {"far": {"v": vectors(size, seed)}, "near": {"v": vectors(size, seed)}}
        sides[side]["far"]["v"][MARKED[side], 0] = MARK
    names = {side: [f"{side}-{number}.jpg" for number in range(SIZES[side])] for side in SIZES}
    share = Share("far", Spoiled(bad), PLAIN, weight, fusion.pop("scale", None))
    pictures = Sides(meta(6), meta(11), sides, names=names)
    return MatcherRanking(Fusion([share], **fusion), pictures)


def listed(context: MatcherRanking, a: str, b: str):
    """Pairs of which the last are marked."""
    i = torch.tensor([0, 1, *MARKED[a][-1:]])
    return lambda: context.pairs(a, i, b, torch.tensor([0, 1, *MARKED[b][-1:]]))


def whole(context: MatcherRanking, a: str, b: str):
    return lambda: context.between(a, b, 2, SIZES[a])


def asked(context: MatcherRanking):
    """(words of the first bad pair, function that asks for it)."""
    for a, b in (
        ("query", "gallery"),
        ("gallery", "query"),
        ("query", "query"),
        ("gallery", "gallery"),
    ):
        for ask, place in ((whole, 0), (listed, -1)):
            one, other = MARKED[a][place], MARKED[b][place]
            yield (a, one, b, other), ask(context, a, b)
    for side in SIZES:
        first = MARKED[side][0]
        for entries in (1, 20, 1000):

            def within(side=side, entries=entries):
                return list(context.within(side, entries))

            yield (side, first, side, first), within
    neighbours = torch.zeros(SIZES["query"], 2, dtype=torch.int64)
    yield ("query", 3, "gallery", 2), lambda: context.expanded(neighbours)


@pytest.mark.parametrize("scale", [None, SCALE], ids=["plain", "scaled"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_every_distance_that_can_be_asked_for(bad: float, scale):
    """The matcher and the two pictures are named, also where a scale would hide it."""
    for (a, one, b, other), ask in asked(ranking(bad, scale=scale)):
        with pytest.raises(ReidError) as caught:
            ask()
        words = f"{bad} between {a} picture {a}-{one}.jpg and {b} picture {b}-{other}.jpg; nothing"
        assert "by matcher 'far' are not finite" in str(caught.value) and words in str(caught.value)
    for _, ask in asked(ranking(0.5, scale=scale)):
        ask()


def test_a_part_names_its_own_pictures():
    """Places in a trial are not those in the whole."""
    part = ranking(math.nan).part(torch.tensor([1, 3]), torch.tensor([0, 4, 7]))
    names = re.escape("query picture query-3.jpg and gallery picture gallery-7.jpg")
    for ask in (
        lambda: part.between("query", "gallery", 1, 2),
        lambda: part.pairs("query", torch.tensor([1]), "gallery", torch.tensor([2])),
        lambda: part.expanded(torch.zeros(2, 1, dtype=torch.int64)),
    ):
        with pytest.raises(ReidError, match=names):
            ask()
    with pytest.raises(ReidError, match=r"gallery-7\.jpg and gallery picture gallery-7\.jpg"):
        list(part.within("gallery", 2))


@pytest.mark.parametrize("short", [False, True], ids=["whole", "shortlist"])
def test_what_weights_make_infinite(short: bool):
    """Finite distances, but not their weighted sum."""
    chooses = Shortlisting(Share("near", Power(1), PLAIN), 2, False) if short else None
    assert ranking(1.0, 3e37, shortlist=chooses).whole().isfinite().all()
    with pytest.raises(ReidError, match=r"scales and weights.* inf between query picture query-\d"):
        ranking(1.0, 1e38, shortlist=chooses).whole()
