"""What the networks have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from reidcore.contracts.pictures import Images


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without shift, padded so that stride 1 keeps the extents."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def init_convolutions(module: nn.Module) -> None:
    """He initialisation of all convolutions, normal and by fan-out (He et al. 2015); norm layers
    keep scale 1 and shift 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def stages_until(last: str, stages: tuple[str, ...]) -> tuple[str, ...]:
    """The stages up to `last`. Raises ValueError if there is none of this name."""
    if last not in stages:
        raise ValueError(f"no stage {last!r}; there are {', '.join(stages)}")
    return stages[: stages.index(last) + 1]


class Staged(nn.Module):
    """A chain of stages, each an attribute of this module and an output.

    every: all stages of the architecture, in order. until: the last one that is built.
    """

    renamed: Sequence[tuple[str, str]] = ()
    """Regular expressions and replacements that turn published keys into this module's own, which
    they leave alone."""
    cuts: Mapping[str, tuple[int, int]] = {}
    """Where torchvision numbers all layers as `features`: each stage's first and end index."""
    classifier: tuple[str, ...] = ()
    """First components of published keys that belong to the classifier, which is not built."""

    def __init__(self, every: tuple[str, ...], until: str):
        super().__init__()
        self.stages = stages_until(until, every)
        self._not_built = every[len(self.stages) :]

    def forward(self, pixels: Tensor, until: str | None = None) -> dict[str, Tensor]:
        """[B, 3, H, W] -> the output of every stage up to `until`, by default the last one built.
        Maps are [B, C, h, w]."""
        outputs = {}
        for stage in self.stages if until is None else stages_until(until, self.stages):
            pixels = outputs[stage] = getattr(self, stage)(pixels)
        return outputs

    def own_name(self, key: str) -> str | None:
        """This module's name of a published checkpoint's key; None for the classifier and for
        stages that are not built."""
        if key.partition(".")[0] in self.classifier:
            return None
        for pattern, replacement in self.renamed:
            key = re.sub(pattern, replacement, key)
        numbered = re.fullmatch(r"features\.(\d+)\.(.+)", key)
        for stage, (start, stop) in self.cuts.items():
            if numbered and start <= int(numbered[1]) < stop:
                key = f"{stage}.{int(numbered[1]) - start}.{numbered[2]}"
        return None if key.partition(".")[0] in self._not_built else key


class StagedBackbone(nn.Module):
    """A backbone that returns the outputs of those of its network's stages that somebody reads.

    Args:
        network: A chain of stages.
        wanted: Names of the stages, as `Context.wanted` has them.

    Example:
        >>> import torch
        >>> from reidcore.modules import Images
        >>> from reidcore.networks import ResNet, StagedBackbone
        >>> backbone = StagedBackbone(ResNet(18, width=0.125), frozenset({"layer2"}))
        >>> none = torch.zeros(2, dtype=torch.int64)
        >>> maps = backbone(Images(torch.zeros(2, 3, 64, 32), none, none))
        >>> {stage: tuple(found.shape) for stage, found in maps.items()}
        {'layer2': (2, 16, 8, 4)}
    """

    def __init__(self, network: Staged, wanted: frozenset[str]):
        super().__init__()
        self.wanted = [stage for stage in network.stages if stage in wanted]
        self.network = network

    def forward(self, images: Images) -> dict[str, Tensor]:
        outputs = self.network(images.pixels)
        return {stage: outputs[stage] for stage in self.wanted}
