"""Pictures per second of training in one process and in several that share it.

    uv run python benchmarks/processes.py [--counts 1 2] [--threads N] [--run FILE] [--set K=V]

Trains the run file, by default the demo's network on 192 x 96 pixels in batches of 64, for some
epochs with every number of processes in turn, each with an equal part of the threads, and prints
the median of all turns over the median of their epochs, the first one left out. It ends with exit
code 1 if the losses of the first epoch are not alike.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from startup import processor

LARGER = ("data.image=[192, 96]", "data.batch.ids=16", "data.batch.per_id=4")
APART = 0.05
"""Largest difference of losses in the first epoch: rounding, as training amplifies it."""


def trained(count: int, options: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """The rows of means.csv of a run in `count` processes."""
    out = folder / str(len(list(folder.iterdir())))
    sets = [*options.sets, "data.test=[]", "eval.every=0", f"train.epochs={options.epochs + 1}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count)]
    command += ["-m", "reidcore", "run", options.run, "--no-dry", "--out", str(out)]
    for change in sets:
        command += ["--set", change]
    threads = {"OMP_NUM_THREADS": str(max(1, options.threads // count))}
    done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    with open(out / "means.csv", encoding="utf-8") as file:
        return [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", default="demo", help="a run file, or the name of a packaged one")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2], help="processes")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of all together")
    parser.add_argument("--epochs", type=int, default=3, help="counted epochs")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--set", dest="sets", action="append", default=None)
    options = parser.parse_args()
    if options.sets is None:
        options.sets = list(LARGER) if options.run == "demo" else []
    print(f"{platform.platform()}; {processor()}; torch {torch.__version__}")
    rates: dict[int, list[float]] = {count: [] for count in options.counts}
    losses: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.turns):
            for count in options.counts:
                rows = trained(count, options, Path(folder))
                rates[count].append(
                    statistics.median(row["pictures_per_second"] for row in rows[1:])
                )
                losses[count] = rows[0]["loss"]
    first = statistics.median(rates[options.counts[0]])
    print(f"{options.run}, {', '.join(options.sets)}; {options.threads} threads in all")
    for count, found in rates.items():
        rate = statistics.median(found)
        print(
            f"{count} processes {rate:8.1f} pictures/s ({min(found):.1f} to {max(found):.1f}), "
            f"{rate / first:.2f} times; loss of the first epoch {losses[count]:.4f}"
        )
    low, high = min(losses.values()), max(losses.values())
    return int(high - low > APART * abs(low))


if __name__ == "__main__":
    sys.exit(main())
