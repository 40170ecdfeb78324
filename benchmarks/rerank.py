"""Seconds and memory of `core.rerank` beside a dense formulation in NumPy.

    uv run python benchmarks/rerank.py [--threads 2] [--fifth | --msmt17]

Pictures are clustered random vectors of length 512 with squared Euclidean distances, which both
sides compute themselves. Every measurement is a fresh process. Sizes are those of Market-1501's
test set, where the dense formulation takes 10 GB for its N x N arrays, or a fifth of it. Then one
query is re-ranked against the same gallery, and once more, with what is known of the gallery. With
--msmt17 `core.rerank` alone re-ranks a test set of MSMT17's size. The exit code is 1 where results
differ, or at full size where `core.rerank` is less than 10 times as fast or takes 1.5 GB or more (6
GB at MSMT17's).
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
from typing import Any

import numpy as np
import torch
from startup import processor

from reidcore.api import Feature, Given
from reidcore.builtin import settings
from reidcore.builtin.matchers import build_euclidean
from reidcore.builtin.reranking import build_rerank
from reidcore.modules import Context, Meta
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.sides import Sides

LENGTH = 512
FIFTH, MARKET, MSMT17 = (674, 3183), (3368, 15913), (11659, 82161)
"""Queries and gallery."""
MOST_GIGABYTES = {MARKET: 1.5, MSMT17: 6.0}
LEAST_RATIO = 10.0
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


def market_ranking(
    x: torch.Tensor, queries: int, memo: dict[str, Any] | None = None
) -> MatcherRanking:
    """Of vectors, the queries' first, by `core.euclidean`, squared."""
    given = Given((1, 1), features={"x.x": Feature.vector(x.shape[1])})
    config = settings.Euclidean(features=["x.x"], squared=True)
    matcher = build_euclidean(config, Context(given, "look"))
    sides = {"query": x[:queries], "gallery": x[queries:]}
    known = (Meta(*torch.zeros(3, len(rows), device=x.device)) for rows in sides.values())
    templates = {side: {"look": {"vector": rows}} for side, rows in sides.items()}
    fusion = Fusion([Share("look", matcher, config.describe(given))])
    return MatcherRanking(fusion, Sides(*known, templates), memo=memo)


def reranked(ranking: MatcherRanking) -> torch.Tensor:
    """By `core.rerank`."""
    post = build_rerank(settings.Rerank(), Context(Given((1, 1)), "rerank"))
    return post(ranking.whole(), ranking)


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
    result = (
        reranked(market_ranking(x, size[0])).numpy()
        if way == "core.rerank"
        else dense(x.numpy(), size[0])
    )
    numbers = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - used,
        # Linux counts in KiB.
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    np.save(file, result)
    print(json.dumps(numbers))


def search(size: tuple[int, int]) -> tuple[float, float]:
    """Seconds of the first query, and the median of the next ones."""
    x = vectors(sum(size))
    memo: dict[str, Any] = {}
    seconds = []
    for number in range(6):
        one = torch.cat([x[number : number + 1], x[size[0] :]])
        start = time.perf_counter()
        reranked(market_ranking(one, 1, memo))
        seconds.append(time.perf_counter() - start)
    return seconds[0], float(np.median(seconds[1:]))


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
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fifth", action="store_true", help="at a fifth of the size")
    parser.add_argument("--msmt17", action="store_true", help="core.rerank alone, at MSMT17's size")
    parser.add_argument("--one", nargs=4, metavar=("WAY", "QUERIES", "GALLERY", "FILE"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        way, queries, gallery, file = options.one
        measure(way, (int(queries), int(gallery)), file)
        return 0

    print(
        f"{platform.platform()}; {processor()}; torch {torch.__version__}; NumPy {np.__version__}"
    )
    threads = f"threads: {options.threads}"
    print(f"{threads:12} {'pictures':>13} {'seconds':>9} {'CPU':>9} {'GB':>6}")
    size = MSMT17 if options.msmt17 else FIFTH if options.fifth else MARKET
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{way}.npy") for way in ("sparse", "dense")]
        ours = measured("core.rerank", size, files[0], options.threads)
        missed = ours["gigabytes"] >= MOST_GIGABYTES.get(size, np.inf)
        if size == MSMT17:
            return int(missed)
        other = measured("dense NumPy", size, files[1], options.threads)
        ratio = other["seconds"] / ours["seconds"]
        apart = np.abs(np.load(files[0]) - np.load(files[1])).max()
    print(f"{ratio:.1f} times as fast; results differ by up to {apart:.1e}")
    first, next_ones = search(size)
    print(f"one query: {first:.2f} s, and the next ones {next_ones:.2f} s each")
    return int(missed or apart > MOST_APART or (size == MARKET and ratio < LEAST_RATIO))


if __name__ == "__main__":
    sys.exit(main())
