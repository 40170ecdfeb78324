"""What TLift gains: by the share of pairs that is taken to match, and with fewer people.

    uv run python benchmarks/tlift_gain.py lifted market_dev.csv --priors 0.5 0.1 0.01 0.001 0.0001
    uv run python benchmarks/tlift_gain.py lifted market.csv --identities 200 100 50 25

The first is a run folder with vectors to rank by cosines, such as that of `qaconv:market-lifted`,
the second a manifest with cameras and times, looked up under REID_DATA. Scales are fitted on the
run's own training pairs. Of fewer identities, each drawn --draws times, means are printed. Nothing
is trained. Scores are mAP / rank-1 in percent.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from pathlib import Path

from reidcore.data.manifest import find_data, read_manifest, write_manifest
from reidcore.evaluation.open_evaluation import open_evaluation
from reidcore.support.progress import Silent

STAGES = ("plain", "lifted", "reranked", "reranked and lifted")


def evaluation_file(folder: Path, manifests: list[Path], matcher: str, prior: float) -> Path:
    """Write the file of an evaluation that ranks every test set with and without TLift."""
    tests = ", ".join(f'{{ name = "{one.stem}", manifest = "{one}" }}' for one in manifests)
    path = folder / "evaluation.toml"
    path.write_text(
        f"""\
format = 1
[data]
test = [{tests}]
[[post]]
name = "rerank"
use = "core.rerank"
[[post]]
name = "tlift"
use = "qaconv.tlift"
prior = {prior}
[[ranking]]
name = "lifted"
matcher = "{matcher}"
scale = "logistic"
post = ["tlift"]
[[ranking]]
name = "reranked"
matcher = "{matcher}"
post = ["rerank", "tlift"]
""",
        encoding="utf-8",
    )
    return path


def scores(run: Path, file: Path) -> dict[str, list[tuple[float, float]]]:
    """{test set: (mAP, rank-1) of every stage, in percent}."""
    evaluation = open_evaluation(run, file)
    found = evaluation.scores(evaluation.load_model(), Silent())
    tables = {}
    for name, rankings in found.items():
        lifted, reranked = rankings["lifted"], rankings["reranked"]
        stages = (
            lifted["plain"],
            lifted["tlift"],
            reranked["rerank"],
            reranked["rerank+tlift"],
        )
        tables[name] = [(100 * one["mAP"], 100 * one["rank-1"]) for one in stages]
    return tables


def thinned(manifest: Path, folder: Path, count: int, seed: int) -> Path:
    """Write a manifest of the test pictures of some identities, drawn by the seed."""
    rows = [row for row in read_manifest(manifest) if row.split in ("query", "gallery")]
    known = sorted({row.pid for row in rows})
    chosen = set(random.Random(seed).sample(known, min(count, len(known))))
    path = folder / f"of{count}-{seed}.csv"
    write_manifest(path, [row for row in rows if row.pid in chosen])
    return path


def line(first: object, found: list[list[tuple[float, float]]]) -> str:
    """A line of the table, means over draws."""
    cells = [
        f"{statistics.fmean(one[0] for one in stage):.1f} / "
        f"{statistics.fmean(one[1] for one in stage):.1f}"
        for stage in zip(*found, strict=True)
    ]
    return f"| {first} | {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("manifest")
    parser.add_argument("--matcher", default="look")
    parser.add_argument("--priors", type=float, nargs="+", default=[0.01])
    parser.add_argument("--identities", type=int, nargs="+", default=[])
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    manifest = find_data(options.manifest)
    print(f"| {'identities' if options.identities else 'prior'} | {' | '.join(STAGES)} |")
    print(f"| {' | '.join(['---'] * 5)} |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for prior in options.priors:
            sets: dict[object, list[Path]] = {prior: [manifest]}
            if options.identities:
                sets = {
                    count: [thinned(manifest, folder, count, seed) for seed in range(options.draws)]
                    for count in options.identities
                }
            every = [path for paths in sets.values() for path in paths]
            file = evaluation_file(folder, every, options.matcher, prior)
            found = scores(options.run, file)
            for first, paths in sets.items():
                print(line(first, [found[path.stem] for path in paths]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
