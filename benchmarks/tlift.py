"""Seconds of `qaconv.tlift` beside a straightforward loop over queries in NumPy.

    uv run python benchmarks/tlift.py [--threads 2] [--repeats 5]

Sizes are that of the authors' own timing, 500 queries and 3,000 gallery pictures of six cameras
within 15,000 seconds, and that of DukeMTMC-reID's test set, 2,228 and 17,661 of eight cameras
within 5,100 seconds. Both ways run in turn in one process; medians are of wall seconds. The exit
code is 1 where the loop is less than 20 times slower, where it takes more than 1.2 s at the smaller
size, which would be no fair comparison, or where results differ.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
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


def drawn(queries: int, gallery: int, cameras: int, span: float) -> tuple[torch.Tensor, Any]:
    """Random float32 distances in [0, 1], cameras and times."""
    draw = torch.Generator().manual_seed(0)

    def side(count: int) -> Meta:
        camera = torch.randint(cameras, (count,), generator=draw)
        seconds = span * torch.rand(count, generator=draw, dtype=torch.float64)
        return Meta(camera, seconds, torch.zeros_like(camera))

    return torch.rand(queries, gallery, generator=draw), Places(side(queries), side(gallery))


def by_loop(distances: np.ndarray, places: Places, config: Settings) -> np.ndarray:
    """Query by query and camera by camera, each step in NumPy."""
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


def compared(
    size: tuple[int, int, int, float], repeats: int
) -> tuple[list[float], list[float], float]:
    """Seconds of the loop and of `qaconv.tlift`, and how far their results are apart."""
    distances, places = drawn(*size)
    config = Settings()
    lift = build_tlift(config, Context(Given((1, 1)), "tlift"))
    lift(distances.clone(), places)  # not counted
    loop, fast = [], []
    for _ in range(repeats):
        own, start = distances.clone(), time.perf_counter()
        expected = by_loop(distances.numpy(), places, config)
        loop.append(time.perf_counter() - start)
        start = time.perf_counter()
        found = lift(own, places)
        fast.append(time.perf_counter() - start)
    return loop, fast, float(np.abs(found.numpy() - expected).max())


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
    print(f"{'':18} {'pictures':>14} {'loop':>8} {'tlift':>8} {'times':>6} {'apart':>8}")
    missed = False
    for name, size in SIZES.items():
        seconds = compared(size, options.repeats)
        loop, fast = (statistics.median(one) for one in seconds[:2])
        print(
            f"{name:18} {size[0]:>5} + {size[1]:>6} {loop:8.3f} {fast:8.3f} {loop / fast:6.1f} "
            f"{seconds[2]:8.1e}",
            flush=True,
        )
        missed |= loop / fast < LEAST_TIMES or seconds[2] > MOST_APART
        missed |= size[0] == 500 and loop > MOST_SECONDS
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
