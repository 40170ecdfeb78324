"""A sampler that shows every identity from different cameras."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from reidcore.modules import Ask, Context, Rows

from reid_PLUGIN.settings_cameras import Cameras as Settings


class Cameras:
    """Batches of `ids` identities with `per_id` pictures each. A camera is taken again only when
    all of an identity's cameras were taken, a picture only when all of its pictures were. An epoch
    takes about as many pictures as there are."""

    def __init__(self, config: Settings):
        self.ids = config.ids
        self.per_id = config.per_id

    def epoch(self, rows: Rows, generator: torch.Generator, ask: Ask) -> Iterator[list[int]]:
        pids = np.unique(rows.pid)
        for _ in range(max(1, len(rows) // (len(pids) * self.per_id))):
            order = pids[_shuffle(len(pids), generator)]
            for start in range(0, len(order) - self.ids + 1, self.ids):
                chosen = order[start : start + self.ids]
                yield [place for pid in chosen for place in self._draw(rows, pid, generator)]

    def _draw(self, rows: Rows, pid: int, generator: torch.Generator) -> list[int]:
        places = np.flatnonzero(rows.pid == pid)
        places = places[_shuffle(len(places), generator)]
        cameras = rows.camera[places]
        # The first picture of every camera comes before the second of any.
        turns = [int((cameras[:i] == camera).sum()) for i, camera in enumerate(cameras)]
        places = places[np.argsort(turns, kind="stable")]
        return np.resize(places, self.per_id).tolist()


def _shuffle(count: int, generator: torch.Generator) -> np.ndarray:
    return torch.randperm(count, generator=generator).numpy()


def build(config: Settings, context: Context) -> Cameras:
    return Cameras(config)
