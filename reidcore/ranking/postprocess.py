"""Postprocessors as a run has them: built, and their results checked."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.errors import PluginError, ReidError
from reidcore.model.building import build_part
from reidcore.model.finite import is_finite
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.wiring.blame import blamed
from reidcore.wiring.plan import Plan, Wired


@attrs.frozen(eq=False)
class Postprocessor:
    """A built postprocessor. Call it with distances, float32 [Q, G], and the ranking that they come
    from; it returns others of the same shape.

    Raises PluginError, naming the part, where it fails, and where what it returns is not float32 of
    that shape or not finite, with the first such pair of pictures.
    """

    wired: Wired
    built: Any

    @torch.no_grad()
    def __call__(self, distances: Tensor, ranking: MatcherRanking) -> Tensor:
        part, shape = self.wired.part, distances.shape
        with blamed(self.wired, "postprocessing"):
            try:
                result = self.built(distances, ranking)
            except ReidError as error:
                raise type(error)(f"{part}: {error}") from error
        if not isinstance(result, Tensor) or result.shape != shape or result.dtype != torch.float32:
            found = f"{result.dtype} {list(result.shape)}" if isinstance(result, Tensor) else result
            raise PluginError(f"{part}: returned {found} for float32 {list(shape)} distances")
        if not is_finite(result):
            fault = ranking.sides.fault(result, ("query", 0), ("gallery", 0))
            raise PluginError(
                f"{part}: returned distances that are not finite: {fault}; nothing can be ranked"
            )
        return result


def build_postprocessor(plan: Plan, wired: Wired) -> Postprocessor:
    """Build the postprocessor of a [[post]] table."""
    return Postprocessor(wired, build_part(plan, wired))
