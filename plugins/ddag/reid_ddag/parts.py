"""Intra-modality weighted-part aggregation (IWPA)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_ddag.settings_parts import Parts as PartsSettings
from reidcore.api import Heat
from reidcore.modules import Context, Images, at_least_float32


class Parts(nn.Module):
    """Horizontal parts of a map that attend to each other, joined with a vector of the whole: `x`,
    x* in the paper (Ye et al. 2020, section 3.2).

    Part i attends to part j by the softmax of <u(x_i), v(x_j)> and becomes the sum of z(x_j) with
    these weights (equations 2 to 4); nothing passes from one picture to another.
    """

    def __init__(self, config: PartsSettings, context: Context):
        super().__init__()
        self.source, self.base, self.parts = config.source, config.base, config.parts
        self.aggregation = config.aggregation
        self.axis = 2 if config.attention == "rows" else 1
        channels = context.map(config.source)[0]
        # 1x1 convolutions of the paper, on maps that are one position wide.
        self.u, self.v, self.z = (nn.Linear(channels, channels) for _ in range(3))
        self.softmax = config.weights == "softmax"
        if self.aggregation == "weighted":
            self.weights = nn.Parameter(torch.full((config.parts,), 1 / config.parts))
        self.norm: nn.Module = nn.Identity()
        if config.norm:
            whole = context.vector(config.base)
            more = config.parts * channels if self.aggregation == "concat" else 0
            self.norm = nn.BatchNorm1d(whole + more)
            nn.init.normal_(self.norm.weight, 1, 0.01)
            self.norm.bias.requires_grad_(False)

    def pooled(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, parts, C]: row i is the mean over rows floor(i H / parts) to
        ceil((i + 1) H / parts)."""
        return F.adaptive_avg_pool2d(at_least_float32(maps), (self.parts, 1)).squeeze(3).mT

    def attend(self, parts: Tensor) -> Tensor:
        """[B, parts, C] -> [B, parts, parts], how part i is made of parts j (equation 2)."""
        return (self.u(parts) @ self.v(parts).mT).softmax(self.axis)

    def shares(self) -> Tensor:
        """[parts], what each attended part counts."""
        if self.aggregation != "weighted":
            return self.z.weight.new_full((self.parts,), 1 / self.parts)
        return self.weights.softmax(0) if self.softmax else self.weights

    def forward(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Tensor]:
        base = at_least_float32(features[self.base])
        with torch.autocast(base.device.type, enabled=False):
            parts = self.pooled(features[self.source])
            refined = self.attend(parts) @ self.z(parts)
            if self.aggregation == "concat":
                joined = torch.cat([base, refined.flatten(1)], 1)
            else:
                joined = base + torch.einsum("p,bpc->bc", self.shares(), refined)
            return {"x": self.norm(joined)}

    def explain(self, features: Mapping[str, Tensor], images: Images) -> dict[str, Heat]:
        """Return the share of each part in what is added to the whole: with attention a and weights
        w, the sum over i of w_i a_ij."""
        of_parts = self.shares() @ self.attend(self.pooled(features[self.source]))
        return {"parts": Heat(of_parts[:, :, None].detach().cpu().numpy())}


def build_parts(config: PartsSettings, context: Context) -> Parts:
    return Parts(config, context)
