"""The hook of the plugin `timm`: its one component, without torch and timm."""

from __future__ import annotations

from collections.abc import Sequence

from reid_timm.wiring import Features
from reidcore.api import Component, hookimpl, sample_run


@hookimpl
def reid_backbones() -> Sequence[Component]:
    return [
        Component(
            "features",
            Features,
            "reid_timm.backbone:build_features",
            "a model of timm, its stages as the maps layer1, layer2, ...",
            "Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models",
            sample_run(
                backbone=dict(use="timm.features", model="mobilenetv3_small_050"),
                head=dict(name="neck", use="core.bnneck", source="backbone.layer5"),
            ),
            heavy=True,
        )
    ]
