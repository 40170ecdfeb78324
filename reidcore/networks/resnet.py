"""ResNet, with the norms and the attention that re-identification adds to it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from reidcore.networks.common import Staged, conv, init_convolutions
from reidcore.sizes import RESNET_BLOCKS, RESNET_STAGES, resnet_base, resnet_expansion

Norm = Literal["batch", "ibn_a", "ibn_b"]
"""Norm of a network: batch norm, or with instance norm as in IBN-a or IBN-b (Pan et al. 2018)."""

Attention = Literal["none", "se"]
"""Attention of a network: none, or squeeze-and-excitation (Hu et al. 2018)."""

NORMED_STAGES: dict[Norm, tuple[str, ...]] = {
    "batch": (),
    "ibn_a": ("layer1", "layer2", "layer3"),
    "ibn_b": ("layer1", "layer2"),
}
"""Stages in whose blocks each norm replaces batch norm."""


class IBN(nn.Module):
    """Instance norm for half of the channels, batch norm for the others (Pan et al. 2018, fig. 3a).

    The first floor(C / 2) channels get instance norm, which uses the picture's own statistics in
    training and evaluation. [B, C, H, W] -> [B, C, H, W]; H * W is at least 2.

    Args:
        channels: C.

    Example:
        >>> import torch
        >>> from reidcore.networks import IBN
        >>> IBN(64)(torch.rand(2, 64, 16, 8)).shape
        torch.Size([2, 64, 16, 8])
    """

    def __init__(self, channels: int):
        super().__init__()
        self.split = channels // 2
        self.instance = nn.InstanceNorm2d(self.split, affine=True)
        self.batch = nn.BatchNorm2d(channels - self.split)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.instance(x[:, : self.split]), self.batch(x[:, self.split :])], 1)


class SqueezeExcitation(nn.Module):
    """Channel attention: it scales every channel by a factor in (0, 1) (Hu et al. 2018, section 3).

    The factors follow from the means of all channels: linear, ReLU, linear, sigmoid, with biases.
    [B, C, H, W] -> [B, C, H, W].

    Args:
        channels: C.
        reduction: C divided by the length of the inner vector, which is rounded down, at least 1.

    Example:
        >>> import torch
        >>> from reidcore.networks import SqueezeExcitation
        >>> SqueezeExcitation(64)(torch.rand(2, 64, 16, 8)).shape
        torch.Size([2, 64, 16, 8])
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        inner = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, inner)
        self.excite = nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        factors = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return x * factors[:, :, None, None]


def _first_norm(channels: int, norm: Norm) -> nn.Module:
    return IBN(channels) if norm == "ibn_a" else nn.BatchNorm2d(channels)


def _stem_norm(channels: int, norm: Norm) -> nn.Module:
    instance = norm == "ibn_b"
    return nn.InstanceNorm2d(channels, affine=True) if instance else nn.BatchNorm2d(channels)


def _last_norm(channels: int, norm: Norm) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True) if norm == "ibn_b" else nn.Identity()


def _attention(channels: int, attention: Attention) -> nn.Module:
    return SqueezeExcitation(channels) if attention == "se" else nn.Identity()


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict(conv=conv(inputs, outputs, 1, stride), norm=nn.BatchNorm2d(outputs))
    )


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions (He et al. 2016, fig. 5 left).

    [B, inputs, H, W] -> [B, channels, H / stride, W / stride], rounded up.

    Args:
        inputs: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution.
        norm: "ibn_a" puts `IBN` behind the first convolution, "ibn_b" instance norm behind the sum,
            before the last ReLU.
        attention: "se" puts `SqueezeExcitation` on the residual, before the shortcut is added.

    Example:
        >>> import torch
        >>> from reidcore.networks import BasicBlock
        >>> BasicBlock(64, 128, stride=2)(torch.rand(2, 64, 16, 8)).shape
        torch.Size([2, 128, 8, 4])
    """

    expansion = 1

    def __init__(
        self,
        inputs: int,
        channels: int,
        stride: int = 1,
        norm: Norm = "batch",
        attention: Attention = "none",
    ):
        super().__init__()
        self.conv1 = conv(inputs, channels, 3, stride)
        self.norm1 = _first_norm(channels, norm)
        self.conv2 = conv(channels, channels, 3)
        self.norm2 = nn.BatchNorm2d(channels)
        self.attention = _attention(channels, attention)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(inputs, channels, stride)
        self.instance = _last_norm(channels, norm)

    def residual(self, x: Tensor) -> Tensor:
        """Return the residual, which is added to the shortcut."""
        x = self.relu(self.norm1(self.conv1(x)))
        return self.attention(self.norm2(self.conv2(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.instance(self.residual(x) + self.shortcut(x)))


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions (He et al. 2016, fig. 5 right).

    [B, inputs, H, W] -> [B, 4 * channels, H / stride, W / stride], rounded up.

    Args:
        inputs: Channels of the input.
        channels: Inner channels, a quarter of the output's.
        stride: Stride of the 3x3 convolution, as in torchvision's ImageNet weights.
        norm: As in `BasicBlock`.
        attention: As in `BasicBlock`.

    Example:
        >>> import torch
        >>> from reidcore.networks import Bottleneck
        >>> Bottleneck(64, 64, norm="ibn_a")(torch.rand(2, 64, 16, 8)).shape
        torch.Size([2, 256, 16, 8])
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        channels: int,
        stride: int = 1,
        norm: Norm = "batch",
        attention: Attention = "none",
    ):
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = conv(inputs, channels, 1)
        self.norm1 = _first_norm(channels, norm)
        self.conv2 = conv(channels, channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = conv(channels, outputs, 1)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.attention = _attention(outputs, attention)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.instance = _last_norm(outputs, norm)

    def residual(self, x: Tensor) -> Tensor:
        """Return the residual, which is added to the shortcut."""
        x = self.relu(self.norm1(self.conv1(x)))
        x = self.relu(self.norm2(self.conv2(x)))
        return self.attention(self.norm3(self.conv3(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.instance(self.residual(x) + self.shortcut(x)))


def resnet_stage(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    channels: int,
    blocks: int,
    stride: int,
    norm: Norm = "batch",
    attention: Attention = "none",
) -> nn.Sequential:
    """Return a stage of residual blocks.

    [B, inputs, H, W] -> [B, channels * block.expansion, H / stride, W / stride], rounded up.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        inputs: Channels of the input.
        channels: Inner channels of the blocks.
        blocks: Number of blocks.
        stride: Stride of the first block.
        norm: As in `BasicBlock`; "ibn_b" is for the last block alone.
        attention: As in `BasicBlock`.

    Example:
        >>> import torch
        >>> from reidcore.networks import Bottleneck, resnet_stage
        >>> layer2 = resnet_stage(Bottleneck, 256, 128, blocks=2, stride=2)
        >>> layer2(torch.rand(2, 256, 16, 8)).shape
        torch.Size([2, 512, 8, 4])
    """
    outputs = channels * block.expansion
    norms: list[Norm] = [norm] * blocks
    if norm == "ibn_b":
        norms[:-1] = ["batch"] * (blocks - 1)
    return nn.Sequential(
        block(inputs, channels, stride, norms[0], attention),
        *(block(outputs, channels, 1, one, attention) for one in norms[1:]),
    )


class ResNet(Staged):
    """ResNet without the classifier (He et al. 2016, table 1).

    The stages are the modules `stem`, `layer1` ... `layer4`; their maps are taken after the ReLU,
    and `resnet_shapes` gives their shapes.

    Args:
        depth: Number of layers: 18, 34, 50, 101 or 152.
        last_stride: Stride of layer4, 1 or 2; with 1 its map has twice the resolution (Sun et al.
            2018).
        width: Factor on all channel numbers.
        until: The last stage that is built.
        norm: "ibn_a" replaces the first norm of every block of layer1 to layer3 by `IBN`; "ibn_b"
            puts instance norm into the stem, in place of its batch norm, and behind the sum of the
            last block of layer1 and of layer2 (Pan et al. 2018).
        attention: "se" puts `SqueezeExcitation` on every block's residual (Hu et al. 2018).

    Raises:
        ValueError: There is no such depth or stage.

    Example:
        >>> import torch
        >>> from reidcore.networks import ResNet
        >>> network = ResNet(18, width=0.25)
        >>> maps = network(torch.zeros(2, 3, 64, 32))
        >>> list(maps), maps["layer4"].shape
        (['stem', 'layer1', 'layer2', 'layer3', 'layer4'], torch.Size([2, 128, 4, 2]))
    """

    # Those up to `until` are there.
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    renamed = (
        (r"^conv1\.", "stem.conv."),
        (r"^bn1\.", "stem.norm."),
        (r"\.bn(\d)\.IN\.", r".norm\1.instance."),
        (r"\.IN\.", ".instance."),
        (r"\.bn(\d)\.BN\.", r".norm\1.batch."),
        (r"\.bn(\d)\.", r".norm\1."),
        (r"\.downsample\.0\.", ".shortcut.conv."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
    )
    classifier = ("fc", "classifier")

    def __init__(
        self,
        depth: int,
        last_stride: int = 1,
        width: float = 1.0,
        until: str = "layer4",
        norm: Norm = "batch",
        attention: Attention = "none",
    ):
        if depth not in RESNET_BLOCKS:
            raise ValueError(f"no ResNet has depth {depth}; there are {sorted(RESNET_BLOCKS)}")
        super().__init__(RESNET_STAGES, until)
        block = Bottleneck if resnet_expansion(depth) == Bottleneck.expansion else BasicBlock
        channels = resnet_base(width)
        self.stem = nn.Sequential(
            OrderedDict(
                conv=conv(3, channels, 7, 2),
                norm=_stem_norm(channels, norm),
                relu=nn.ReLU(inplace=True),
                pool=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
        inputs = channels
        strides = (1, 2, 2, last_stride)
        for stage, blocks, stride in zip(
            self.stages[1:], RESNET_BLOCKS[depth], strides, strict=False
        ):
            used = norm if stage in NORMED_STAGES[norm] else "batch"
            self.add_module(
                stage, resnet_stage(block, inputs, channels, blocks, stride, used, attention)
            )
            inputs = channels * block.expansion
            channels *= 2
        init_convolutions(self)
