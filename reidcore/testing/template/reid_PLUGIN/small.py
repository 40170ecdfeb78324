"""A small backbone."""

from __future__ import annotations

from reidcore.modules import Context, Images
from torch import Tensor, nn

from reid_PLUGIN.settings_small import STAGES
from reid_PLUGIN.settings_small import Small as Settings


def stage(inputs: int, outputs: int) -> nn.Sequential:
    """[B, inputs, H, W] to [B, outputs, ceil(H / 2), ceil(W / 2)]."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Small(nn.Module):
    """Pixels [B, 3, H, W] to the maps of the stages that somebody reads; it ends with the last of
    them."""

    def __init__(self, config: Settings, context: Context):
        super().__init__()
        self.wanted = context.wanted
        last = max((STAGES.index(name) for name in self.wanted), default=0)
        self.stages = nn.ModuleDict()
        channels = 3
        for number, name in enumerate(STAGES[: last + 1]):
            self.stages[name] = stage(channels, config.channels * 2**number)
            channels = config.channels * 2**number

    def forward(self, images: Images) -> dict[str, Tensor]:
        maps, found = images.pixels, {}
        for name, layers in self.stages.items():
            maps = layers(maps)
            if name in self.wanted:
                found[name] = maps
        return found


def build(config: Settings, context: Context) -> Small:
    return Small(config, context)
