"""What a sampler may ask of the model while it orders an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Rows
from reidcore.ranking.comparer import Comparer


class SamplerAnswers:
    """Answers a sampler: features and distances of training pictures as the model is now."""

    def __init__(self, comparer: Comparer, rows: Rows):
        self._comparer = attrs.evolve(comparer, views=("plain",))
        self._rows = rows

    def features(self, name: str, indices: Sequence[int]) -> Tensor:
        batches = self._comparer.features(self._rows.take(indices))
        return torch.cat([features[name] for features, _ in batches])

    def distances(self, matcher: str, a: Sequence[int], b: Sequence[int]) -> Tensor:
        first = self._templates(matcher, a)
        second = first if list(a) == list(b) else self._templates(matcher, b)
        paths = self._rows.take(a).paths, self._rows.take(b).paths
        return self._comparer.distances(matcher, first, second, paths)

    def _templates(self, matcher: str, indices: Sequence[int]) -> Template:
        return self._comparer.templates([matcher], self._rows.take(indices))[matcher]
