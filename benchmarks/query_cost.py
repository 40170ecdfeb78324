"""Seconds that a thousand queries take of a run's first test set: templates, and every ranking.

    OMP_NUM_THREADS=1 python benchmarks/query_cost.py RUN_DIR [--repeats 3]

Templates are from files; a ranking takes the query's distances to the whole gallery, with what it
does afterwards, and the nearest ten. Seconds of the processor, medians in turns, so that other
programs on the machine count little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from startup import processor

from reidcore.tools import load, open_evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    search = load(options.run, device="cpu")
    name, rows = next(iter(open_evaluation(options.run).test_sets.items()))
    sides = {split: [row for row in rows if row.split == split] for split in ("query", "gallery")}
    queries, gallery = (search.templates(side) for side in sides.values())
    works: dict[str, Callable[[], object]] = {
        "templates of queries": lambda: search.templates(sides["query"]),
        **{
            f"ranking {one}": lambda one=one: search.rank(queries, gallery, ranking=one)
            for one in search.rankings
        },
    }
    print(f"{processor()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{name}: {len(queries)} queries, {len(gallery)} gallery pictures")
    spent: dict[str, list[float]] = {one: [] for one in works}
    for _ in range(options.repeats):
        for one, work in works.items():
            started = time.process_time()
            work()
            spent[one].append(time.process_time() - started)
    for one, found in spent.items():
        print(f"{one:<24}{1000 * statistics.median(found) / len(queries):8.1f} s for 1,000 queries")


if __name__ == "__main__":
    main()
