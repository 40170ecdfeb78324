"""Wiring of the plugin's backbone. Importing this imports neither torch nor timm."""

from __future__ import annotations

import attrs

from reid_timm.settings import PRETRAINED, FeaturesSettings
from reidcore.api import Feature, Given


@attrs.frozen
class Features(FeaturesSettings):
    """Settings of `timm.features` that say which maps they give."""

    def outputs(self, given: Given) -> dict[str, Feature]:
        from reid_timm.models import check_model, stage_shapes

        check_model(self)
        given.weights("weights", self.weights, PRETRAINED)
        shapes = stage_shapes(self, given.image)
        return {stage: Feature.map(*shape) for stage, shape in shapes.items()}
