"""The seven rows of AIR-Net's ablation, its table 3, on a small network and a manifest's pictures.

    OMP_NUM_THREADS=1 uv run python benchmarks/airnet_rows.py ward.csv --out runs/rows

Every row is its packaged run file, `airnet:row1-baseline` to `airnet:row7-airnet`, with the same
changes: an IBN-ResNet-18 of half width from scratch, pictures of 128 x 64, Adam with a cosine
schedule, and a few epochs. Seeds are the outer loop. What --out holds already is not run again, so
that a killed benchmark goes on. Nothing is chosen on the test pictures: the scores are those after
the last epoch. Prints a table of mAP and rank-1 in percent, mean and deviation over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from reidcore.cli.main import main as reid
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import packaged_runs


def changes(manifest: str, seed: int, epochs: int) -> list[str]:
    """Return the settings that every row's run changes, as arguments."""
    source = f'{{ manifest = "{manifest}" }}'
    sets = [
        f"data.train={source}",
        f"data.test=[{source}]",
        "data.image=[128, 64]",
        "backbone.depth=18",
        "backbone.width=0.5",
        "backbone.weights=",
        "repeat={}",
        'optim={ kind = "adam", lr = 1e-3, weight_decay = 5e-4, cosine = {} }',
        f"train.epochs={epochs}",
        f"train.seed={seed}",
        "eval.every=1000",
    ]
    return [word for one in sets for word in ("--set", one)]


def scores_of(folder: Path) -> tuple[float, float] | None:
    """(mAP, rank-1) in percent of a finished run, None where there is none."""
    path = folder / "scores.json"
    if not path.is_file():
        return None
    (test,) = json.loads(path.read_text()).values()
    (ranking,) = test.values()
    return 100 * ranking["plain"]["mAP"], 100 * ranking["plain"]["rank-1"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", help="a manifest, looked up under REID_DATA")
    parser.add_argument("--out", type=Path, required=True, help="where the runs go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    names = [run.name for run in packaged_runs(Plugins(), "airnet") if run.name.startswith("row")]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for seed in range(options.seeds):
        for name in names:
            folder = options.out / name / str(seed)
            if scores_of(folder) is None:
                sets = changes(options.manifest, seed, options.epochs)
                resume = ["--resume"] if folder.exists() else []
                code = reid(["run", f"airnet:{name}", "--out", str(folder), *resume, *sets])
                if code:
                    return code
            scores = scores_of(folder)
            assert scores is not None
            found[name].append(scores)
    print("row | mAP | rank-1")
    for name, values in found.items():
        cells = [
            f"{statistics.mean(one):.1f} ± {statistics.stdev(one) if len(one) > 1 else 0:.1f}"
            for one in zip(*values, strict=True)
        ]
        print(" | ".join([name, *cells]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
