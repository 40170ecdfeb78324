"""Distances per second of `ipad.mutual` beside sgemm and einsum: medians of 9, interleaved.

    uv run python benchmarks/ipad_mutual.py

1,000 queries and 4,000 gallery pictures with kernels of 128 x 128, on one thread. Seconds are of
the process, so that other jobs on the machine hardly count. sgemm is the faster of two products, by
FLOP: 2048 x 2048 x 2048, and that of one tile and filter as the matcher computes it. The other
formulation computes both products of blocks of pairs with einsum, which takes C times the memory of
a tile. Of kernels and vectors stored in 16 bits the relative errors of the distances are told. The
exit code is 1 where distances run at less than 65 % of sgemm's rate, differ from einsum's, or take
more memory than the result and a tile's difference.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable

import torch
from interleaved import medians, products
from startup import processor
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from reid_ipad import mutual
from reid_ipad.mutual import Mutual, build_mutual
from reid_ipad.settings_matchers import Mutual as Settings
from reidcore.api import Feature, Given
from reidcore.modules import Context, Template

REPEATS = 9
CHANNELS = 128
QUERIES = 1000
GALLERY = 4000
BLOCK = (64, 256)
"""Queries and gallery pictures of an einsum."""
SGEMM = 2048
LEAST_OF_SGEMM = 0.65
MOST_APART = 1e-5


def built(store: str = "float32", fused: str = "auto") -> tuple[Mutual, int]:
    """The matcher as a test uses it, and the FLOP of a pair."""
    features = {
        "x.vector": Feature.vector(CHANNELS),
        "x.kernel": Feature.tensor(CHANNELS, CHANNELS),
    }
    given = Given((256, 128), features=features)
    config = Settings(feature="x.vector", kernel="x.kernel", store=store, fused=fused)
    matcher = build_mutual(config, Context(given, "mutual")).eval()
    return matcher, config.describe(given).pair_flops


def pictures(count: int, seed: int) -> Template:
    """Random kernels of Frobenius length 1 and vectors, as the head gives them."""
    draw = torch.Generator().manual_seed(seed)
    kernels = torch.rand(count, CHANNELS, CHANNELS, generator=draw)
    kernels /= kernels.flatten(1).norm(dim=1)[:, None, None]
    return {"kernel": kernels, "vector": torch.rand(count, CHANNELS, generator=draw)}


def by_einsum(a: Template, b: Template) -> Tensor:
    """Both products of a block of pairs at once, then the length of their difference."""
    rows = []
    for i in range(0, len(a["vector"]), BLOCK[0]):
        kernels, vectors = (a[key][i : i + BLOCK[0]] for key in ("kernel", "vector"))
        row = []
        for j in range(0, len(b["vector"]), BLOCK[1]):
            others, more = (b[key][j : j + BLOCK[1]] for key in ("kernel", "vector"))
            x = torch.einsum("aoc,bc->abo", kernels, more)
            y = torch.einsum("boc,ac->abo", others, vectors)
            row.append((x - y).norm(dim=2))
        rows.append(torch.cat(row, 1))
    return torch.cat(rows)


def stored_errors(store: str, a: Template, b: Template, exact: Tensor) -> tuple[float, float]:
    """Median and largest relative error of distances of what is stored in this type."""
    matcher, _ = built(store)
    found = matcher.distance(matcher.merge([a]), matcher.merge([b]))
    errors = ((found - exact) / exact).abs()
    return errors.median().item(), errors.max().item()


def taken(way: Callable[[], object]) -> int:
    """Bytes that torch allocates on the CPU at most during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        way()
    now = most = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@torch.no_grad()
def main() -> int:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    torch.set_num_threads(1)
    print(f"{platform.platform()}; {processor()}; torch {torch.__version__}; threads: 1")

    matcher, pair = built()
    half, _ = built("float16")
    a, b = pictures(QUERIES, 0), pictures(GALLERY, 1)
    kept = half.merge([a]), half.merge([b])
    part = {key: value[: BLOCK[0]] for key, value in a.items()}
    pairs, height, width = QUERIES * GALLERY, *mutual.CACHED
    repeats = 512
    square, tile = f"sgemm {SGEMM}^3", f"sgemm {height} x {width} x {CHANNELS}"
    work = {
        square: 2 * SGEMM**3,
        tile: 2 * repeats * height * width * CHANNELS,
        "einsum": BLOCK[0] * GALLERY * pair,
        "ipad.mutual": pairs * pair,
        "ipad.mutual, float16": pairs * pair,
    }
    ways: list[Callable[[], object]] = [
        products((SGEMM,) * 3, 1),
        products((height, width, CHANNELS), repeats),
        lambda: by_einsum(part, b),
        lambda: matcher.distance(a, b),
        lambda: half.distance(*kept),
    ]
    seconds = medians(dict(zip(work, ways, strict=True)), REPEATS, time.process_time)
    rates = {name: work[name] / seconds[name] for name in work}
    for name, rate in rates.items():
        print(f"{name:24} {rate / 1e9:8.1f} GFLOP/s {rate / pair:11,.0f} pairs/s")

    of_sgemm = rates["ipad.mutual"] / max(rates[square], rates[tile])
    apart = (matcher.distance(part, b) - by_einsum(part, b)).abs().max()
    memory = taken(lambda: matcher.distance(a, b))
    result, computed = 4 * pairs, 2 * 4 * height * width
    # Vectors are copied, and views of them have a few bytes.
    most = result + computed + 2 * 4 * (QUERIES + GALLERY) * CHANNELS
    print(f"{of_sgemm:.0%} of sgemm (target: at least {LEAST_OF_SGEMM:.0%})")
    print(f"{rates['ipad.mutual'] / rates['einsum']:.2f} times as fast as einsum")
    print(f"distances differ from einsum's by up to {apart:.1e}")
    exact = matcher.distance(a, b)
    for store in ("float16", "bfloat16"):
        median, largest = stored_errors(store, a, b, exact)
        print(f"stored in {store}, relative error: median {median:.1e}, largest {largest:.1e}")
    print(
        f"a tile takes {computed / 2**20:.1f} MiB, half of it in the result; with the result of "
        f"{result / 2**20:.1f} MiB {memory / 2**20:.1f} MiB were taken"
    )
    return int(of_sgemm < LEAST_OF_SGEMM or apart > MOST_APART or memory > most)


if __name__ == "__main__":
    sys.exit(main())
