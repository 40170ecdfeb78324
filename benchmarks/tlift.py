"""Seconds of `qaconv.tlift` beside straightforward loops over queries in NumPy.

    uv run python benchmarks/tlift.py [--threads 2] [--repeats 5]

Sizes are that of the authors' own timing, 500 queries and 3,000 gallery pictures of six cameras
within 15,000 seconds, and that of DukeMTMC-reID's test set, 2,228 and 17,661 of eight cameras
within 5,100 seconds. One loop does what the method says, the other avoids what can be avoided in
a loop. All run in turn in one process; medians are of wall seconds. The exit code is 1 where the
first loop is less than 20 times slower, where it takes more than 1.2 s at the smaller size, which
would be no fair comparison, or where results differ.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import torch
from startup import processor

from reid_qaconv.settings_tlift import TLift as Settings
from reid_qaconv.tlift import build_tlift
from reidcore.api import Given
from reidcore.modules import Context, Meta

SIZES = {
    "authors' timing": (500, 3000, 6, 15000.0),
    "DukeMTMC-reID": (2228, 17661, 8, 5100.0),
}
"""Queries, gallery, cameras, seconds."""
LEAST_TIMES = 20
MOST_SECONDS = 1.2
MOST_APART = 2e-6


@attrs.frozen(eq=False)
class Places:
    """All that TLift asks a ranking for."""

    query: Meta
    gallery: Meta

    def scored(self, start: int, stop: int) -> None:
        """Every pair has a distance."""


def drawn(queries: int, gallery: int, cameras: int, span: float) -> tuple[torch.Tensor, Any]:
    """Random float32 distances in [0, 1], cameras and times."""
    draw = torch.Generator().manual_seed(0)

    def side(count: int) -> Meta:
        camera = torch.randint(cameras, (count,), generator=draw)
        seconds = span * torch.rand(count, generator=draw, dtype=torch.float64)
        return Meta(camera, seconds, torch.zeros_like(camera))

    return torch.rand(queries, gallery, generator=draw), Places(side(queries), side(gallery))


def by_loop(distances: np.ndarray, places: Places, config: Settings) -> np.ndarray:
    """Query by query and camera by camera, as the method is described, each step in NumPy."""
    camera, when = places.query.camera.numpy(), places.query.time.numpy()
    held, passed = places.gallery.camera.numpy(), places.gallery.time.numpy()
    scores = 1 - distances
    result = np.empty_like(scores)
    for query in range(len(scores)):
        near = (camera == camera[query]) & (np.abs(when - when[query]) < config.tau)
        for one in np.unique(held):
            columns = np.flatnonzero(held == one)
            block = scores[near][:, columns]
            least = np.sort(block, axis=None)[-config.k]
            pivots = passed[columns[np.nonzero(block >= least)[1]]]
            apart = passed[columns][:, None] - pivots
            probability = np.exp(-(apart**2) / config.sigma**2).mean(1)
            result[query, columns] = (probability + config.alpha) * scores[query, columns]
    return 1 - result


def by_careful_loop(distances: np.ndarray, places: Places, config: Settings) -> np.ndarray:
    """The same with columns found once, only what is needed copied, and no block sorted."""
    camera, when = places.query.camera.numpy(), places.query.time.numpy()
    passed = places.gallery.time.numpy()
    held = [np.flatnonzero(places.gallery.camera.numpy() == c) for c in np.unique(camera)]
    scores = 1 - distances
    result = np.empty_like(scores)
    for query in range(len(scores)):
        same = camera == camera[query]
        near = np.flatnonzero(same & (np.abs(when - when[query]) < config.tau))
        for columns in held:
            block = scores[np.ix_(near, columns)]
            least = np.partition(block, -config.k, axis=None)[-config.k]
            times = passed[columns]
            pivots = times[np.nonzero(block >= least)[1]]
            apart = (times[:, None] - pivots) / config.sigma
            probability = np.exp(-np.square(apart)).mean(1)
            result[query, columns] = (probability + config.alpha) * scores[query, columns]
    return 1 - result


def compared(size: tuple[int, int, int, float], repeats: int) -> tuple[list[float], float]:
    """Median seconds of both loops and of `qaconv.tlift`, and how far results are apart."""
    distances, places = drawn(*size)
    config = Settings()
    lift = build_tlift(config, Context(Given((1, 1)), "tlift"))
    lift(distances.clone(), places)  # not counted
    ways: list[Callable[[], Any]] = [
        lambda: by_loop(distances.numpy(), places, config),
        lambda: by_careful_loop(distances.numpy(), places, config),
        lambda: lift(own, places).numpy(),
    ]
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        own = distances.clone()
        found = []
        for way, spent in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            found.append(way())
            spent.append(time.perf_counter() - start)
    apart = max(float(np.abs(found[-1] - one).max()) for one in found[:-1])
    return [statistics.median(spent) for spent in seconds], apart


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{platform.platform()}; {processor()}; torch {torch.__version__}; NumPy {np.__version__}; "
        f"threads: {options.threads}; medians of {options.repeats}"
    )
    print(f"{'':18} {'pictures':>14} {'loop':>8} {'careful':>8} {'tlift':>8} {'times':>12} apart")
    missed = False
    for name, size in SIZES.items():
        (loop, careful, fast), apart = compared(size, options.repeats)
        print(
            f"{name:18} {size[0]:>5} + {size[1]:>6} {loop:8.3f} {careful:8.3f} {fast:8.3f} "
            f"{loop / fast:6.1f} {careful / fast:5.1f} {apart:.1e}",
            flush=True,
        )
        missed |= loop / fast < LEAST_TIMES or apart > MOST_APART
        missed |= size[0] == 500 and loop > MOST_SECONDS
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
