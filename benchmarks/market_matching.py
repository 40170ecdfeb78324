"""QAConv at the size of Market-1501: a twentieth of the queries, killed once, and a shortlist.

    uv run python benchmarks/market_matching.py [--threads 2]

3,368 queries and 15,913 gallery pictures have random maps of 128 channels and 24 x 8 locations,
which are 1.8 GiB. The first 168 queries are scored against the whole gallery, as `reid eval` does,
in a process that is killed halfway and started again; the time of all queries is extrapolated from
the pairs per second of the second one. Then every query's 200 nearest pictures by the cosine of
pooled maps are scored, in full. Peak memory is that of the process, maps included. The exit code is
1 where what was resumed differs from distances that were computed at once.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from qaconv_matching import SHAPE, built
from startup import processor

from reid_qaconv.settings_matching import Matcher as Settings
from reidcore.api import Feature, Given, Matching
from reidcore.builtin import settings
from reidcore.builtin.matchers import build_cosine
from reidcore.modules import Context, Matcher, Meta, Template
from reidcore.ranking.fusion import Fusion, Share, Shortlisting
from reidcore.ranking.kept_blocks import KeptBlocks, block_rows
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.resources import Resources
from reidcore.ranking.sides import Sides
from reidcore.support.progress import Silent, duration

QUERIES = 3368
GALLERY = 15913
PART = QUERIES // 20
TOP = 200


def maps(count: int, seed: int) -> torch.Tensor:
    """[count, *SHAPE] with a random unit vector at every location."""
    draw = torch.Generator().manual_seed(seed)
    found = torch.empty(count, *SHAPE)
    for part in found.split(512):
        part.normal_(generator=draw)
        part /= part.norm(dim=1, keepdim=True)
    return found


def meta(count: int) -> Meta:
    zeros = torch.zeros(count, dtype=torch.int64)
    return Meta(zeros, torch.zeros(count, dtype=torch.float64), zeros)


def pairwise() -> tuple[Matcher, Matching]:
    matcher, _ = built()
    given = Given((384, 128), features={"x.map": Feature.map(*SHAPE)})
    return matcher, Settings(feature="x.map").describe(given)


def vectors() -> tuple[Matcher, Matching]:
    given = Given((384, 128), features={"x.vector": Feature.vector(SHAPE[0])})
    config = settings.Cosine(features=["x.vector"])
    return build_cosine(config, Context(given, "look")), config.describe(given)


def sides() -> dict[str, dict[str, Template]]:
    """Templates of both matchers."""
    cosine, _ = vectors()
    found = {}
    for seed, (side, count) in enumerate((("query", QUERIES), ("gallery", GALLERY))):
        whole = maps(count, seed)
        pooled = cosine.template({"x.vector": whole.mean((2, 3))})
        found[side] = {"pairs": {"map": whole}, "look": pooled}
    return found


def report(**numbers: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**numbers, "peak": peak}))


def score_part(folder: Path) -> None:
    """The first queries, with finished blocks in `folder`."""
    given = Fusion([Share("pairs", *pairwise())]), Sides(meta(QUERIES), meta(GALLERY), sides())
    kept = KeptBlocks(folder, lambda: "market", Silent()).of_set("market1501")
    before = len(list(folder.rglob("*.safetensors")))
    start = time.perf_counter()
    distances = MatcherRanking(*given, Resources(kept=kept)).between("query", "gallery", 0, PART)
    seconds = time.perf_counter() - start
    whole = MatcherRanking(*given)
    rows = (1, PART // 2, PART - 1)
    apart = max(
        float((whole.between("query", "gallery", row, row + 1)[0] - distances[row]).abs().max())
        for row in rows
    )
    report(seconds=seconds, before=before, apart=apart)


def score_shortlist() -> None:
    """Every query's shortlist."""
    shortlist = Shortlisting(Share("look", *vectors()), TOP, unit=True)
    shares = [Share("pairs", *pairwise())]
    pictures = Sides(meta(QUERIES), meta(GALLERY), sides())
    context = MatcherRanking(Fusion(shares, shortlist=shortlist), pictures)
    start = time.perf_counter()
    context.between("query", "gallery", 0, QUERIES)
    report(seconds=time.perf_counter() - start)


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], *words], stdout=subprocess.PIPE, text=True
    )


def answered(process: subprocess.Popen[str]) -> dict[str, float]:
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{process.args} ended with {process.returncode}")
    return json.loads(printed)


def kill_halfway(folder: Path) -> int:
    """Starts to score the part and kills it; returns the number of blocks that it leaves."""
    matching = pairwise()[1]
    step = block_rows(matching, GALLERY)
    process = started("--part", str(folder))
    while process.poll() is None:
        if len(list(folder.rglob("*.safetensors"))) * step >= PART / 2:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.1)
    return len(list(folder.rglob("*.safetensors")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shortlist", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.no_grad():
        if options.part is not None:
            score_part(options.part)
            return 0
        if options.shortlist:
            score_shortlist()
            return 0
    print(
        f"{platform.platform()}; {processor()}; torch {torch.__version__}; "
        f"threads: {options.threads}"
    )
    step = block_rows(pairwise()[1], GALLERY)
    with tempfile.TemporaryDirectory() as name:
        left = kill_halfway(Path(name))
        print(f"killed with {left} blocks of {step} queries; {PART} queries are asked for")
        found = answered(started("--part", name))
    pairs = (PART - left * step) * GALLERY
    rate = pairs / found["seconds"]
    print(
        f"resumed: {pairs:,} pairs in {found['seconds']:.0f} s, {rate:,.0f} pairs/s; all "
        f"{QUERIES * GALLERY:,} would take {duration(QUERIES * GALLERY / rate)}; peak memory "
        f"{found['peak'] / 2**30:.2f} GiB; {found['apart']:.1e} from distances at once"
    )
    short = answered(started("--shortlist"))
    print(
        f"shortlist: {QUERIES} x {TOP} pairs in {duration(short['seconds'])}, "
        f"{QUERIES * TOP / short['seconds']:,.0f} pairs/s; peak memory "
        f"{short['peak'] / 2**30:.2f} GiB"
    )
    return int(found["apart"] > 1e-6 or found["before"] != left)


if __name__ == "__main__":
    sys.exit(main())
