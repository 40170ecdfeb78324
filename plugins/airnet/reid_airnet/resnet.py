"""A ResNet with two last stages and global context blocks (Blythman et al. 2022, section 3.1)."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

from torch import Tensor, nn

from reid_airnet.context import GlobalContext
from reid_airnet.settings_resnet import COPIES
from reid_airnet.settings_resnet import ResNet as ResNetSettings
from reidcore.modules import Context, Images
from reidcore.networks import ResNet, initial_weights


class Step(NamedTuple):
    """A stage of the divided network: what it is called, and whose output it reads."""

    name: str
    source: str
    module: nn.Module


class DividedResNet(nn.Module):
    """A ResNet whose last stage, or all behind layer3's first block, is there twice, with equal
    weights at the start. Only what the wanted maps need is kept.

    {stage: [B, C, H, W]} of every wanted stage; layer4a and layer4i are the two copies' maps.
    """

    def __init__(self, network: ResNet, split: str, wanted: frozenset[str]):
        super().__init__()
        steps = {step.name: step for step in _divided(network, split)}
        needed: set[str] = set()
        for name in wanted:
            while name:
                needed.add(name)
                name = steps[name].source
        self.steps = [(step.name, step.source) for step in steps.values() if step.name in needed]
        self.wanted = [name for name, _ in self.steps if name in wanted]
        for name, _ in self.steps:
            self.add_module(name, steps[name].module)

    def forward(self, images: Images) -> dict[str, Tensor]:
        values = {"": images.pixels}
        for name, source in self.steps:
            values[name] = getattr(self, name)(values[source])
        return {name: values[name] for name in self.wanted}


def _divided(network: ResNet, split: str) -> list[Step]:
    """Return all steps of the divided network, each behind its source."""
    trunk = ["stem", "layer1", "layer2"]
    modules = {name: getattr(network, name) for name in trunk}
    if split == "layer4":
        trunk.append("layer3")
        modules["layer3"] = network.layer3
        tail = {"layer4": network.layer4}
    else:
        # No output: what the paper's stage 4 gives is in the copies.
        trunk.append("layer3_first")
        modules["layer3_first"] = network.layer3[:1]
        tail = {"layer3": network.layer3[1:], "layer4": network.layer4}
    steps = [
        Step(name, source, modules[name]) for name, source in zip(trunk, ["", *trunk], strict=False)
    ]
    for copy in COPIES:
        source = trunk[-1]
        for name, module in deepcopy(tail).items():
            steps.append(Step(f"{name}{copy}", source, module))
            source = f"{name}{copy}"
    return steps


def _keep_resolution(stage: nn.Sequential) -> None:
    """Sets the stride of a stage's first block to 1."""
    for part in stage[0].modules():
        if isinstance(part, nn.Conv2d):
            part.stride = (1, 1)


def _add_contexts(network: ResNet, config: ResNetSettings) -> None:
    for name in dict.fromkeys(config.contexts()):
        stage = getattr(network, name)
        channels = _channels(stage[-1])
        if config.gc_position == "block":
            for block in stage:
                block.attention = _context(channels, config)
        else:
            stage.append(_context(channels, config))


def _channels(block: nn.Module) -> int:
    """Channels that a residual block gives."""
    return [part for part in block.modules() if isinstance(part, nn.Conv2d)][-1].out_channels


def _context(channels: int, config: ResNetSettings) -> GlobalContext:
    return GlobalContext(channels, config.gc_ratio, config.gc_fusion, config.gc_pool)


def build_resnet(config: ResNetSettings, context: Context) -> DividedResNet:
    network = ResNet(config.depth, config.last_stride, config.width, norm=config.norm)
    initial_weights(network, context, config.weights, config.allow, f"resnet{config.depth}")
    if config.layer3_stride == 1:
        _keep_resolution(network.layer3)
    _add_contexts(network, config)
    return DividedResNet(network, config.split, context.wanted)
