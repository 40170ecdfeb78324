"""Where the time of a training step goes: seconds by part for run files, packaged or one's own.

    OMP_NUM_THREADS=1 uv run python benchmarks/step_parts.py [RUN ...] [--batch 64] [--steps 20]

Without RUN: a ResNet-50 with a neck, softmax and triplet losses (`ipad:duke-baseline`, all of whose
parts are the core's), then QAConv, MSINet, IPAD, AIR-Net and DDAG as published. Networks have full
size and random weights. The data sets are not needed: identities are those that the readers state,
and pictures are drawn, written as JPEGs of half the network's picture size and read as in any
training, with the run's augmentations. `core.train`'s own loop runs; its pieces are timed from
outside.

The first steps are not counted. "input" is the time for which the step waits for pictures;
"copying" also normalises them. On a CPU all is wall time, and the lines are those of the step that
takes the median time. On a GPU parts are medians timed by its events, "input" and the step are
timed by the clock, and "copying" runs beside the step, so that it does not add to it; a few more
steps are profiled for the share of the time in which no kernel runs.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from startup import processor

from reidcore.data.pictures import PictureLoader
from reidcore.model.building import build_model, choose_device, make_loader
from reidcore.modules import Rows
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import run_source
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.progress import Silent
from reidcore.training.plain import train
from reidcore.training.training_run import TrainingRun
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan, Wired

RUNS = (
    "ipad:duke-baseline",
    "qaconv:market-to-duke",
    "msinet:market",
    "ipad:market",
    "airnet:market",
    "ddag:sysu",
)
SMALL = ("demo", "qaconv:demo", "msinet:demo", "ipad:demo", "airnet:demo", "ddag:demo")
PER_ID = 8
GROUPS = ("input", "copying", "backbone", "head", "loss", "backward", "optimizer", "after_step")


class Done(Exception):
    """All steps have been made."""


class Clock:
    """Seconds between moments, which are events where parts run on a GPU."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.spans: list[dict[str, list[tuple[Any, Any]]]] = []
        """Of each step, beginnings and ends of its parts."""
        self.ends: list[float] = []
        """When each step had been launched."""

    def now(self, host: bool = False) -> Any:
        if host or not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def part(self, name: str, host: bool = False) -> Iterator[None]:
        start = self.now(host)
        yield
        if self.spans:
            self.spans[-1].setdefault(name, []).append((start, self.now(host)))

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def within(*given: Any, **named: Any) -> Any:
            with self.part(name):
                return call(*given, **named)

        return within

    def seconds(self, first: int) -> tuple[float, dict[str, float]]:
        """Of a step, and of its parts, over the steps from `first` on: on a CPU those of the step
        that takes the median time, on a GPU medians of the parts and the mean step."""
        if self.on_gpu:
            torch.cuda.synchronize()
        until = time.perf_counter()
        found = [
            {name: sum(_between(a, b) for a, b in spans) for name, spans in step.items()}
            for step in self.spans[first:]
        ]
        if self.on_gpu:
            whole = (until - self.ends[first - 1]) / len(found)
            names = dict.fromkeys(name for step in found for name in step)
            return whole, {
                name: statistics.median(step.get(name, 0.0) for step in found) for name in names
            }
        taken = [self.ends[n] - self.ends[n - 1] for n in range(first, len(self.ends))]
        whole = statistics.median_low(taken)
        return whole, found[taken.index(whole)]


def _between(start: Any, end: Any) -> float:
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000


def make_rows(plan: Plan, folder: Path, size: int) -> Rows:
    """As many drawn pictures as a batch may ask for, of `size` identities, all modalities."""
    draw = np.random.default_rng(0)
    height, width = plan.given.image
    kinds = [plan.given.modalities.index(name) for name in plan.given.train_modalities] or [0]
    identities = min(size, plan.given.identities)
    paths, pid, modality = [], [], []
    for number in range(identities * PER_ID):
        coarse = draw.integers(0, 256, (16, 8, 3), dtype=np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(coarse).resize((width // 2, height // 2)).save(path, quality=95)
        paths.append(str(path))
        pid.append(number // PER_ID)
        modality.append(kinds[number % len(kinds)])
    count = len(paths)
    return Rows(
        paths=paths,
        pid=np.array(pid),
        modality=np.array(modality),
        camera=np.arange(count) % max(1, plan.given.cameras),
        time=np.full(count, np.nan),
        names=[str(one) for one in range(plan.given.identities)],
        listed=[""] * count,
    )


def make(name: str, options: argparse.Namespace, plugins: Plugins) -> Plan:
    """The run's plan with batches of the asked size."""
    text, shown = run_source(name, plugins)
    sets = ["data.test=[]", "train.epochs=1", f"train.device={options.device}", *options.set]
    plan = make_plan(parse_runfile(text, shown, sets), plugins, allow_missing=True)
    batch = plan.given.batch
    assert plan.batch is not None and batch.size, "the run's batches have no fixed size"
    if batch.ids is None:
        sets.append(f"data.batch.size={options.batch}")
    else:
        sets.append(f"data.batch.ids={max(1, batch.ids * options.batch // batch.size)}")
    return make_plan(parse_runfile(text, shown, sets), plugins, allow_missing=True)


class Endless:
    """A sampler that repeats epochs until there are enough batches."""

    def __init__(self, sampler: Any, count: int):
        self.sampler, self.count = sampler, count

    def epoch(self, rows: Rows, generator: torch.Generator, ask: Any) -> list[Sequence[int]]:
        order: list[Sequence[int]] = []
        while len(order) < self.count:
            order += self.sampler.epoch(rows, generator, ask)
        return order[: self.count]


def instrument(
    run: TrainingRun, loader: PictureLoader, clock: Clock, steps: int, warm: int
) -> None:
    """Times what the training loop calls, for so many steps in all."""
    model, batches, make_optimizer = run.model, run.batches, run.optimizer
    call = model.call

    def timed_batches(*given: Any) -> Iterator[Any]:
        source = batches(*given)
        while True:
            clock.spans.append({})
            with clock.part("input", host=True):
                batch = next(source, None)
            if batch is None:
                clock.spans.pop()
                raise Done
            yield batch
            if clock.on_gpu and len(clock.spans) == warm:
                torch.cuda.synchronize()  # what is counted begins with an idle GPU
            clock.ends.append(clock.now(host=True))

    def timed_call(wired: Wired, part: Any) -> Callable[..., Any]:
        return clock.timed(_named(wired), call(wired, part))

    def timed_optimizer() -> Any:
        made = make_optimizer()
        made.step = clock.timed("optimizer", made.step)
        return made

    loader._placed = clock.timed("copying", loader._placed)
    run.sampler = Endless(run.sampler, steps)
    run.batches, run.optimizer, model.call = timed_batches, timed_optimizer, timed_call
    run.backward = clock.timed("backward", run.backward)
    model.after_step = clock.timed("after_step", model.after_step)
    for wired, loss in zip(model.plan.losses, model.losses.values(), strict=True):
        loss.forward = clock.timed(_named(wired), loss.forward)


def _named(wired: Wired) -> str:
    return str(wired.part)


def measure(name: str, options: argparse.Namespace, plugins: Plugins) -> dict[str, float]:
    """Median seconds by part, with "step", and "idle", a share, on a GPU."""
    plan = make(name, options, plugins)
    device = choose_device(options.device)
    torch.backends.cudnn.benchmark = device.type == "cuda"  # as in a run
    model = build_model(plan, 0, "none").to(device)
    loader, clock = make_loader(plan, device), Clock(device)
    every = options.warm + options.steps
    profiled = 3 if clock.on_gpu else 0
    with tempfile.TemporaryDirectory() as folder:
        rows = make_rows(plan, Path(folder), options.batch)
        run = TrainingRun(model, loader, rows, Path(folder), plugins, Silent())
        instrument(run, loader, clock, every, options.warm)
        seconds = steps_of(run, clock, options.warm)
        if profiled:
            seconds["idle"] = idle_share(run, clock, seconds["step"], profiled)
    count = sum(p.numel() for p in model.parameters())
    height, width = plan.given.image
    print(f"\n{name}: {count / 1e6:.1f} M parameters, {height} x {width}, batch {options.batch}")
    show(seconds, options.batch)
    return seconds


def steps_of(run: TrainingRun, clock: Clock, warm: int) -> dict[str, float]:
    with suppress(Done):
        train(None, run)
    step, found = clock.seconds(warm)
    if not clock.on_gpu:
        found["input"] = max(0.0, found["input"] - found["copying"])  # which is inside of it
    return {"input": found.pop("input"), **found, "step": step}


def idle_share(run: TrainingRun, clock: Clock, step: float, count: int) -> float:
    """Share of a step in which no kernel runs, from the kernels of some more steps."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    run.sampler.count = count
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        steps_of(run, clock, 1)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA
    )
    busy, until = 0.0, -1.0
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return max(0.0, 1 - busy / 1e6 / count / step)


def rest_of(seconds: dict[str, float]) -> float:
    """Return the time of a step that belongs to no part; on a GPU copying is beside the step."""
    beside = ("step", "idle", "copying") if "idle" in seconds else ("step",)
    return seconds["step"] - sum(v for name, v in seconds.items() if name not in beside)


def show(seconds: dict[str, float], batch: int) -> None:
    step = seconds["step"]
    parts = {name: value for name, value in seconds.items() if name not in ("step", "idle")}
    for name, value in [*parts.items(), ("the rest", rest_of(seconds)), ("step", step)]:
        print(f"  {name:40}{1000 * value:10.1f} ms {100 * value / step:6.1f} %")
    if "idle" in seconds:
        print(f"  {100 * seconds['idle']:.1f} % of the step no kernel runs")
    print(f"  {batch / step:.1f} pictures/s", flush=True)


def summary(found: dict[str, dict[str, float]], batch: int) -> None:
    """A Markdown table: percent of the step by group of parts."""
    print("\n| run | " + " | ".join((*GROUPS, "rest", "step, s", "pictures/s")) + " |")
    print("|---" * (len(GROUPS) + 4) + "|")
    for name, seconds in found.items():
        step, sums = seconds["step"], dict.fromkeys(GROUPS, 0.0)
        for part, value in seconds.items():
            group = part.split(" ")[0]
            if group in sums:
                sums[group] += value
        shares = [*sums.values(), rest_of(seconds)]
        numbers = " | ".join(f"{100 * share / step:.1f}" for share in shares)
        print(f"| `{name}` | {numbers} | {step:.3f} | {batch / step:.1f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run files or packaged ones")
    parser.add_argument("--batch", type=int, default=64, help="pictures in a batch")
    parser.add_argument("--steps", type=int, default=20, help="counted steps")
    parser.add_argument("--warm", type=int, default=5, help="steps before them")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in run")
    parser.add_argument("--small", action="store_true", help="the demo runs, a few small steps")
    options = parser.parse_args()
    if options.small:
        options.batch, options.steps, options.warm = 16, 3, 1
    runs = options.runs or (SMALL if options.small else RUNS)
    device = choose_device(options.device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{platform.platform()}; {processor()}; torch {torch.__version__} on {gpu}")
    print(f"{torch.get_num_threads()} threads compute; {options.steps} steps after {options.warm}")
    plugins = Plugins()
    found = {name: measure(name, options, plugins) for name in runs}
    summary(found, options.batch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
