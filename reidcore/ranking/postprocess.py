"""Postprocessors as a run has them: built, and their results checked."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.contracts.run_interfaces import Ranking
from reidcore.errors import PluginError, ReidError
from reidcore.model.building import build_part
from reidcore.wiring.plan import Plan, Wired


@attrs.frozen(eq=False)
class Postprocessor:
    """A built postprocessor. Call it with distances, float32 [Q, G], and the ranking that they come
    from; it returns others of the same shape.

    Raises PluginError, naming the part, where what it returns is not float32 of that shape or not
    finite.
    """

    wired: Wired
    built: Any

    @torch.no_grad()
    def __call__(self, distances: Tensor, ranking: Ranking) -> Tensor:
        part, shape = self.wired.part, distances.shape
        try:
            result = self.built(distances, ranking)
        except ReidError as error:
            raise type(error)(f"{part}: {error}") from error
        if not isinstance(result, Tensor) or result.shape != shape or result.dtype != torch.float32:
            found = f"{result.dtype} {list(result.shape)}" if isinstance(result, Tensor) else result
            raise PluginError(f"{part}: returned {found} for float32 {list(shape)} distances")
        if not result.isfinite().all():
            raise PluginError(f"{part}: returned distances that are not finite")
        return result


def build_postprocessor(plan: Plan, wired: Wired) -> Postprocessor:
    """Build the postprocessor of a [[post]] table."""
    return Postprocessor(wired, build_part(plan, wired))
