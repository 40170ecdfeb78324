"""Start-up times of the commands that import no torch: medians of 9, interleaved.

    uv run python benchmarks/startup.py

The baseline is Python with attrs and pluggy, which every plugin needs. The targets are those of the
project: `reid --help` and `reid plugins` at most 0.25 s above it, a check of a correct file under
1 s. The exit code is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 9

COMMANDS = {
    "baseline": ["-c", "import attrs, pluggy"],
    "reid --help": ["-m", "reidcore", "--help"],
    "reid plugins": ["-m", "reidcore", "plugins"],
    "reid check --no-dry demo": ["-m", "reidcore", "check", "--no-dry", "demo"],
}
MOST_ABOVE = {"reid --help": 0.25, "reid plugins": 0.25}
"""Seconds above the baseline."""

MOST = {"reid check --no-dry demo": 1.0}
"""Seconds in all."""


def processor() -> str:
    """Return the CPU's model name and number, as far as the system says."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} CPUs" if names else platform.processor() or "unknown CPU"


def seconds(arguments: list[str]) -> float:
    """Return the wall time of one fresh process, which must succeed."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure() -> dict[str, float]:
    """Return median seconds of every command, after one round that is not counted."""
    rounds = [
        {name: seconds(arguments) for name, arguments in COMMANDS.items()}
        for _ in range(REPEATS + 1)
    ]
    return {name: statistics.median(one[name] for one in rounds[1:]) for name in COMMANDS}


def main() -> int:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    print(f"{platform.platform()}; {processor()}; Python {platform.python_version()}")
    medians = measure()
    print(f"{'medians of ' + str(REPEATS):26} {'seconds':>8} {'above':>8}  target")
    missed = 0
    for name, median in medians.items():
        above = median - medians["baseline"]
        target = ""
        if name in MOST_ABOVE:
            missed += above > MOST_ABOVE[name]
            target = f"at most {MOST_ABOVE[name]} above"
        elif name in MOST:
            missed += median > MOST[name]
            target = f"under {MOST[name]}"
        print(f"{name:26} {median:8.3f} {above:8.3f}  {target}".rstrip())
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
