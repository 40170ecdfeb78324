"""Cost of trackers: one training without and with each tracker of reid-plugin-trackers, in turn.

    OMP_NUM_THREADS=1 uv run --all-groups python benchmarks/trackers.py [--rounds N] [--epochs N]

Every run trains the demo's network on a third of its pictures, evaluates after each epoch, and
keeps its record in a temporary folder, offline, with a picture of four ranked lists per evaluation.
The first round, which imports the libraries and makes their stores, is shown apart and not counted.
Wall seconds are what a user waits for; seconds of the process (its threads, not wandb's own
process) vary less where other programs share the machine.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from startup import processor

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
SMALLER = ("data.train.train_identities=20", "eval.every=1")


def one_run(name: str, folder: Path, epochs: int) -> tuple[float, float]:
    """Train once; return its wall seconds and those of the process."""
    from reidcore.tools import train

    sets = [f"train.epochs={epochs}", *SMALLER]
    if name:
        own = (f"mlflow_uri=sqlite:///{folder.parent}/mlflow.db", "wandb_mode=offline")
        sets += ['plugins=["trackers"]', f'trackers.use=["{name}"]']
        sets += [f"trackers.{item}" for item in own]
    wall, process = time.perf_counter(), time.process_time()
    train("demo", folder, sets, check=False)
    return time.perf_counter() - wall, time.process_time() - process


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["TRACKIO_DIR"] = f"{name}/trackio"
        os.chdir(name)
        numbers = itertools.count()
        found: dict[str, list[tuple[float, float]]] = {}
        for number in range(options.rounds + 1):
            for tracker in ("", *TRACKERS):
                folder = Path(name, f"run-{next(numbers)}")
                found.setdefault(tracker, []).append(one_run(tracker, folder, options.epochs))
            print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    import torch

    print(f"{processor()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"medians of {options.rounds} runs of {options.epochs} epochs, seconds")
    print(f"{'tracker':12} {'first':>7} {'wall':>7} {'cost':>7} {'process':>8} {'cost':>7}")
    medians = {key: _medians(runs[1:]) for key, runs in found.items()}
    base = medians[""]
    for key, (wall, process) in medians.items():
        more = f"{wall / base[0] - 1:7.1%} {process:8.2f} {process / base[1] - 1:7.1%}"
        print(f"{key or 'none':12} {found[key][0][0]:7.2f} {wall:7.2f} {more}")
    return 0


def _medians(runs: list[tuple[float, float]]) -> tuple[float, float]:
    walls, processes = zip(*runs, strict=True)
    return statistics.median(walls), statistics.median(processes)


if __name__ == "__main__":
    sys.exit(main())
