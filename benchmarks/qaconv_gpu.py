"""Pairs per second of `qaconv.matcher` on a GPU: its fused kernel beside plain torch and beside the
product of two large matrices. Medians of 7, interleaved.

    uv run python benchmarks/qaconv_gpu.py [--small]

Maps are those of 384 x 128 pixels, 24 x 8 locations of 128 channels, 9.44 MFLOP for a pair of
pictures, and pictures as many as DukeMTMC-reID's: 2,228 queries and 17,661 in the gallery. The
kernel scores all pairs, with everything that belongs to distances, for each type of operands, in
tiles as with fused = "always" and as with "auto", which are smaller; plain torch scores a part of
the queries. The ceiling is torch.mm of 8192 x 8192 x 8192 in the type of the operands, for float32
in float32 and in TF32. The exit code is 1 where the kernel reaches less than half of bfloat16's or
float16's ceiling, or where its distances differ from those of plain torch.

--small is for machines without a GPU: it runs the whole script with tiny maps in Triton's
interpreter, and its times say nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable

import attrs
import torch
from interleaved import medians
from torch import Tensor

from reid_qaconv.matching import QAConv, build_matcher
from reid_qaconv.settings_matching import Matcher
from reidcore.api import Feature, Given, Matching
from reidcore.modules import Context, Template
from reidcore.ranking.distances import compute_distances
from reidcore.ranking.templates import take

LEAST_OF_CEILING = 0.5
MOST_APART = 2e-5


@attrs.frozen
class Sizes:
    """Maps' shape, numbers of pictures, queries of the plain path, side of the ceiling's matrices
    and rounds."""

    shape: tuple[int, int, int] = (128, 24, 8)
    queries: int = 2_228
    gallery: int = 17_661
    plain: int = 128
    square: int = 8192
    repeats: int = 7


SMALL = Sizes((16, 4, 3), 3, 5, 2, 64, 1)


def built(sizes: Sizes, operands: str, fused: str, device: str) -> tuple[QAConv, Matching]:
    """The matcher with random weights, and what it declares."""
    _, height, width = sizes.shape
    given = Given((16 * height, 16 * width), features={"x.map": Feature.map(*sizes.shape)})
    # Logits of random weights are small; so distances differ from each other all the same.
    config = Matcher(feature="x.map", operands=operands, fused=fused, score_scale=0.1)
    torch.manual_seed(0)
    matcher = build_matcher(config, Context(given, "pairs")).eval()
    return matcher.to(device), config.describe(given)


def pictures(sizes: Sizes, count: int, matcher: QAConv, device: str) -> Template:
    """Templates of random maps, made in parts because float32 is twice as large."""
    parts = [
        torch.nn.functional.normalize(torch.randn(len(part), *sizes.shape, device=device), dim=1)
        for part in torch.arange(count).split(1024)
    ]
    merged = [matcher.merge([{"map": part}])["map"] for part in parts]
    return {"map": torch.cat(merged)}


def waiting(way: Callable[[], Tensor], device: str) -> Callable[[], None]:
    """The way with what it started on the GPU."""

    def run() -> None:
        way()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def product(size: int, kind: torch.dtype, tf32: bool, device: str) -> Callable[[], Tensor]:
    """torch.mm of two square matrices."""
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))

    def multiply() -> Tensor:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            return torch.mm(a, b)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    return multiply


def measure(sizes: Sizes, operands: str, device: str) -> bool:
    """Prints the rates for one type of operands; whether the targets are met."""
    kind: torch.dtype = getattr(torch, operands)
    fused, matching = built(sizes, operands, "always", device)
    plain, plain_matching = built(sizes, operands, "never", device)
    a, b = (pictures(sizes, count, fused, device) for count in (sizes.queries, sizes.gallery))
    few = take(a, slice(0, sizes.plain))
    pairs = dict.fromkeys(("kernel", "kernel, auto"), sizes.queries * sizes.gallery)
    pairs["plain torch"] = sizes.plain * sizes.gallery
    ways: dict[str, Callable[[], Tensor]] = {
        "kernel": lambda: compute_distances(fused, matching, a, b),
        "kernel, auto": lambda: compute_distances(fused, plain_matching, a, b),
        "plain torch": lambda: compute_distances(plain, plain_matching, few, b),
    }
    work = {name: count * matching.pair_flops for name, count in pairs.items()}
    ceilings = {f"torch.mm, {operands}": False}
    if kind == torch.float32:
        ceilings["torch.mm, TF32"] = True
    for name, tf32 in ceilings.items():
        ways[name] = product(sizes.square, kind, tf32, device)
        work[name] = 2 * sizes.square**3
    seconds = medians({name: waiting(way, device) for name, way in ways.items()}, sizes.repeats)
    rates = {name: work[name] / seconds[name] for name in work}
    print(f"operands = {operands}")
    for name, rate in rates.items():
        print(f"  {name:20} {rate / 1e12:8.3f} TFLOP/s {rate / matching.pair_flops:14,.0f} pairs/s")
    share = rates["kernel"] / max(rates[name] for name in ceilings)
    apart = (ways["kernel"]()[: sizes.plain] - ways["plain torch"]()).abs().max().item()
    target = "" if kind == torch.float32 else f" (target: at least {LEAST_OF_CEILING:.0%})"
    print(f"  {share:.0%} of the ceiling{target}")
    print(f"  {rates['kernel'] / rates['plain torch']:.2f} times as fast as plain torch")
    print(f"  distances differ from plain torch's by up to {apart:.1e}", flush=True)
    slow = kind != torch.float32 and share < LEAST_OF_CEILING
    return not slow and apart <= MOST_APART


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="tiny sizes, also without a GPU")
    small = parser.parse_args().small
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not small:
        print("no CUDA device: nothing to measure; --small tries the script in the interpreter")
        return 0
    if device == "cpu":
        # Before triton is imported, which the matcher does not do until it scores.
        os.environ["TRITON_INTERPRET"] = "1"
    name = torch.cuda.get_device_name() if device == "cuda" else "Triton's interpreter"
    print(f"{platform.platform()}; {name}; torch {torch.__version__}")
    sizes = SMALL if small else Sizes()
    kept = [measure(sizes, kind, device) for kind in ("bfloat16", "float16", "float32")]
    return int(not all(kept) and not small)


if __name__ == "__main__":
    sys.exit(main())
