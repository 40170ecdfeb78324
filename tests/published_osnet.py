"""OSNet written once more, as a function over a checkpoint's own key names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STREAMS = {"conv2a": 1, "conv2b": 2, "conv2c": 3, "conv2d": 4}


class Published:
    """OSNet x0.25 in evaluation mode and float64 (Zhou et al. 2019) under torchreid's key names.

    Tensors are drawn where the computation first asks for them, so that afterwards `state` is a
    complete checkpoint: what the architecture needs and nothing else.
    """

    def __init__(self, seed: int = 0):
        self.state: dict[str, Tensor] = {}
        self._draw = torch.Generator().manual_seed(seed)

    def tensor(self, name: str, *shape: int) -> Tensor:
        if name not in self.state:
            value = torch.randn(shape, generator=self._draw, dtype=torch.float64)
            fan_in = max(1, value[0].numel())
            self.state[name] = value.abs() + 0.5 if name.endswith("_var") else value * fan_in**-0.5
        assert self.state[name].shape == shape
        return self.state[name]

    def conv(self, x: Tensor, name: str, outputs: int, kernel: int = 1, stride: int = 1) -> Tensor:
        weight = self.tensor(f"{name}.weight", outputs, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, stride=stride, padding=kernel // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            self.tensor(f"{name}.{key}", x.shape[1])
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(x, mean, var, weight, bias)

    def conv_norm(self, x: Tensor, name: str, outputs: int, *size: int) -> Tensor:
        return self.norm(self.conv(x, f"{name}.conv", outputs, *size), f"{name}.bn")

    def lite(self, x: Tensor, name: str) -> Tensor:
        channels = x.shape[1]
        x = self.conv(x, f"{name}.conv1", channels)
        weight = self.tensor(f"{name}.conv2.weight", channels, 1, 3, 3)
        return self.norm(F.conv2d(x, weight, padding=1, groups=channels), f"{name}.bn").relu()

    def gate(self, x: Tensor, name: str) -> Tensor:
        channels, inner = x.shape[1], x.shape[1] // 16
        means = x.mean((2, 3))
        first = self.tensor(f"{name}.fc1.weight", inner, channels, 1, 1)[:, :, 0, 0]
        hidden = (means @ first.T + self.tensor(f"{name}.fc1.bias", inner)).relu()
        second = self.tensor(f"{name}.fc2.weight", channels, inner, 1, 1)[:, :, 0, 0]
        factors = (hidden @ second.T + self.tensor(f"{name}.fc2.bias", channels)).sigmoid()
        return x * factors[:, :, None, None]

    def block(self, x: Tensor, name: str, outputs: int) -> Tensor:
        reduced = self.conv_norm(x, f"{name}.conv1", outputs // 4).relu()
        joined = torch.zeros_like(reduced)
        for stream, length in STREAMS.items():
            y = reduced
            for step in range(length):
                y = self.lite(y, f"{name}.{stream}" if length == 1 else f"{name}.{stream}.{step}")
            joined = joined + self.gate(y, f"{name}.gate")
        short = x
        if x.shape[1] != outputs:
            short = self.conv_norm(x, f"{name}.downsample", outputs)
        return (self.conv_norm(joined, f"{name}.conv3", outputs) + short).relu()

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] -> the output of every published module, under its published name."""
        outputs = {}
        x = self.conv_norm(x, "conv1", 16, 7, 2).relu()
        x = outputs["maxpool"] = F.max_pool2d(x, 3, 2, 1)
        for name, channels, shrink in (("conv2", 64, True), ("conv3", 96, True), ("conv4", 128, 0)):
            for index in range(2):
                x = self.block(x, f"{name}.{index}", channels)
            if shrink:
                x = F.avg_pool2d(self.conv_norm(x, f"{name}.2.0", channels).relu(), 2, 2)
            outputs[name] = x
        x = outputs["conv5"] = self.conv_norm(x, "conv5", 128).relu()
        x = x.mean((2, 3)) @ self.tensor("fc.0.weight", 512, 128).T + self.tensor("fc.0.bias", 512)
        outputs["fc"] = self.norm(x, "fc.1").relu()
        return outputs


def checkpoint(seed: int = 0) -> dict[str, Tensor]:
    """A random checkpoint of OSNet x0.25 with a classifier, float32, under torchreid's names."""
    published = Published(seed)
    published(torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in published.state.items()
    }
    return state | {"classifier.weight": torch.zeros(9, 512), "classifier.bias": torch.zeros(9)}
