"""Networks that plugins build on. Every stage is an attribute, so that a plugin can copy, replace
or split it; shapes without torch are in `reidcore.sizes`."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from reidcore.sizes import (
    RESNET_BLOCKS,
    RESNET_STAGES,
    conv_size,
    resnet_base,
    resnet_expansion,
    resnet_shapes,
)

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "ResNet",
    "conv_size",
    "init_convolutions",
    "resnet_shapes",
    "resnet_stage",
]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict(conv=_conv(inputs, outputs, 1, stride), norm=nn.BatchNorm2d(outputs))
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, fig. 5 left).

    [B, inputs, H, W] -> [B, channels, H / stride, W / stride], rounded up.
    """

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = _conv(inputs, channels, 3, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(inputs, channels, stride)

    def residual(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        x = self.relu(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (He et al. 2016, fig. 5 right). The stride is
    the 3x3 convolution's, as in the published ImageNet weights of torchvision.

    [B, inputs, H, W] -> [B, 4 * channels, H / stride, W / stride], rounded up.
    """

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int = 1):
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = _conv(inputs, channels, 1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = _conv(channels, outputs, 1)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def residual(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        x = self.relu(self.norm1(self.conv1(x)))
        x = self.relu(self.norm2(self.conv2(x)))
        return self.norm3(self.conv3(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.residual(x) + self.shortcut(x))


def resnet_stage(
    block: type[BasicBlock] | type[Bottleneck], inputs: int, channels: int, blocks: int, stride: int
) -> nn.Sequential:
    """`blocks` residual blocks, the first with `stride`; channels * block.expansion come out."""
    outputs = channels * block.expansion
    return nn.Sequential(
        block(inputs, channels, stride), *(block(outputs, channels) for _ in range(blocks - 1))
    )


def init_convolutions(module: nn.Module) -> None:
    """He initialisation of all convolutions, normal and by fan-out (He et al. 2015); norm layers
    keep scale 1 and shift 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class ResNet(nn.Module):
    """ResNet of 18, 34, 50, 101 or 152 layers without the classifier (He et al. 2016).

    depth: layers. last_stride: stride of layer4, 1 or 2; with 1 its map has twice the resolution
    (Sun et al. 2018). width: factor on all channel numbers. until: the last stage that is built.
    The stages are the modules `stem`, `layer1` ... `layer4`; `resnet_shapes` gives their shapes.
    Raises ValueError for another depth or stage.
    """

    def __init__(self, depth: int, last_stride: int = 1, width: float = 1.0, until: str = "layer4"):
        super().__init__()
        if depth not in RESNET_BLOCKS:
            raise ValueError(f"no ResNet has depth {depth}; there are {sorted(RESNET_BLOCKS)}")
        self.stages = _stages_until(until, RESNET_STAGES)
        block = Bottleneck if resnet_expansion(depth) == Bottleneck.expansion else BasicBlock
        channels = resnet_base(width)
        self.stem = nn.Sequential(
            OrderedDict(
                conv=_conv(3, channels, 7, 2),
                norm=nn.BatchNorm2d(channels),
                relu=nn.ReLU(inplace=True),
                pool=nn.MaxPool2d(3, stride=2, padding=1),
            )
        )
        inputs = channels
        strides = (1, 2, 2, last_stride)
        for stage, blocks, stride in zip(
            self.stages[1:], RESNET_BLOCKS[depth], strides, strict=False
        ):
            self.add_module(stage, resnet_stage(block, inputs, channels, blocks, stride))
            inputs = channels * block.expansion
            channels *= 2
        init_convolutions(self)

    def forward(self, pixels: Tensor, until: str | None = None) -> dict[str, Tensor]:
        """[B, 3, H, W] -> the map [B, C, h, w] of every stage up to `until`, by default the last
        one built. Maps are after the ReLU."""
        maps = {}
        for stage in self.stages if until is None else _stages_until(until, self.stages):
            pixels = maps[stage] = getattr(self, stage)(pixels)
        return maps


def _stages_until(last: str, stages: tuple[str, ...]) -> tuple[str, ...]:
    if last not in stages:
        raise ValueError(f"no stage {last!r}; there are {', '.join(stages)}")
    return stages[: stages.index(last) + 1]
