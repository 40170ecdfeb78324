"""The neck of MSINet, a global branch and one of two horizontal parts, after CDNet's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from reid_msinet.settings_neck import Neck
from reidcore.errors import DataError
from reidcore.modules import Context, Images
from reidcore.networks import init_convolutions, load_weights, read_weights

RENAMED = {
    r"fc\.": "embed.linear.",
    r"head\.": "embed.norm.",
    r"f_conv\.": "squeeze.",
    r"f_fc\.": "part_embed.linear.",
    r"f_head\.": "part_embed.norm.",
}
"""The authors' keys of the neck and ours."""


def own_name(key: str) -> str | None:
    """Our name of a key of the authors' network; None for what is not the neck's."""
    for pattern, replacement in RENAMED.items():
        if re.match(pattern, key):
            return re.sub(f"^{pattern}", replacement, key)
    return key if key.startswith(tuple(RENAMED.values())) else None


class Embedding(nn.Module):
    """A linear layer, batch norm, and ReLU in CDNet's form. [B, inputs] -> [B, outputs]."""

    def __init__(self, inputs: int, outputs: int, cdnet: bool):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=cdnet)
        nn.init.normal_(self.linear.weight, std=0.01)
        if cdnet:
            nn.init.zeros_(self.linear.bias)
        self.norm = nn.BatchNorm1d(outputs)
        self.norm.bias.requires_grad_(cdnet)
        self.cdnet = cdnet

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.linear(x))
        return x.relu() if self.cdnet else x


class MSINeck(nn.Module):
    """`pooled` [B, C], the mean of one map; `part`, the means of the upper and the lower half of
    another map with fewer channels; `bn` and `part_bn`, each behind a linear layer and a batch
    norm; `feature` and `feature_bn`, the two before and behind, concatenated."""

    def __init__(self, config: Neck, context: Context):
        super().__init__()
        self.source, self.part_source = config.source, config.part_source
        self.wanted = context.wanted
        self.cdnet = config.form == "cdnet"
        lengths = config.lengths(context.given)
        if self._wants("part", "part_bn", "feature", "feature_bn"):
            inputs = context.map(config.part_source)[0]
            self.squeeze = nn.Conv2d(inputs, config.part_channels, 1, bias=not self.cdnet)
        if self._wants("bn", "feature_bn"):
            self.embed = Embedding(lengths["pooled"], lengths["bn"], self.cdnet)
        if self._wants("part_bn", "feature_bn"):
            self.part_embed = Embedding(lengths["part"], lengths["part_bn"], self.cdnet)
        init_convolutions(self)

    def _wants(self, *names: str) -> bool:
        return not self.wanted.isdisjoint(names)

    def parts(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 2 * part_channels]."""
        squeezed = self.squeeze(maps)
        # Of an odd number of rows MSINet's lower part has one more, CDNet's upper part.
        cut = (squeezed.shape[2] + self.cdnet) // 2
        halves = squeezed[:, :, :cut], squeezed[:, :, cut:]
        return torch.cat([half.mean((2, 3)) for half in halves], 1)

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        if self._wants("pooled", "bn", "feature", "feature_bn"):
            made["pooled"] = features[self.source].mean((2, 3))
        if hasattr(self, "squeeze"):
            made["part"] = self.parts(features[self.part_source])
        if hasattr(self, "embed"):
            made["bn"] = self.embed(made["pooled"])
        if hasattr(self, "part_embed"):
            made["part_bn"] = self.part_embed(made["part"])
        if "feature" in self.wanted:
            made["feature"] = torch.cat([made["pooled"], made["part"]], 1)
        if "feature_bn" in self.wanted:
            made["feature_bn"] = torch.cat([made["bn"], made["part_bn"]], 1)
        return {name: made[name] for name in self.wanted}


def build_neck(config: Neck, context: Context) -> MSINeck:
    neck = MSINeck(config, context)
    source = context.weights("weights", config.weights)
    if not source or not neck.state_dict():
        return neck
    if Path(source).is_file():
        state = read_weights(source)
        if "*" in config.allow and not any(map(own_name, state)):
            context.say(f"{source} has no tensors of a neck; it starts from random ones")
        else:
            context.say(str(load_weights(neck, state, own_name, config.allow, source)))
    elif context.initial == "need":
        raise DataError(f"weights not found at {source}")
    else:
        context.say(f"weights not found at {source}; the dry run uses random ones")
    return neck
