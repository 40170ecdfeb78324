"""Seconds and memory of vector rankings against the size of the gallery.

    uv run python benchmarks/scale.py [--threads 2] [--length 512]

1,000 random queries against 1,000 to 1,000,000 random gallery vectors: plain scores, and up to
100,000 also `core.rerank`. Then 10,000 queries against 100,000, plain. Every row is a new process;
memory is its peak above what it held before it ranked, templates not counted. The exit code is 1
where the last row takes 2 GiB or more with templates and all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time

import torch
from metrics import resident
from rerank import market_ranking, reranked
from startup import processor

from reidcore.evaluation.fast_metrics import count_queries
from reidcore.evaluation.metrics import summarize
from reidcore.evaluation.relevance import Relevance
from reidcore.ranking.blocks import rows_at_once

QUERIES = 1000
MANY = 10_000
GALLERIES = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
RERANKED = 100_000

PICTURES = 20
"""Gallery pictures of an identity."""

CAMERAS = 6
MOST_BYTES = 2 * 2**30


def measure(way: str, queries: int, gallery: int, length: int) -> None:
    """Rank once and print seconds and bytes as JSON."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(queries + gallery, length, generator=draw)
    sides = (queries, gallery)
    identity = torch.randint(max(1, gallery // PICTURES), (sum(sides),), generator=draw)
    camera = torch.randint(CAMERAS, (sum(sides),), generator=draw)
    parts = (part.split(sides) for part in (identity, torch.arange(sum(sides)), camera))
    query, other = zip(*parts, strict=True)
    ranking = market_ranking(x, queries)
    del x
    before = resident()
    start = time.perf_counter()
    relevance = Relevance(query, other, "drop")
    if way == "plain":
        step = rows_at_once(gallery, 0.5)
        blocks = [(first, min(first + step, queries)) for first in range(0, queries, step)]
        found = [
            count_queries(ranking.between("query", "gallery", *block), relevance.rows(*block))
            for block in blocks
        ]
    else:
        distances = reranked(ranking)
        found = [count_queries(distances, relevance.rows(0, queries))]
    assert summarize(found).valid
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    numbers = {"seconds": time.perf_counter() - start, "more": peak - before, "peak": peak}
    print(json.dumps(numbers))


def measured(way: str, queries: int, gallery: int, length: int, threads: int) -> dict[str, float]:
    """The numbers of one fresh process, shown as a row."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    command = [sys.executable, __file__, "--one", way, *map(str, (queries, gallery, length))]
    environment = os.environ | dict.fromkeys(names, str(threads))
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
    found = json.loads(output)
    print(
        f"| {way} | {queries:,} | {gallery:,} | {found['seconds']:.2f} | "
        f"{found['more'] / 2**20:,.0f} | {found['peak'] / 2**20:,.0f} |",
        flush=True,
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--one", nargs=4, metavar=("WAY", "QUERIES", "GALLERY", "LENGTH"))
    options = parser.parse_args()
    if options.one:
        way, *numbers = options.one
        measure(way, *map(int, numbers))
        return 0
    given = options.length, options.threads
    print(
        f"{platform.platform()}; {processor()}; torch {torch.__version__}; threads: "
        f"{options.threads}; vectors of length {options.length}\n\n"
        "| ranking | queries | gallery | seconds | MiB more | MiB at most |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for gallery in GALLERIES:
        measured("plain", QUERIES, gallery, *given)
    for gallery in GALLERIES:
        if gallery <= RERANKED:
            measured("core.rerank", QUERIES, gallery, *given)
    last = measured("plain", MANY, RERANKED, *given)
    return int(last["peak"] >= MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
