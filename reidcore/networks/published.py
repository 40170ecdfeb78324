"""Layers and published weights of torchvision, which is imported where it is used.

No other module of the core imports it.
"""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reidcore.errors import DataError
from reidcore.sizes import mobilenet_v2_blocks


def mobilenet_v2_features(width: float, last_stride: int) -> nn.Sequential:
    """Return torchvision's `features` of a MobileNetV2, with its initial random weights."""
    from torchvision.models import MobileNetV2

    blocks = [list(block) for block in mobilenet_v2_blocks(last_stride)]
    return MobileNetV2(num_classes=1, width_mult=width, inverted_residual_setting=blocks).features


def _weights(model: str) -> Any:
    from torchvision.models import get_model_weights

    # The first version: published methods started from it, and it does not change.
    return get_model_weights(model).IMAGENET1K_V1


def published_file(model: str) -> Path:
    """Return the path at which torchvision keeps its ImageNet weights of a model like resnet50."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(_weights(model).url).name).absolute()


def download_weights(model: str) -> dict[str, Tensor]:
    """Download and keep torchvision's ImageNet weights of a model, and return its tensors.

    Raises:
        DataError: The download failed.
    """
    path, weights = published_file(model), _weights(model)
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(
            f"torchvision could not download {weights.url} to {path}: {error}. Put the file there, "
            "or download it elsewhere and give its path as weights."
        ) from None
