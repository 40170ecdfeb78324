"""VGG-19 with batch norm, with its blocks of convolutions as stages."""

from __future__ import annotations

from itertools import accumulate, pairwise

from torch import nn

from reidcore.networks.common import Staged, init_convolutions
from reidcore.sizes import VGG19_BN_BLOCKS, vgg19_bn_channels


def _stage(inputs: int, channels: int, convolutions: int, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [
            nn.Conv2d(inputs, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        inputs = channels
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


def _cuts() -> dict[str, tuple[int, int]]:
    """Return the indices of each stage: three layers for a convolution, one for the pooling."""
    counts = (3 * convolutions + 1 for convolutions, _ in VGG19_BN_BLOCKS.values())
    return dict(zip(VGG19_BN_BLOCKS, pairwise(accumulate(counts, initial=0)), strict=True))


class VGG19BN(Staged):
    """VGG-19 with batch norm, without the classifier (Simonyan and Zisserman 2015, table 1, E).

    It computes what torchvision's `vgg19_bn().features` does. The stages are the modules `stem`,
    `layer1` ... `layer4`, one block of convolutions each with the max pooling after it, so that
    `layer1` to `layer4` have a ResNet's strides. `vgg19_bn_shapes` gives their shapes.

    Args:
        last_stride: Stride of layer4, 1 or 2; with 1 it goes without the last max pooling.
        width: Factor on channel numbers.
        until: The last stage that is built.

    Raises:
        ValueError: There is no stage `until`.

    Example:
        >>> import torch
        >>> from reidcore.networks import VGG19BN
        >>> network = VGG19BN(width=0.125)
        >>> network(torch.zeros(2, 3, 64, 32))["layer4"].shape
        torch.Size([2, 64, 4, 2])
    """

    cuts = _cuts()
    classifier = ("classifier",)

    def __init__(self, last_stride: int = 1, width: float = 1.0, until: str = "layer4"):
        super().__init__(tuple(VGG19_BN_BLOCKS), until)
        channels = vgg19_bn_channels(width)
        inputs = 3
        for stage in self.stages:
            pool = stage != "layer4" or last_stride == 2
            self.add_module(stage, _stage(inputs, channels[stage], VGG19_BN_BLOCKS[stage][0], pool))
            inputs = channels[stage]
        init_convolutions(self)
