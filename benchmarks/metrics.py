"""Seconds and memory of the scores of a Market-1501-sized test set, beside `numpy.argsort`.

    uv run python benchmarks/metrics.py [--threads 2]

3,368 queries and 15,913 gallery pictures of 750 identities from six cameras, 2,798 of the gallery
nobody's, as random vectors around their identities' centres with a mean average precision between
0.2 and 0.4. Nine times in turn, mean average precision, CMC and mINP are counted from a float32
matrix of distances, and `numpy.argsort` puts the same rows in order, with which other evaluators
begin. Then the scores are counted from the vectors, with no whole matrix. The exit code is 1 where
the median exceeds 0.45 s or a quarter of `numpy.argsort`'s, or where the scores from vectors take
600 MB or more besides what was there before.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from rerank import market_ranking
from startup import processor

from reidcore.evaluation.fast_metrics import count_queries
from reidcore.evaluation.metrics import PerQuery, Scores, summarize
from reidcore.evaluation.relevance import Relevance
from reidcore.ranking.blocks import rows_at_once
from reidcore.ranking.matcher_ranking import MatcherRanking

QUERIES = 3368
GALLERY = 15913
DISTRACTORS = 2798
IDENTITIES = 750
CAMERAS = 6
LENGTH = 512

NOISE = 2.85
"""Factor on the noise around centres, with which mean average precision is about 0.3."""

REPEATS = 9
MOST_SECONDS = 0.45
LEAST_RATIO = 4.0
MOST_BYTES = 600e6


def labels(draw: torch.Generator) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return (identity, file, camera) of queries and of gallery."""
    sizes = QUERIES, GALLERY
    identity = [torch.randint(IDENTITIES, (size,), generator=draw) for size in sizes]
    identity[1][-DISTRACTORS:] = IDENTITIES + torch.arange(DISTRACTORS)
    file = torch.arange(sum(sizes)).split(sizes)
    camera = [torch.randint(CAMERAS, (size,), generator=draw) for size in sizes]
    return tuple(zip(identity, file, camera, strict=True))


def vectors(identity: torch.Tensor, centres: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    noise = torch.randn(len(identity), LENGTH, generator=draw)
    return torch.nn.functional.normalize(centres[identity] + NOISE * noise)


def counted(distances: torch.Tensor, relevance: Relevance) -> Scores:
    """Return the scores of a matrix of distances; the relevance of pairs is counted too."""
    judged = relevance.rows(0, len(distances)).to(distances.device)
    return summarize([count_queries(distances, judged)])


def from_vectors(ranking: MatcherRanking, relevance: Relevance) -> Scores:
    """Return the scores block by block, as an evaluation does without postprocessors."""
    parts: list[PerQuery] = []
    queries = len(ranking.query)
    step = rows_at_once(len(ranking.gallery), 0.5, ranking.query.camera.device)
    for start in range(0, queries, step):
        stop = min(start + step, queries)
        block = ranking.between("query", "gallery", start, stop)
        parts.append(count_queries(block, relevance.rows(start, stop).to(block.device)))
    return summarize(parts)


def resident() -> int:
    """Return the bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draw = torch.Generator().manual_seed(0)
    query, gallery = labels(draw)
    centres = torch.randn(IDENTITIES + DISTRACTORS, LENGTH, generator=draw)
    x = torch.cat([vectors(side[0], centres, draw) for side in (query, gallery)])
    ranking = market_ranking(x, QUERIES)
    relevance = Relevance(query, gallery, "drop")

    before = resident()
    start = time.perf_counter()
    streamed = from_vectors(ranking, relevance)
    seconds = time.perf_counter() - start
    # Linux counts in KiB. The peak of the time before counts too, so this is no less than it was.
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before

    distances = ranking.between("query", "gallery", 0, QUERIES)
    ours, others = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        scores = counted(distances, Relevance(query, gallery, "drop"))
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        np.argsort(distances.numpy(), axis=1)
        others.append(time.perf_counter() - start)
    median, other = np.median(ours), np.median(others)
    print(
        f"{platform.platform()}; {processor()}; torch {torch.__version__}, NumPy {np.__version__}; "
        f"threads: {options.threads}\n"
        f"mAP {scores.map:.4f}, rank-1 {scores.cmc[0]:.4f}; from vectors {streamed.map:.4f}, "
        f"{streamed.cmc[0]:.4f}\n"
        f"scores of a matrix     {median:.3f} s\n"
        f"numpy.argsort          {other:.3f} s, {other / median:.1f} times as long\n"
        f"scores of the vectors  {seconds:.3f} s with their distances, {more / 1e6:.0f} MB more"
    )
    assert 0.2 < scores.map < 0.4, "the data are not as described"
    return int(median > MOST_SECONDS or other < LEAST_RATIO * median or more >= MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
