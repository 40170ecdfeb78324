"""Interactions of two branches of unlike receptive field (Gu et al. 2023, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reid_msinet.genotypes import OPERATIONS

Pair = tuple[Tensor, Tensor]


class Nothing(nn.Module):
    """(x1, x2) -> (x1, x2)."""

    def forward(self, short: Tensor, long: Tensor) -> Pair:
        return short, long


class Exchange(nn.Module):
    """(x1, x2) -> (x2, x1)."""

    def forward(self, short: Tensor, long: Tensor) -> Pair:
        return long, short


class ChannelGate(nn.Module):
    """Each map times a factor in (0, 1) for each channel, which follows from all channels' means
    through two layers that both maps share (eq. 4; the pooling is the authors' code's). Between
    them are a sixteenth of the channels, but `hidden` at least."""

    def __init__(self, channels: int, hidden: int = 1):
        super().__init__()
        inner = max(hidden, channels // 16)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, short: Tensor, long: Tensor) -> Pair:
        return self.gated(short), self.gated(long)

    def gated(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x * self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class CrossAttention(nn.Module):
    """Each map plus `gamma` times its own channels, mixed by how little each channel correlates
    with the other map's (eq. 5).

    The weights of channel i are softmax(-<x1_i, x2_j>) over j, or softmax(+<x1_i, x2_j>) without
    `invert`. `gamma` starts at 0, where the operation does nothing.
    """

    def __init__(self, invert: bool = True):
        super().__init__()
        self.sign = -1 if invert else 1
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, short: Tensor, long: Tensor) -> Pair:
        # Correlations add over all positions: half precision would overflow.
        with torch.autocast(short.device.type, enabled=False):
            wide = torch.promote_types(short.dtype, torch.float32)
            first, second = short.flatten(2).to(wide), long.flatten(2).to(wide)
            return (
                self.mixed(short, first, second),
                self.mixed(long, second, first),
            )

    def mixed(self, x: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """x [B, C, H, W] and what its channels `own` [B, C, HW] are mixed to."""
        mask = (self.sign * (own @ other.transpose(1, 2))).softmax(2)
        # In the dtype of the network's numbers: one of 16 bits goes on in 16 bits.
        return self.gamma * (mask @ own).view_as(x).to(self.gamma.dtype) + x


def make_operation(letter: str, channels: int, invert: bool = True, hidden: int = 1) -> nn.Module:
    """The operation of this letter on maps of so many channels."""
    if letter == "G":
        return ChannelGate(channels, hidden)
    if letter == "A":
        return CrossAttention(invert)
    return {"N": Nothing, "E": Exchange}[letter]()


class MixedOperation(nn.Module):
    """Sum of all operations, with weights that sum to 1 (eq. 1)."""

    def __init__(self, channels: int, invert: bool = True, hidden: int = 1):
        super().__init__()
        self.candidates = nn.ModuleDict(
            {letter: make_operation(letter, channels, invert, hidden) for letter in OPERATIONS}
        )

    def forward(self, short: Tensor, long: Tensor, weights: Tensor) -> Pair:
        """weights: [operations], in their order."""
        results = [operation(short, long) for operation in self.candidates.values()]
        return (
            sum(weight * one for weight, (one, _) in zip(weights, results, strict=True)),
            sum(weight * one for weight, (_, one) in zip(weights, results, strict=True)),
        )
