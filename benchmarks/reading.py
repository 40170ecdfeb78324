"""Cost of reading training pictures: microseconds by stage, and pictures per second by workers.

    OMP_NUM_THREADS=1 uv run python benchmarks/reading.py FOLDER [--jpeg 128 64] [--workers 1 2]

Up to 200 JPEGs of FOLDER are written anew as JPEGs of quality 95 and the size `--jpeg`, then read
at 256 x 128 with a flip, a padded crop and erasing, as most runs do. "ops" is how long one small
tensor operation takes in the main thread meanwhile, beside what it takes with nobody reading: a
training step is thousands of those, and waits for the interpreter's lock as they do.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from startup import processor

from reidcore.api import Row
from reidcore.builtin import settings
from reidcore.builtin.augmentations import Erase, Flip, PadCrop
from reidcore.data.decoding import decode
from reidcore.data.pictures import PictureLoader, make_rows
from reidcore.modules import Rows
from reidcore.runfiles.tables import Data
from reidcore.support.seeds import generator

IMAGE = (256, 128)
BATCH = 64


def augmentations() -> list[Callable[..., torch.Tensor]]:
    return [Flip(settings.Flip()), PadCrop(settings.PadCrop(pad=10)), Erase(settings.Erase(p=0.5))]


def loader(workers: int, worker: str, cache: float) -> PictureLoader:
    data = Data(image=IMAGE, workers=workers, worker_kind=worker, cache=cache)
    made = PictureLoader(data, 0, augmentations())
    made._placed = lambda batch: batch  # what the step does is not reading
    return made


def per_picture(work: Callable[[int], Any], count: int) -> float:
    """Median microseconds of five rounds over all pictures."""
    rounds = []
    for _ in range(5):
        started = time.perf_counter()
        for index in range(count):
            work(index)
        rounds.append((time.perf_counter() - started) / count * 1e6)
    return statistics.median(rounds)


def stages(paths: list[str]) -> dict[str, float]:
    count = len(paths)
    opened = [Image.open(path).convert("RGB") for path in paths]
    pictures = [decode(Row(path, ""), IMAGE, "bilinear") for path in paths]

    def load(index: int) -> None:
        with Image.open(paths[index]) as file:
            file.load()

    def augment(index: int) -> None:
        picture, draw = pictures[index].clone(), generator(0, "picture", 0, 0, index)
        for change in augmentations():
            picture = change(picture, draw)

    size = IMAGE[::-1]
    return {
        "decode": per_picture(load, count),
        "resize": per_picture(lambda i: opened[i].resize(size, Image.Resampling.BILINEAR), count),
        "decode, resize and to a tensor": per_picture(
            lambda i: decode(Row(paths[i], ""), IMAGE, "bilinear"), count
        ),
        "augment": per_picture(augment, count),
        "stack": per_picture(lambda i: torch.stack(pictures[:BATCH]), count) / BATCH,
    }


def rate(made: PictureLoader, rows: Rows, batches: int) -> float:
    """Pictures per second, the median of three epochs after one that fills the cache."""
    order = [[(n * BATCH + k) % len(rows) for k in range(BATCH)] for n in range(batches)]
    found = []
    for epoch in range(4):
        started = time.perf_counter()
        for _ in made.training(rows, order, epoch, 0):
            pass
        found.append(batches * BATCH / (time.perf_counter() - started))
    return statistics.median(found[1:])


def operation(count: int = 4000) -> float:
    """Microseconds of a small tensor operation."""
    x, started = torch.zeros(4), time.perf_counter()
    for _ in range(count):
        x.add_(1)
    return (time.perf_counter() - started) / count * 1e6


def slowed(made: PictureLoader, rows: Rows, batches: int = 50) -> float:
    """Microseconds of a small operation while pictures are read."""
    order = [[(n * BATCH + k) % len(rows) for k in range(BATCH)] for n in range(batches)]
    return statistics.median(operation() for _ in made.training(rows, order, 9, 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a folder with JPEGs")
    parser.add_argument("--jpeg", type=int, nargs=2, default=[128, 64], metavar=("H", "W"))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, default=40, help="batches of an epoch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        height, width = options.jpeg
        paths = []
        for file in sorted(options.folder.rglob("*.jpg"))[:200]:
            paths.append(f"{folder}/{len(paths)}.jpg")
            with Image.open(file) as picture:
                resized = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            resized.save(paths[-1], quality=95)
        rows = make_rows([Row(path, "one") for path in paths], {"": -1}, ("visible",))
        print(f"{platform.platform()}; {processor()}; torch {torch.__version__}")
        print(f"{len(paths)} JPEGs of {height} x {width}, read at {IMAGE[0]} x {IMAGE[1]}")
        for name, microseconds in stages(paths).items():
            print(f"  {name:32}{microseconds:8.1f} us a picture")
        alone = statistics.median(operation() for _ in range(20))
        print(f"{'':12}{'workers':>8}{'pictures/s':>12}{'ops':>8}  (alone {alone:.2f} us)")
        cases = [("cached", "thread", 1.0), ("thread", "thread", 0.0), ("process", "process", 0.0)]
        for name, worker, cache in cases:
            for workers in options.workers:
                made = loader(workers, worker, cache)
                found = rate(made, rows, options.batches)
                print(f"{name:12}{workers:8}{found:12.0f}{slowed(made, rows):8.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
