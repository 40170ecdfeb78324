"""A run whose probabilities are fitted on pairs of a user's own pictures."""

from __future__ import annotations

import copy

import attrs
from torch import Tensor

from reidcore.model.training_pairs import Pairs, thinned
from reidcore.search.results import Templates
from reidcore.search.search import Search


def calibrated(search: Search, templates: Templates, pairs: Tensor, same: Tensor) -> Search:
    """Return the run with scales and probabilities fitted on known pairs, in place of the pairs of
    training pictures that it has kept.

    Args:
        search: the run; it stays as it is.
        templates: of N pictures, made by the run.
        pairs: int64 [2, P], the places of each pair's two pictures.
        same: bool [P], whether they show one identity; some must, and some not.

    Example:
        >>> def chances(run, known, pairs, same, query, gallery):
        ...     own = calibrated(run, run.templates(known), pairs, same)
        ...     return own.probabilities(query, gallery, run.rank(query, gallery).index)
    """
    found = {}
    for name in dict.fromkeys(name for table in search.plan.rankings for name in table.matchers):
        own = attrs.evolve(
            search.plan.rankings[0], matcher=name, fuse={}, scale="none", shortlist=None, post=[]
        )
        ranking = search._ranking(own, templates, templates, whole=False)
        first, second = pairs.to(search.model.device)
        distances = ranking.pairs("query", first, "gallery", second).cpu()
        found[name] = Pairs(thinned(distances[same]), thinned(distances[~same]))
    result = copy.copy(search)
    result.model = copy.copy(search.model)
    result.model.pairs, result.model.stale_pairs = found, {}
    return result
