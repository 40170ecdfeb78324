"""OSNet: omni-scale feature learning for person re-identification."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from reidcore.networks.common import Staged, conv, init_convolutions
from reidcore.sizes import OSNET_FEATURE, OSNET_STAGES, osnet_channels

STREAMS = 4
"""Streams of a block, of 1 to 4 convolutions."""


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> OrderedDict:
    return OrderedDict(conv=conv(inputs, outputs, kernel, stride), norm=nn.BatchNorm2d(outputs))


def _conv_norm_relu(inputs: int, outputs: int, kernel: int, stride: int = 1) -> OrderedDict:
    return OrderedDict(**_conv_norm(inputs, outputs, kernel, stride), relu=nn.ReLU(inplace=True))


def _lite(channels: int) -> nn.Sequential:
    """Return a lite 3x3: a 1x1 and a depthwise 3x3 convolution (Zhou et al. 2019, fig. 3b)."""
    return nn.Sequential(
        OrderedDict(
            pointwise=conv(channels, channels, 1),
            depthwise=nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
        )
    )


class ChannelGate(nn.Module):
    """Aggregation gate: it scales every channel by a factor in (0, 1) (Zhou et al. 2019, sec. 3.2).

    The factors follow from the means of all channels. [B, C, H, W] -> [B, C, H, W].
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        inner = max(1, channels // reduction)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class OSBlock(nn.Module):
    """Omni-scale residual block: four streams, weighted by one gate and added (fig. 4b).

    A stream has 1 to 4 lite 3x3 convolutions (Zhou et al. 2019).
    [B, inputs, H, W] -> [B, outputs, H, W].
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        inner = outputs // 4
        self.reduce = nn.Sequential(_conv_norm_relu(inputs, inner, 1))
        self.streams = nn.ModuleList(
            nn.Sequential(*(_lite(inner) for _ in range(length)))
            for length in range(1, STREAMS + 1)
        )
        self.gate = ChannelGate(inner)
        self.expand = nn.Sequential(_conv_norm(inner, outputs, 1))
        self.shortcut = (
            nn.Sequential(_conv_norm(inputs, outputs, 1)) if inputs != outputs else nn.Identity()
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        joined = torch.zeros_like(reduced)
        for stream in self.streams:
            joined = joined + self.gate(stream(reduced))
        return self.relu(self.expand(joined) + self.shortcut(x))


def _stage(inputs: int, outputs: int, shrink: bool) -> nn.Sequential:
    """Return two blocks; with `shrink`, then a 1x1 convolution and pooling to half the extents."""
    blocks: list[nn.Module] = [OSBlock(inputs, outputs), OSBlock(outputs, outputs)]
    if shrink:
        last = OrderedDict(_conv_norm_relu(outputs, outputs, 1), pool=nn.AvgPool2d(2))
        blocks.append(nn.Sequential(last))
    return nn.Sequential(*blocks)


def _small_linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer as the published network starts it: deviation 0.01, bias 0."""
    linear = nn.Linear(inputs, outputs)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear


class OSNet(Staged):
    """OSNet without the classifier (Zhou et al. 2019, table 1).

    The stages are the modules `stem` (published as conv1 and the max pooling), `layer1` and
    `layer2` (conv2 and conv3, each with the pooling after it), `layer3` (conv4), `layer4` (conv5, a
    1x1 convolution) and `fc`, the vector [B, 512]: average pooling, linear, batch norm, ReLU.
    `osnet_shapes` gives their shapes.

    Args:
        width: Factor on all channel numbers; published are 0.25, 0.5, 0.75 and 1.
        until: The last stage that is built.

    Raises:
        ValueError: There is no stage `until`.

    Example:
        >>> import torch
        >>> from reidcore.networks import OSNet
        >>> network = OSNet(width=0.25).eval()
        >>> network(torch.zeros(2, 3, 64, 32))["fc"].shape
        torch.Size([2, 512])
    """

    renamed = (
        (r"^conv1\.", "stem."),
        (r"^conv2\.(?=\d)", "layer1."),
        (r"^conv3\.(?=\d)", "layer2."),
        (r"^conv4\.(?=\d)", "layer3."),
        (r"^conv5\.", "layer4."),
        (r"^fc\.0\.", "fc.linear."),
        (r"^fc\.1\.", "fc.norm."),
        (r"^(layer\d\.2)\.0\.", r"\1."),
        (r"\.conv2a\.", ".streams.0.0."),
        (r"\.conv2b\.", ".streams.1."),
        (r"\.conv2c\.", ".streams.2."),
        (r"\.conv2d\.", ".streams.3."),
        (r"(\.streams\.\d\.\d)\.conv1\.", r"\1.pointwise."),
        (r"(\.streams\.\d\.\d)\.conv2\.", r"\1.depthwise."),
        (r"\.conv1\.", ".reduce."),
        (r"\.conv3\.", ".expand."),
        (r"\.downsample\.", ".shortcut."),
        (r"\.bn\.", ".norm."),
    )
    classifier = ("classifier",)

    def __init__(self, width: float = 1.0, until: str = "fc"):
        super().__init__(OSNET_STAGES, until)
        c1, c2, c3, c4 = osnet_channels(width)
        made = {
            "stem": lambda: nn.Sequential(
                OrderedDict(
                    **_conv_norm_relu(3, c1, 7, 2), pool=nn.MaxPool2d(3, stride=2, padding=1)
                )
            ),
            "layer1": lambda: _stage(c1, c2, shrink=True),
            "layer2": lambda: _stage(c2, c3, shrink=True),
            "layer3": lambda: _stage(c3, c4, shrink=False),
            "layer4": lambda: nn.Sequential(_conv_norm_relu(c4, c4, 1)),
            "fc": lambda: nn.Sequential(
                OrderedDict(
                    pool=nn.AdaptiveAvgPool2d(1),
                    flatten=nn.Flatten(),
                    linear=_small_linear(c4, OSNET_FEATURE),
                    norm=nn.BatchNorm1d(OSNET_FEATURE),
                    relu=nn.ReLU(inplace=True),
                )
            ),
        }
        for stage in self.stages:
            self.add_module(stage, made[stage]())
        init_convolutions(self)
