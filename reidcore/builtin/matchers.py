"""Matchers of the core: distances between concatenated vectors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reidcore.builtin.distances import (
    cosine_similarity,
    euclidean,
    squared_euclidean,
)
from reidcore.builtin.settings.matchers import Cosine as CosineSettings
from reidcore.builtin.settings.matchers import Euclidean as EuclideanSettings
from reidcore.contracts.parts import Context, Matcher, Template
from reidcore.contracts.precision import at_least_float32


class Cosine(Matcher):
    """Cosine distance (1 - cos) / 2 of the concatenated features, in [0, 1].

    It is 0.5 where a vector is zero. The template `vector` [B, D] is stored before it is scaled, so
    that the mean over test views is one of features.
    """

    def __init__(self, config: CosineSettings, lengths: list[int]):
        super().__init__()
        self.features = config.features
        self.lengths = lengths
        self.each = config.each

    def template(self, features: Mapping[str, Tensor]) -> Template:
        return {
            "vector": torch.cat([at_least_float32(features[name]) for name in self.features], 1)
        }

    def descriptor(self, template: Template) -> Tensor:
        """Return the vectors [N, D] whose cosines are taken."""
        vectors = at_least_float32(template["vector"])
        if self.each:
            parts = vectors.split(self.lengths, 1)
            vectors = torch.cat([F.normalize(part, dim=1) for part in parts], 1)
        return vectors

    def distance(self, a: Template, b: Template) -> Tensor:
        similarity = cosine_similarity(self.descriptor(a), self.descriptor(b))
        if similarity.requires_grad:
            return ((1 - similarity) / 2).clamp(0, 1)
        return similarity.neg_().add_(1).div_(2).clamp_(0, 1)


class Euclidean(Matcher):
    """Euclidean distance of the concatenated features, squared or of unit length if so set.

    For its precision see `reidcore.builtin.distances.squared_euclidean`.
    """

    def __init__(self, config: EuclideanSettings):
        super().__init__()
        self.features = config.features
        self.squared = config.squared
        self.unit = config.unit

    def template(self, features: Mapping[str, Tensor]) -> Template:
        vectors = torch.cat([at_least_float32(features[name]) for name in self.features], 1)
        return {"vector": F.normalize(vectors, dim=1) if self.unit == "views" else vectors}

    def distance(self, a: Template, b: Template) -> Tensor:
        # A mean of unit vectors is none, so what is merged is scaled here.
        x, y = a["vector"], b["vector"]
        if self.unit == "merged":
            x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
        return squared_euclidean(x, y) if self.squared else euclidean(x, y)


def build_cosine(config: CosineSettings, context: Context) -> Cosine:
    return Cosine(config, [context.vector(name) for name in config.features])


def build_euclidean(config: EuclideanSettings, context: Context) -> Euclidean:
    return Euclidean(config)
