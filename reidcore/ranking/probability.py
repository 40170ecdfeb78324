"""The probability that two pictures show one identity, from a ranking's distances and the pairs of
training pictures that its run has kept."""

from __future__ import annotations

import attrs

from reidcore.errors import DataError
from reidcore.model.model import Model
from reidcore.model.training_pairs import Pairs
from reidcore.ranking.comparer import make_fusion
from reidcore.ranking.scales import Scale, fit
from reidcore.runfiles.tables import RankingTable

PROBABILITIES = ("logistic", "isotonic")
"""Scales that make a distance the probability that the two are strangers."""


def probability_table(table: RankingTable) -> RankingTable:
    """Return the ranking whose distances are the probabilities that two pictures are strangers: of
    the same matchers, their weights adding up to 1, without shortlist and postprocessors."""
    total = sum(table.weights.values())
    weights = {name: weight / total for name, weight in table.weights.items()}
    scale = table.scale if table.scale in PROBABILITIES else "logistic"
    return attrs.evolve(table, matcher="", fuse=weights, scale=scale, shortlist=None, post=[])


def match_probability(table: RankingTable, model: Model) -> Scale | None:
    """Return the function from a ranking's distances, before postprocessors, to the probability
    that the two are one identity, if pairs of one and of two were equally frequent.

    None where the distances alone do not tell it: behind a shortlist, by row_minmax, as a sum of
    distances that are no probabilities; or where the run has no training pairs that fit.
    """
    if table.shortlist is not None or table.scale == "row_minmax":
        return None
    if any(name not in model.pairs or name in model.stale_pairs for name in table.weights):
        return None
    try:
        (first, *others) = make_fusion(table, model, model.pairs).shares
        if table.scale in PROBABILITIES:
            total = sum(table.weights.values())
            return lambda distances: (1 - distances / total).clamp(0, 1)
        if others:
            return None
        sides = model.pairs[first.name].state().values()
        scaled = [first.weight * (first.scale(one) if first.scale else one) for one in sides]
        strangers = fit("logistic", Pairs(*scaled))
    except DataError:
        return None
    return lambda distances: 1 - strangers(distances)
