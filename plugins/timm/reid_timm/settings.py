"""Settings of the plugin's backbone."""

from __future__ import annotations

from typing import Any

import attrs

from reidcore.api import setting

PRETRAINED = "pretrained"
"""Value of the setting `weights` that stands for the weights that timm publishes."""
OWN_OPTIONS = (
    "cache_dir",
    "checkpoint_path",
    "feature_cls",
    "features_only",
    "img_size",
    "in_chans",
    "num_classes",
    "out_indices",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)
"""Arguments of `timm.create_model` that follow from the run, or from other settings."""


def _foreign(options: dict[str, Any]) -> str | None:
    own = [key for key in OWN_OPTIONS if key in options]
    return f"{own[0]!r} is not for the user to say: the plugin passes it itself" if own else None


@attrs.frozen
class FeaturesSettings:
    """Settings of `timm.features`."""

    model: str = setting(
        "a model of timm, such as resnet50 or vit_small_patch16_224; with the tag of its published "
        "weights, such as resnet50.a1_in1k, where there are several"
    )
    weights: str = setting(
        'what to start from: "" random, "pretrained" the weights that timm downloads, or the path '
        "of a checkpoint",
        default="",
    )
    allow: list[str] = setting(
        "keys of the checkpoint or of the network that may stay unmatched: shell patterns, or "
        "leading components such as layer4.0",
        default=[],
    )
    options: dict[str, Any] = setting(
        "further keyword arguments of the model in timm, such as drop_path_rate = 0.1 or "
        "output_stride = 16",
        default={},
        check=_foreign,
    )
