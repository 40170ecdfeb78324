"""Base class of the networks, and layers they share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from reidcore.contracts.pictures import Images


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, padded so that stride 1 keeps the extents."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def init_convolutions(module: nn.Module) -> None:
    """Initialise all convolutions of a module, normal and by fan-out (He et al. 2015, eq. 14).

    Biases become 0; other layers are left as they are.

    Args:
        module: The module, which is changed.

    Example:
        >>> from torch import nn
        >>> from reidcore.networks import init_convolutions
        >>> head = nn.Sequential(nn.Conv2d(256, 64, 1), nn.ReLU())
        >>> init_convolutions(head)
        >>> head[0].bias.abs().max().item()
        0.0
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def stages_until(last: str, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the stages up to `last`.

    Raises:
        ValueError: There is no stage of this name.
    """
    if last not in stages:
        raise ValueError(f"no stage {last!r}; there are {', '.join(stages)}")
    return stages[: stages.index(last) + 1]


class Staged(nn.Module):
    """Base class of networks that are a chain of stages, each an attribute and an output.

    Subclasses add one module for every name in `self.stages`.

    Args:
        every: Names of all stages of the architecture, in the order of computation.
        until: The last stage that is built.

    Raises:
        ValueError: There is no stage `until`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from reidcore.networks import Staged
        >>> class Small(Staged):
        ...     def __init__(self, until="layer1"):
        ...         super().__init__(("stem", "layer1"), until)
        ...         for stage, inputs in zip(self.stages, (3, 16)):
        ...             self.add_module(stage, nn.Conv2d(inputs, 16, 3, stride=2, padding=1))
        >>> network = Small()
        >>> {stage: tuple(maps.shape) for stage, maps in network(torch.zeros(2, 3, 32, 16)).items()}
        {'stem': (2, 16, 16, 8), 'layer1': (2, 16, 8, 4)}
        >>> Small(until="stem").own_name("layer1.weight") is None
        True
    """

    renamed: Sequence[tuple[str, str]] = ()
    """Regular expressions and replacements that turn published keys into this module's own. They
    leave its own keys alone."""

    cuts: Mapping[str, tuple[int, int]] = {}
    """First and end index of each stage, where torchvision numbers all layers as `features`."""

    classifier: tuple[str, ...] = ()
    """First components of published keys that belong to the classifier, which is not built."""

    def __init__(self, every: tuple[str, ...], until: str):
        super().__init__()
        self.stages = stages_until(until, every)
        self._not_built = every[len(self.stages) :]

    def forward(self, pixels: Tensor, until: str | None = None) -> dict[str, Tensor]:
        """Return the outputs of the stages by name.

        Args:
            pixels: float [B, 3, H, W], normalised.
            until: The last stage to compute; None for the last one that is built.

        Returns:
            Maps [B, C, h, w] and vectors [B, D], in the order of computation.
        """
        outputs = {}
        for stage in self.stages if until is None else stages_until(until, self.stages):
            pixels = outputs[stage] = getattr(self, stage)(pixels)
        return outputs

    def own_name(self, key: str) -> str | None:
        """Return this module's own key for a key of a published checkpoint.

        Args:
            key: The published key, such as "layer1.0.bn1.weight".

        Returns:
            The own key; None for the classifier and for stages that are not built.
        """
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
