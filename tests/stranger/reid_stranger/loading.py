"""The sampler and the augmentation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from reid_stranger import plugin
from reidcore.modules import Ask, Context, Rows


class Hard:
    """Three times every identity with its nearest ones, as the model sees them when the batch is
    made; of each a random picture and those farthest from it."""

    def __init__(self, config: plugin.Hard):
        self.config = config

    def epoch(self, rows: Rows, generator: torch.Generator, ask: Ask) -> Iterator[list[int]]:
        pids = np.unique(rows.pid)
        own = {int(pid): np.flatnonzero(rows.pid == pid).tolist() for pid in pids}
        for index in torch.randperm(len(pids), generator=generator).tolist() * 3:
            anchor = int(pids[index])
            centres = torch.stack(
                [ask.features(self.config.feature, own[int(pid)]).mean(0) for pid in pids]
            )
            order = (centres - centres[index]).square().sum(1)
            order[index] = -1
            chosen = [int(pids[i]) for i in order.argsort()[: self.config.ids].tolist()]
            assert chosen[0] == anchor
            yield [place for pid in chosen for place in self._spread(own[pid], generator, ask)]

    def _spread(self, places: list[int], generator: torch.Generator, ask: Ask) -> list[int]:
        start = places[int(torch.randint(len(places), (), generator=generator))]
        apart = ask.distances(self.config.matcher, [start], places)[0]
        apart[places.index(start)] = torch.inf
        return [places[i] for i in apart.argsort(descending=True)[: self.config.per_id].tolist()]


class Fade:
    """Multiplies by a factor from [least, 1]."""

    def __init__(self, config: plugin.Fade):
        self.least = config.least

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        factor = self.least + (1 - self.least) * float(torch.rand((), generator=generator))
        return (picture.float() * factor).to(torch.uint8)


def build_hard(config: plugin.Hard, context: Context) -> Hard:
    return Hard(config)


def build_fade(config: plugin.Fade, context: Context) -> Fade:
    return Fade(config)
