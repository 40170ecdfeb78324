"""The core's backbones."""

from __future__ import annotations

from torch import Tensor, nn

from reidcore.builtin.settings import ResNet as ResNetSettings
from reidcore.modules import Context, Images
from reidcore.networks import ResNet
from reidcore.sizes import RESNET_STAGES


class ResNetBackbone(nn.Module):
    """A `reidcore.networks.ResNet` that stops after the deepest stage that somebody reads."""

    def __init__(self, config: ResNetSettings, wanted: frozenset[str]):
        super().__init__()
        self.wanted = [stage for stage in RESNET_STAGES if stage in wanted]
        deepest = self.wanted[-1] if self.wanted else RESNET_STAGES[0]
        self.network = ResNet(config.depth, config.last_stride, config.width, until=deepest)

    def forward(self, images: Images) -> dict[str, Tensor]:
        maps = self.network(images.pixels)
        return {stage: maps[stage] for stage in self.wanted}


def build_resnet(config: ResNetSettings, context: Context) -> ResNetBackbone:
    return ResNetBackbone(config, context.wanted)
