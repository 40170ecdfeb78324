"""Seconds and memory of `core.rerank` beside a dense formulation in NumPy.

    uv run python benchmarks/rerank.py [--threads 1] [--market]

Pictures are clustered random vectors of length 512 with squared Euclidean distances, which both
sides compute themselves. Every measurement is a fresh process. The dense formulation holds several
N x N arrays, so it runs at a fifth of Market-1501's test set; with --market also at the whole, for
which it takes minutes and 10 GB. Compare CPU seconds: wall time depends on what else runs. The exit
code is 1 where `core.rerank` takes 1.5 GB or more at that size, or where results differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from startup import processor

from reidcore.api import Feature, Given
from reidcore.builtin import settings
from reidcore.builtin.matchers import build_euclidean
from reidcore.builtin.postprocessors import build_rerank
from reidcore.matcher_ranking import MatcherRanking, Share
from reidcore.modules import Context, Meta

LENGTH = 512
FIFTH, MARKET = (674, 3183), (3368, 15913)
"""Queries and gallery."""
MOST_GIGABYTES = 1.5
MOST_APART = 1e-3
"""Where rounding changes who is whose neighbour, single results move by more than rounding does."""


def vectors(count: int) -> torch.Tensor:
    """Unit vectors around one centre for every 26 of them, some far from it, some near."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.randn(count // 26, LENGTH, generator=draw)
    noise = torch.randn(count, LENGTH, generator=draw)
    size = 1 + 2 * torch.rand(count, 1, generator=draw)
    return torch.nn.functional.normalize(
        centres[torch.randint(len(centres), (count,), generator=draw)] + size * noise
    )


def sparse(x: torch.Tensor, queries: int) -> np.ndarray:
    """`core.rerank` behind `core.euclidean`."""
    given = Given((1, 1), features={"x.x": Feature.vector(LENGTH)})
    config = settings.Euclidean(features=["x.x"], squared=True)
    matcher = build_euclidean(config, Context(given, "look"))
    sides = {"query": x[:queries], "gallery": x[queries:]}
    ranking = MatcherRanking(
        [Share("look", matcher, config.describe(given))],
        *(Meta(*torch.zeros(3, len(rows))) for rows in sides.values()),
        {side: {"look": matcher.template({"x.x": rows})} for side, rows in sides.items()},
    )
    distances = ranking.between("query", "gallery", 0, queries)
    return build_rerank(settings.Rerank(), Context(given, "rerank"))(distances, ranking).numpy()


def dense(x: np.ndarray, queries: int, k1: int = 20, k2: int = 6, share: float = 0.3) -> np.ndarray:
    """The same with whole matrices and a loop over pictures."""
    norms = np.square(x).sum(1)
    distances = np.maximum(norms[:, None] + norms - 2 * x @ x.T, 0)
    distances /= distances.max(1, keepdims=True)
    order = np.argsort(distances, axis=1)

    def mutual(i: int, k: int) -> np.ndarray:
        ahead = order[i, : k + 1]
        return ahead[(order[ahead, : k + 1] == i).any(1)]

    weights = np.zeros_like(distances)
    for i, row in enumerate(distances):
        close = mutual(i, k1)
        members = [close]
        for candidate in close:
            theirs = mutual(candidate, round(k1 / 2))
            if 3 * len(np.intersect1d(theirs, close)) > 2 * len(theirs):
                members.append(theirs)
        joined = np.unique(np.concatenate(members))
        value = np.exp(-row[joined])
        weights[i, joined] = value / value.sum()
    weights = np.stack([weights[first].mean(0) for first in order[:, :k2]])
    having = [np.flatnonzero(column) for column in weights.T]
    jaccard = np.empty_like(distances[:queries])
    for i in range(queries):
        shared = np.zeros(len(x), dtype=x.dtype)
        for t in np.flatnonzero(weights[i]):
            shared[having[t]] += np.minimum(weights[i, t], weights[having[t], t])
        jaccard[i] = 1 - shared / (2 - shared)
    return ((1 - share) * jaccard + share * distances[:queries])[:, queries:]


def measure(way: str, size: tuple[int, int], file: str) -> None:
    """Runs one way, keeps its result in `file` and prints seconds and peak memory as JSON."""
    x = vectors(sum(size))
    start, used = time.perf_counter(), time.process_time()
    result = sparse(x, size[0]) if way == "core.rerank" else dense(x.numpy(), size[0])
    numbers = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - used,
        # Linux counts in KiB.
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    np.save(file, result)
    print(json.dumps(numbers))


def measured(way: str, size: tuple[int, int], file: Path, threads: int) -> dict[str, float]:
    """The numbers of one fresh process, shown as a row."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    arguments = [sys.executable, __file__, "--one", way, *map(str, size), str(file)]
    output = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, env=environment).stdout
    found = json.loads(output)
    sides = f"{size[0]} + {size[1]}"
    print(
        f"{way:12} {sides:>13} {found['seconds']:9.2f} {found['cpu']:9.2f} "
        f"{found['gigabytes']:6.2f}",
        flush=True,
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--market", action="store_true", help="the dense one at full size too")
    parser.add_argument("--one", nargs=4, metavar=("WAY", "QUERIES", "GALLERY", "FILE"))
    options = parser.parse_args()
    if options.one:
        way, queries, gallery, file = options.one
        measure(way, (int(queries), int(gallery)), file)
        return 0

    print(
        f"{platform.platform()}; {processor()}; torch {torch.__version__}; NumPy {np.__version__}"
    )
    threads = f"threads: {options.threads}"
    print(f"{threads:12} {'pictures':>13} {'seconds':>9} {'CPU':>9} {'GB':>6}")
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        for size in (FIFTH, MARKET):
            files = [Path(folder, f"{way}.npy") for way in ("sparse", "dense")]
            ours = measured("core.rerank", size, files[0], options.threads)
            if size == MARKET:
                missed |= ours["gigabytes"] >= MOST_GIGABYTES
            if size == MARKET and not options.market:
                continue
            other = measured("dense NumPy", size, files[1], options.threads)
            ratio = other["cpu"] / ours["cpu"]
            apart = np.abs(np.load(files[0]) - np.load(files[1]))
            print(f"{ratio:.1f} times less CPU; results differ by up to {apart.max():.1e}")
            missed |= bool(apart.max() > MOST_APART)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
