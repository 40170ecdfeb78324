"""reid-runtime beside the torch path: start-up and pictures per second, in interleaved processes.

    uv venv lean && uv pip install --python lean/bin/python ./plugins/runtime
    python benchmarks/runtime.py RUN_DIR EXPORT_DIR PICTURES --python lean/bin/python

RUN_DIR was exported to EXPORT_DIR; PICTURES is a folder of files. Medians of 5 processes, in turns,
the network on one thread: the seconds from the start of Python to the first picture's template, by
the clock and of the process, and the pictures per second of the process for all of them after that,
from files to templates.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from startup import processor

REPEATS = 5

COMMON = """
import json, pathlib, sys, time
paths = sorted(map(str, pathlib.Path(sys.argv[2]).rglob("*.jpg")))
{imports}
make({paths}[:1])
first = time.time() - {start}, time.process_time()
before = time.process_time()
make({paths})
seconds = time.process_time() - before
print(json.dumps([*first, len(paths) / seconds, "torch" in sys.modules]))
"""

PATHS = {
    "reid-runtime": """
from reid_runtime import Embedder
make = Embedder(sys.argv[1], threads=1).templates
""",
    "torch": """
import torch
torch.set_num_threads(1)
import reidcore
make = reidcore.load(sys.argv[1], device="cpu").templates
""",
}


def measured(python: str, name: str, source: Path, pictures: Path) -> list[float]:
    """Return what one process of a path prints."""
    import time

    script = COMMON.format(imports=PATHS[name], paths="paths", start=time.time())
    done = subprocess.run(
        [python, "-c", script, str(source), str(pictures)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("export", type=Path, metavar="EXPORT_DIR")
    parser.add_argument("pictures", type=Path, metavar="PICTURES")
    parser.add_argument(
        "--python", default=sys.executable, help="of the environment of the runtime"
    )
    options = parser.parse_args()
    print(processor())
    ways = {
        "reid-runtime": (options.python, options.export),
        "torch": (sys.executable, options.run),
    }
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, (python, source) in ways.items():
            found[name].append(measured(python, name, source, options.pictures))
    print("path          start s  of the process  pictures/s  imports torch")
    for name, each in found.items():
        clock, cpu, rate, _ = (statistics.median(values) for values in zip(*each, strict=True))
        print(f"{name:12}  {clock:7.2f}  {cpu:14.2f}  {rate:10.0f}  {bool(each[0][3])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
