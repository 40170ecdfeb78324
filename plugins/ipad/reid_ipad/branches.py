"""The heads of IPAD: a compressed map, a controller that makes each picture's kernel, and what the
kernel makes of the picture itself (arXiv 2103.05395, sections III-B and III-C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_ipad.settings_heads import Compressed as CompressedSettings
from reid_ipad.settings_heads import Compression
from reid_ipad.settings_heads import MutualGuided as MutualGuidedSettings
from reid_ipad.settings_heads import SelfGuided as SelfGuidedSettings
from reidcore.api import Heat, Table
from reidcore.modules import Context, Images, at_least_float32

EPSILON = 1e-12
"""Least length that kernels are divided by: what is 0 stays 0."""


def normalised(kernels: Tensor, how: str) -> Tensor:
    """Kernels [B, filters, channels] with unit length of the whole kernel (frobenius), of each
    filter, of each input channel over the filters (column), or as they are (none)."""
    if how == "none":
        return kernels
    axes = {"frobenius": (1, 2), "filter": (2,), "column": (1,)}[how]
    return kernels / torch.linalg.vector_norm(kernels, dim=axes, keepdim=True).clamp(min=EPSILON)


def convolved(kernels: Tensor, maps: Tensor) -> Tensor:
    """Each picture's dynamic 1x1 convolution: kernels [B, O, C] on maps [B, C, H, W]."""
    return (kernels @ maps.flatten(2)).unflatten(2, maps.shape[2:])


def apply_kernels(kernels: Tensor, vectors: Tensor) -> Tensor:
    """Kernels [B, O, C] on vectors [B, C]: the pooled form of `convolved`."""
    return (kernels @ vectors.unsqueeze(2)).squeeze(2)


def compression(
    inputs: int,
    channels: int,
    widths: Sequence[int] | None = None,
    kernel: int = 1,
    last: Literal["bn_relu", "bn", "none"] = "bn_relu",
) -> nn.Sequential:
    """Convolutions without bias, each with batch normalisation and ReLU; the last as `last` says.
    [B, inputs, H, W] -> [B, channels, H, W]."""
    layers = nn.Sequential()
    every = [*((channels, channels) if widths is None else widths), channels]
    for number, width in enumerate(every, start=1):
        layers.append(nn.Conv2d(inputs, width, kernel, padding=kernel // 2, bias=False))
        follows = last if number == len(every) else "bn_relu"
        if follows != "none":
            layers.append(nn.BatchNorm2d(width))
        if follows == "bn_relu":
            layers.append(nn.ReLU())
        inputs = width
    return layers


class Controller(nn.Module):
    """Three 1x1 convolutions with ReLU, whose output is cut into a kernel of each picture (eq. 2).

    [B, inputs, H, W], averaged to `grid` where that is another size -> [B, channels, channels].
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        grid: tuple[int, int],
        squeeze: int = 16,
        bn: bool = False,
        final_relu: bool = True,
        layout: Literal["out_in", "in_out"] = "out_in",
        norm: Literal["frobenius", "filter", "column", "none"] = "frobenius",
    ):
        super().__init__()
        self.channels, self.grid = channels, grid
        self.layout, self.norm = layout, norm
        hidden, places = inputs // squeeze, grid[0] * grid[1]
        self.layers = nn.Sequential()
        for width in (hidden, hidden, channels**2 // places):
            self.layers.append(nn.Conv2d(inputs, width, 1))
            if bn:
                self.layers.append(nn.BatchNorm2d(width))
            self.layers.append(nn.ReLU())
            inputs = width
        if not final_relu:
            del self.layers[-1]

    def entries(self, maps: Tensor) -> Tensor:
        """The controller's output [B, C_t, *grid], not yet a kernel."""
        if maps.shape[2:] != self.grid:
            maps = F.adaptive_avg_pool2d(maps, self.grid)
        return self.layers(maps)

    def forward(self, maps: Tensor) -> Tensor:
        entries = self.entries(maps)
        with torch.autocast(maps.device.type, enabled=False):
            kernels = at_least_float32(entries).flatten(1).unflatten(1, (self.channels, -1))
            if self.layout == "in_out":
                kernels = kernels.transpose(1, 2)
            return normalised(kernels, self.norm)


class Compressing(nn.Module):
    """Base of the heads: a compression of their source."""

    def __init__(self, config: Compression, context: Context):
        super().__init__()
        self.source = config.source
        self.compression = compression(
            context.map(config.source)[0],
            config.channels,
            config.compress_widths,
            config.compress_kernel,
            config.compress_last,
        )


class CompressedMap(Compressing):
    """The compressed map alone: `map`."""

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        return {"map": self.compression(features[self.source])}


class Guided(Compressing):
    """Base of the heads with a controller."""

    def __init__(self, config: SelfGuidedSettings | MutualGuidedSettings, context: Context):
        super().__init__(config, context)
        self.reads_compressed = config.controller_input == "compressed"
        self.controller = Controller(
            config.channels if self.reads_compressed else context.map(config.source)[0],
            config.channels,
            config.grid(context.given),
            config.squeeze,
            config.controller_bn,
            config.controller_final_relu,
            config.kernel_layout,
            config.kernel_norm,
        )

    def guided(self, source: Tensor, kernel: bool = True) -> tuple[Tensor, Tensor | None]:
        """The compressed map [B, C, H, W] and the kernels [B, C, C], both at least float32."""
        compressed = self.compression(source)
        kernels = None
        if kernel:
            kernels = self.controller(compressed if self.reads_compressed else source)
        return at_least_float32(compressed), kernels


class SelfGuided(Guided):
    """A picture's map under its own kernel: `map` [B, C, H, W] and its mean `vector` [B, C]."""

    def __init__(self, config: SelfGuidedSettings, context: Context):
        super().__init__(config, context)
        self.wanted = context.wanted
        self.heat = config.heat
        # A map that is made anyway is pooled itself, so that the vector depends on it (Grad-CAM).
        self.pools_first = config.dynamic_form == "pooled" and "map" not in self.wanted
        follows = {"none": nn.Identity, "relu": nn.ReLU}.get(config.post_conv)
        self.post = nn.BatchNorm2d(config.channels) if follows is None else follows()

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        compressed, kernels = self.guided(features[self.source])
        assert kernels is not None
        out = {}
        with torch.autocast(compressed.device.type, enabled=False):
            if self.pools_first:
                # The mean commutes with a linear map.
                out["vector"] = apply_kernels(kernels, compressed.mean((2, 3)))
            else:
                out["map"] = self.post(convolved(kernels, compressed))
                out["vector"] = out["map"].mean((2, 3))
        return {name: value for name, value in out.items() if name in self.wanted}

    def explain(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Heat | Table]:
        """Figure 4: where the whole picture's map and the self-guided one are strong, by the norm
        or the mean over channels, from 0 to 1 in each picture. Figure 6: Euclidean distances
        between the pictures' mean vectors before and after their kernels."""
        with torch.no_grad():
            source = features[self.source]
            compressed, kernels = self.guided(source)
            assert kernels is not None
            own = self.post(convolved(kernels, compressed))
            before, after = (torch.cdist(x, x) for x in (compressed.mean((2, 3)), own.mean((2, 3))))
        pairs = [(i, j) for i in range(len(source)) for j in range(i + 1, len(source))]
        return {
            "global_branch": stretched(source, self.heat),
            "self_guided_branch": stretched(own, self.heat),
            "distances": Table(
                ("picture", "other", "before", "after"),
                [(i, j, float(before[i, j]), float(after[i, j])) for i, j in pairs],
            ),
        }


def stretched(maps: Tensor, heat: Literal["l2", "mean"]) -> Heat:
    """A map [B, C, H, W] as heat from 0 to 1 in each picture: the norm or mean over channels."""
    maps = at_least_float32(maps.detach())
    values = maps.norm(dim=1) if heat == "l2" else maps.mean(1)
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    values = (values - low) / (high - low).clamp(min=EPSILON)
    words = {"l2": "channel norm", "mean": "channel mean"}[heat]
    return Heat(values.cpu().numpy(), meaning=f"{words}, from 0 to 1", low=0.0, high=1.0)


class MutualGuided(Guided):
    """Parts of a pair's distance: each picture's `vector` [B, C], the mean of its compressed
    map, and its `kernel` [B, C, C]."""

    def __init__(self, config: MutualGuidedSettings, context: Context):
        super().__init__(config, context)
        self.wanted = context.wanted

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        compressed, kernels = self.guided(features[self.source], "kernel" in self.wanted)
        out = {}
        if "vector" in self.wanted:
            out["vector"] = compressed.mean((2, 3))
        if kernels is not None:
            out["kernel"] = kernels
        return out


def build_compressed(config: CompressedSettings, context: Context) -> CompressedMap:
    return CompressedMap(config, context)


def build_self_guided(config: SelfGuidedSettings, context: Context) -> SelfGuided:
    return SelfGuided(config, context)


def build_mutual_guided(config: MutualGuidedSettings, context: Context) -> MutualGuided:
    return MutualGuided(config, context)
