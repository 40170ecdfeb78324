"""MobileNetV2 with its stages as attributes, made of torchvision's layers."""

from __future__ import annotations

from torch import nn

from reidcore.networks.common import Staged
from reidcore.networks.published import mobilenet_v2_features
from reidcore.sizes import MOBILENET_V2_STAGES


class MobileNetV2(Staged):
    """MobileNetV2 without the classifier (Sandler et al. 2018, table 2).

    The stages are the modules `stem`, `layer1` ... `layer4`, cut so that `layer1` to `layer4` have
    a ResNet's strides. `reidcore.sizes.MOBILENET_V2_STAGES` says which of torchvision's `features`
    each holds, `mobilenet_v2_shapes` gives their shapes.

    Args:
        last_stride: Stride of the last block that shrinks, 1 or 2; with 1 the map of layer4 has
            twice the resolution.
        width: Factor on channel numbers, which become multiples of 8.
        until: The last stage that is built.

    Raises:
        ValueError: There is no stage `until`.

    Example:
        >>> import torch
        >>> from reidcore.networks import MobileNetV2
        >>> network = MobileNetV2(width=0.25, until="layer2")
        >>> network(torch.zeros(2, 3, 64, 32))["layer2"].shape
        torch.Size([2, 8, 8, 4])
    """

    cuts = MOBILENET_V2_STAGES
    classifier = ("classifier",)

    def __init__(self, last_stride: int = 1, width: float = 1.0, until: str = "layer4"):
        super().__init__(tuple(MOBILENET_V2_STAGES), until)
        features = mobilenet_v2_features(width, last_stride)
        for stage in self.stages:
            start, stop = MOBILENET_V2_STAGES[stage]
            self.add_module(stage, nn.Sequential(*features[start:stop]))
