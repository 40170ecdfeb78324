"""Seconds of ranking on a GPU beside the CPU, with the GPU's ceilings measured in the same run.

    uv run python benchmarks/ranking_gpu.py [--repeats 9] [--small]

At the sizes of Market-1501's and MSMT17's test sets, clustered random vectors of length 512 with
squared Euclidean distances: scores from the vectors, scores of a matrix, each query's ten nearest,
`core.rerank` with its distances, and `qaconv.tlift`; at Market-1501's size `ipad.mutual` of kernels
128 x 128 by plain torch and, where it applies, by its Triton kernel, in float32 and stored in
float16. Medians on the GPU, after one round that is not counted; the CPU does each once, of
`ipad.mutual` a hundredth. Ceilings are a copy within the GPU's memory, a copy to it from pinned
memory, and products of matrices in float32 and in float16. The exit code is 1 where ranks or
nearest pictures of one matrix differ between the devices at all, average precision by more than
1e-12, `qaconv.tlift` and `ipad.mutual` by more than rounding, or `core.rerank` by more than it
moves where rounding changes who is whose neighbour. Without a GPU it says so and measures nothing;
--small runs everything once with few pictures on whatever device there is, so that the script can
be tried.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from interleaved import medians
from ipad_mutual import CHANNELS, built
from metrics import counted, from_vectors
from rerank import MARKET, MOST_APART, MSMT17, market_ranking, reranked, vectors
from startup import processor
from tlift import Places
from torch import Tensor

from reid_qaconv.settings_tlift import TLift as Settings
from reid_qaconv.tlift import build_tlift
from reidcore.api import Given
from reidcore.evaluation.fast_metrics import count_queries
from reidcore.evaluation.metrics import PerQuery
from reidcore.evaluation.relevance import Relevance
from reidcore.modules import Context, Meta
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.support.sorting import smallest

SIZES = {
    "Market-1501": (*MARKET, 750, 6, 10_000.0),
    "MSMT17": (*MSMT17, 3060, 15, 86_400.0),
}
"""Queries, gallery, identities, cameras, seconds."""
SMALL = {"small": (60, 300, 20, 4, 500.0)}
TOP, ROWS = 10, 4096
ROUNDING = 1e-5


@attrs.frozen(eq=False)
class Work:
    """A test set of this size to rank, on one device."""

    x: Tensor
    size: tuple[int, int, int, int, float]

    def ranking(self) -> MatcherRanking:
        """One that knows nothing of its gallery yet."""
        return market_ranking(self.x, self.size[0])

    def relevance(self) -> Relevance:
        """Of random identities and cameras, the same on every device."""
        draw = torch.Generator().manual_seed(1)
        queries, gallery, identities, cameras, _ = self.size
        file = torch.arange(queries + gallery).split([queries, gallery])
        query, other = (
            (
                torch.randint(identities, (len(own),), generator=draw),
                own,
                torch.randint(cameras, (len(own),), generator=draw),
            )
            for own in file
        )
        return Relevance(query, other, "drop")

    def places(self) -> Places:
        draw = torch.Generator().manual_seed(2)

        def side(count: int) -> Meta:
            camera = torch.randint(self.size[3], (count,), generator=draw)
            seconds = self.size[4] * torch.rand(count, generator=draw, dtype=torch.float64)
            return Meta(camera, seconds, torch.zeros_like(camera)).to(self.x.device)

        return Places(side(self.size[0]), side(self.size[1]))

    def ways(self, distances: Tensor) -> dict[str, Callable[[], Any]]:
        """`distances`: the whole matrix, in [0, 1], where it is given and not computed."""
        relevance, places = self.relevance(), self.places()
        lift = build_tlift(Settings(), Context(Given((1, 1)), "tlift"))
        return {
            "scores of vectors": lambda: from_vectors(self.ranking(), relevance),
            "scores of a matrix": lambda: counted(distances, relevance),
            f"{TOP} nearest": lambda: [smallest(part, TOP) for part in distances.split(ROWS)],
            "core.rerank": lambda: reranked(self.ranking()),
            "qaconv.tlift": lambda: lift(distances.clone(), places),
        }


def timed(way: Callable[[], Any], clock: Callable[[], float]) -> tuple[float, Any]:
    start = clock()
    found = way()
    return clock() - start, found


def peaks(ways: Mapping[str, Callable[[], Any]], device: torch.device) -> dict[str, str]:
    """MiB that each allocates on a GPU at most, besides what is there."""
    if device.type != "cuda":
        return dict.fromkeys(ways, "")
    found = {}
    for name, way in ways.items():
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        way()
        found[name] = f"{(torch.cuda.max_memory_allocated(device) - before) / 2**20:,.0f}"
    return found


def ceilings(
    device: torch.device, small: bool, clock: Callable[[], float], repeats: int
) -> dict[str, float]:
    """Prints them, and gives the products' FLOP per second."""
    size, side = (2**22, 256) if small else (2**28, 8192)
    source = torch.zeros(size, device=device)
    target, host = torch.empty_like(source), torch.zeros(size // 4)
    if device.type == "cuda":
        host = host.pin_memory()
    a, b = torch.rand(2, side, side, device=device)
    c, d = a.half(), b.half()
    seconds = medians(
        {
            "copy": lambda: target.copy_(source),
            "move": lambda: target[: size // 4].copy_(host, non_blocking=True),
            "float32": lambda: torch.mm(a, b),
            "float16": lambda: torch.mm(c, d),
        },
        repeats,
        clock,
    )
    rates = {kind: 2 * side**3 / seconds[kind] for kind in ("float32", "float16")}
    print(
        f"ceilings: {8 * size / seconds['copy'] / 1e9:,.0f} GB/s in memory, "
        f"{size / seconds['move'] / 1e9:,.1f} GB/s from pinned memory, "
        + ", ".join(f"{rate / 1e12:,.1f} TFLOP/s {kind}" for kind, rate in rates.items())
    )
    return rates


def compared(
    name: str,
    size: tuple[int, int, int, int, float],
    device: torch.device,
    repeats: int,
    clock: Callable[[], float],
) -> bool:
    """Measures one size on both devices; whether results are the same."""
    x = vectors(size[0] + size[1])
    there, here = Work(x.to(device), size), Work(x, size)
    distances = there.ranking().whole()
    distances /= distances.amax()
    own = distances.cpu()
    fast, slow = there.ways(distances), here.ways(own)
    seconds = medians(fast, repeats, clock)
    taken = peaks(fast, device)
    once = {way: timed(slow[way], time.perf_counter) for way in slow}
    for way in fast:
        cpu = once[way][0]
        print(
            f"{name:12} {size[0]:>6} + {size[1]:>6}  {way:20} {seconds[way]:9.4f} {cpu:9.3f} "
            f"{cpu / seconds[way]:8.1f} {taken[way]:>10}",
            flush=True,
        )
    found = {way: fast[way]() for way in fast}
    return same(found, {way: result for way, (_, result) in once.items()}, there, own, distances)


def same(
    found: Mapping[str, Any], expected: Mapping[str, Any], work: Work, own: Tensor, there: Tensor
) -> bool:
    """Print how far the results of both devices are apart; return True if they agree."""
    scores = [per_query(matrix, work.relevance()) for matrix in (there, own)]
    ranks = all(
        torch.equal(getattr(scores[0], field).cpu(), getattr(scores[1], field))
        for field in ("first", "matches")
    )
    lists = all(
        torch.equal(a, b)
        for one, other in zip(found[f"{TOP} nearest"], expected[f"{TOP} nearest"], strict=True)
        for a, b in zip(one, other, strict=True)
    )
    precision = apart(scores[0].ap, scores[1].ap)
    again, lifted = (apart(found[way], expected[way]) for way in ("core.rerank", "qaconv.tlift"))
    print(
        f"{'':12} ranks {'equal' if ranks else 'DIFFER'}, lists {'equal' if lists else 'DIFFER'}; "
        f"apart: AP {precision:.1e}, core.rerank {again:.1e}, qaconv.tlift {lifted:.1e}"
    )
    close = precision <= 1e-12 and again <= MOST_APART and lifted <= ROUNDING
    return ranks and lists and close


def per_query(distances: Tensor, relevance: Relevance) -> PerQuery:
    return count_queries(distances, relevance.rows(0, len(distances)).to(distances.device))


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu() - expected).abs().max())


def mutual(
    size: tuple[int, int],
    device: torch.device,
    repeats: int,
    clock: Callable[[], float],
    rates: Mapping[str, float],
) -> bool:
    """Measures `ipad.mutual` by plain torch and, where it applies, by its kernel; whether a
    hundredth of the queries get the CPU's distances."""
    sides = []
    for count in size:
        kernels = torch.rand(count, CHANNELS, CHANNELS, device=device)
        kernels /= kernels.flatten(1).norm(dim=1)[:, None, None]
        sides.append({"kernel": kernels, "vector": torch.rand(count, CHANNELS, device=device)})
    paths = {"plain torch": "never"}
    if built()[0].fused.applies(sides[0]["vector"]):
        paths["kernel"] = "always"
    return all([_mutual(store, sides, paths, repeats, clock, rates) for store in rates])


def _mutual(
    store: str,
    sides: list[dict[str, Tensor]],
    paths: Mapping[str, str],
    repeats: int,
    clock: Callable[[], float],
    rates: Mapping[str, float],
) -> bool:
    """The same of what is kept in the type `store`."""
    matchers = {path: built(store, fused)[0] for path, fused in paths.items()}
    plain, flop = built(store, "never")
    a, b = (plain.merge([side]) for side in sides)
    seconds = medians(
        {path: lambda m=matcher: m.distance(a, b) for path, matcher in matchers.items()},
        repeats,
        clock,
    )
    queries, gallery = len(a["vector"]), len(b["vector"])
    few = {key: value[: max(1, queries // 100)] for key, value in a.items()}
    own = [{key: value.cpu() for key, value in side.items()} for side in (few, b)]
    cpu, expected = timed(lambda: plain.distance(*own), time.perf_counter)
    pairs, fine = queries * gallery, True
    print(
        f"{'ipad.mutual':12} {queries:>6} + {gallery:>6}  {store}; "
        f"CPU {expected.numel() / cpu:,.0f} pairs/s"
    )
    for path, matcher in matchers.items():
        rate = pairs * flop / seconds[path]
        shares = ", ".join(f"{rate / most:.0%} of {kind}'s" for kind, most in rates.items())
        different = apart(matcher.distance(few, b), expected)
        fine &= different <= ROUNDING * float(expected.max())
        print(
            f"{'':12} {path:12} {seconds[path]:.4f} s, {pairs / seconds[path]:,.0f} pairs/s, "
            f"{rate / 1e12:.2f} TFLOP/s, {shares} rate; apart: {different:.1e}",
            flush=True,
        )
    return fine


@torch.no_grad()
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    there = torch.cuda.is_available()
    if not there and not options.small:
        print("there is no GPU, so nothing is measured; --small tries the script on a CPU")
        return 0
    device = torch.device("cuda" if there else "cpu")
    repeats = 1 if options.small else options.repeats

    def clock() -> float:
        if there:
            torch.cuda.synchronize()
        return time.perf_counter()

    print(
        f"{platform.platform()}; {processor()}; "
        f"{torch.cuda.get_device_name() if there else 'no GPU'}; torch {torch.__version__}; "
        f"CPU threads: {torch.get_num_threads()}; medians of {repeats}"
    )
    rates = ceilings(device, options.small, clock, repeats)
    print(
        f"{'':12} {'pictures':>15}  {'':20} {device.type + ' s':>9} {'CPU s':>9} {'times':>8} "
        f"{'MiB':>10}"
    )
    sizes = SMALL if options.small else SIZES
    fine = [compared(name, size, device, repeats, clock) for name, size in sizes.items()]
    market = (6, 40) if options.small else MARKET
    fine.append(mutual(market, device, repeats, clock, rates))
    return int(not all(fine))


if __name__ == "__main__":
    sys.exit(main())
