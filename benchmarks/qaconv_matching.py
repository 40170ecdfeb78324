"""Pairs per second of `qaconv.matcher` beside sgemm and beside einsum: medians of 9, interleaved.

    uv run python benchmarks/qaconv_matching.py [--threads 1]

Maps are those of 384 x 128 pixels: 24 x 8 locations, 128 channels, 9.44 MFLOP for a pair of
pictures. Distances are measured with everything that belongs to them. sgemm is the faster of two
products, by FLOP: 2048 x 2048 x 2048, and that of one tile as the matcher computes it. The other
formulation computes all responses of 64 x 64 pairs with einsum, then both maxima. The exit code is
1 where distances need more than 4/3 of sgemm's time, are less than 1.5 times as fast as einsum, or
differ from it. Last, logits and gradients of a batch of 32 matched with itself, as the losses of
pairs do, beside the same with a copy of the batch.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable

import torch
from interleaved import medians, products
from startup import processor
from torch import Tensor

from reid_qaconv.matching import CACHED, QAConv, build_matcher
from reid_qaconv.settings_matching import Matcher
from reidcore.api import Feature, Given
from reidcore.modules import Context

REPEATS = 9
SHAPE = (128, 24, 8)
BLOCK = 64
"""Pictures on each side of an einsum."""
GALLERY = 128
SGEMM = 2048
LEAST_OF_SGEMM = 0.75
LEAST_OF_EINSUM = 1.5
MOST_APART = 1e-5


def built() -> tuple[QAConv, int]:
    """The matcher with random weights, and the FLOP of a pair."""
    given = Given((384, 128), features={"x.map": Feature.map(*SHAPE)})
    config = Matcher(feature="x.map")
    torch.manual_seed(0)
    matcher = build_matcher(config, Context(given, "pairs")).eval()
    return matcher, config.describe(given).pair_flops


def pictures(count: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, *SHAPE), dim=1)


def by_einsum(matcher: QAConv, a: Tensor, b: Tensor) -> Tensor:
    """Distances from all responses of a block of pairs at once."""
    a, b = a.flatten(2), b.flatten(2)
    blocks = []
    for part in b.split(BLOCK):
        responses = torch.einsum("pci,gcj->pgji", a, part)
        best = torch.cat([responses.amax(3), responses.amax(2)], 2)
        scores = matcher.fc(matcher.bn(best.flatten(0, 1).unsqueeze(1)))
        logits = matcher.logit_bn(scores).view(len(a), len(part))
        blocks.append(1 - torch.sigmoid(logits / matcher.score_scale))
    return torch.cat(blocks, 1)


def by_pairs(matcher: QAConv, a: Tensor, b: Tensor) -> None:
    """Logits of all pairs, and their gradients."""
    matcher.logits({"map": a}, {"map": b}).sum().backward()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    print(f"{platform.platform()}; {processor()}; torch {torch.__version__}; threads: {threads}")

    matcher, pair = built()
    missed = distances(matcher, pair)
    batch, copy = (pictures(BLOCK // 2).requires_grad_() for _ in range(2))
    matcher.train()
    seconds = medians(
        {
            "itself": lambda: by_pairs(matcher, batch, batch),
            "a copy": lambda: by_pairs(matcher, batch, copy),
        },
        REPEATS,
    )
    share = seconds["itself"] / seconds["a copy"]
    print(
        f"logits and gradients of {BLOCK // 2} pictures with themselves: {seconds['itself']:.2f} s"
    )
    print(f"{share:.2f} of the time with a copy of them")
    return int(missed)


@torch.no_grad()
def distances(matcher: QAConv, pair: int) -> bool:
    """Print rates of distances, and return whether a target was missed."""
    a, b = pictures(BLOCK), pictures(GALLERY)
    pairs = BLOCK * GALLERY
    locations = SHAPE[1] * SHAPE[2]
    wide = max(1, CACHED // locations**2)
    square, tile = f"sgemm {SGEMM}^3", f"sgemm {wide * locations} x {locations} x {SHAPE[0]}"
    tiles = 1024
    work = {
        square: 2 * SGEMM**3,
        tile: tiles * wide * pair,
        "einsum, 64 x 64 pairs": pairs * pair,
        "qaconv.matcher": pairs * pair,
    }
    ways: list[Callable[[], object]] = [
        products((SGEMM,) * 3),
        products((wide * locations, locations, SHAPE[0]), tiles),
        lambda: by_einsum(matcher, a, b),
        lambda: matcher.distance({"map": a}, {"map": b}),
    ]
    seconds = medians(dict(zip(work, ways, strict=True)), REPEATS)
    rates = {name: work[name] / seconds[name] for name in work}
    for name, rate in rates.items():
        print(f"{name:26} {rate / 1e9:8.1f} GFLOP/s {rate / pair:9,.0f} pairs/s")

    ours = rates["qaconv.matcher"]
    of_sgemm = ours / max(rates[square], rates[tile])
    of_einsum = ours / rates["einsum, 64 x 64 pairs"]
    apart = (matcher.distance({"map": a}, {"map": b}) - by_einsum(matcher, a, b)).abs().max()
    print(f"{of_sgemm:.0%} of sgemm (target: at least {LEAST_OF_SGEMM:.0%})")
    print(f"{of_einsum:.2f} times as fast as einsum (target: at least {LEAST_OF_EINSUM})")
    print(f"distances differ from einsum's by up to {apart:.1e}")
    return of_sgemm < LEAST_OF_SGEMM or of_einsum < LEAST_OF_EINSUM or bool(apart > MOST_APART)


if __name__ == "__main__":
    sys.exit(main())
