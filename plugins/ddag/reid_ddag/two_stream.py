"""A network whose first stages exist once for every modality."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from reid_ddag.settings_two_stream import TwoStream as TwoStreamSettings
from reidcore.modules import Context, Images, is_exporting
from reidcore.networks import ResNet, Staged, initial_weights, load_weights, read_weights
from reidcore.sizes import RESNET_STAGES

OWN, SHARED = "own_", "shared"


class TwoStream(nn.Module):
    """A staged network with its first stages copied for every modality, the others shared (Ye et
    al. 2020, section 3.1).

    network: what is copied; all copies start equal. names: of the modalities. own: the last stage
    that is copied. Each modality's stages are in `own_NAME`, the others in `shared`. wanted: the
    stages to give. which: the place in `names` of every modality's number in `Images.modality`.
    """

    which: Tensor

    def __init__(
        self,
        network: Staged,
        names: Sequence[str],
        own: str,
        wanted: frozenset[str],
        which: Sequence[int],
    ):
        super().__init__()
        count = network.stages.index(own) + 1 if own in network.stages else len(network.stages)
        self.own, self.common = network.stages[:count], network.stages[count:]
        self.names = list(names)
        self.wanted = wanted
        for name in names:
            stages = {stage: copy.deepcopy(getattr(network, stage)) for stage in self.own}
            self.add_module(OWN + name, nn.ModuleDict(stages))
        self.shared = nn.ModuleDict({stage: getattr(network, stage) for stage in self.common})
        self.register_buffer("which", torch.tensor(which), persistent=False)

    def forward(self, images: Images) -> dict[str, Tensor]:
        """{stage: [B, C, h, w]} in the order of the pictures. Stages of a modality without a
        picture in the batch are not used."""
        which = self.which[images.modality]
        if is_exporting():
            return self._chosen(images.pixels, which)
        listed = which.tolist()  # the only time that the host waits for a GPU
        counts = [listed.count(number) for number in range(len(self.names))]
        # Samplers put one modality behind the other, which spares copying.
        mixed = listed != sorted(listed)
        order = which.argsort(stable=True) if mixed else None
        pixels = images.pixels if order is None else images.pixels[order]
        back = None if order is None else order.argsort()
        streams = [
            (getattr(self, OWN + name), part)
            for name, part in zip(self.names, pixels.split(counts), strict=True)
            if len(part)
        ]
        outputs: dict[str, Tensor] = {}
        for stage in self.own:
            streams = [(stages, stages[stage](part)) for stages, part in streams]
            if stage in self.wanted or stage == self.own[-1]:
                joined = torch.cat([part for _, part in streams])
                outputs[stage] = joined if back is None else joined[back]
        maps = outputs[self.own[-1]]
        for stage in self.common:
            maps = outputs[stage] = self.shared[stage](maps)
        return {stage: maps for stage, maps in outputs.items() if stage in self.wanted}

    def _chosen(self, pixels: Tensor, which: Tensor) -> dict[str, Tensor]:
        """`forward` for graphs, which cannot ask how many pictures a modality has: every picture
        goes through the stages of all modalities, and its own are taken."""
        streams = [(getattr(self, OWN + name), pixels) for name in self.names]
        outputs: dict[str, Tensor] = {}
        for stage in self.own:
            streams = [(stages, stages[stage](part)) for stages, part in streams]
            maps = streams[0][1]
            for number, (_, part) in enumerate(streams[1:], start=1):
                maps = torch.where((which == number)[:, None, None, None], part, maps)
            outputs[stage] = maps
        for stage in self.common:
            maps = outputs[stage] = self.shared[stage](maps)
        return {stage: maps for stage, maps in outputs.items() if stage in self.wanted}


def is_two_stream(keys: Sequence[str]) -> bool:
    """Return True if a checkpoint with these keys is one of `TwoStream`, not of a plain network."""
    return any(key.startswith(OWN) for key in keys)


def build_two_stream(config: TwoStreamSettings, context: Context) -> TwoStream:
    deepest = max((*context.wanted, "stem"), key=RESNET_STAGES.index)
    network = ResNet(
        config.depth, config.last_stride, config.width, deepest, config.norm, config.attention
    )
    source = context.weights("weights", config.weights)
    state = read_weights(source) if Path(source).is_file() else {}
    which = [config.modalities.index(name) for name in context.modalities]
    if not is_two_stream(list(state)):
        initial_weights(network, context, config.weights, config.allow, f"resnet{config.depth}")
    made = TwoStream(network, config.modalities, config.own, context.wanted, which or [0])
    if is_two_stream(list(state)):
        # Stages that nobody reads are not built.
        unbuilt = RESNET_STAGES[RESNET_STAGES.index(deepest) + 1 :]
        report = load_weights(
            made,
            state,
            lambda key: None if key.split(".")[1] in unbuilt else key,
            config.allow,
            source,
        )
        context.say(str(report))
    return made
