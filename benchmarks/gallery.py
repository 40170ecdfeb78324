"""Times of a gallery beside the same work without one, both in one run, medians.

    python benchmarks/gallery.py FOLDER scan --pictures 1000000

FOLDER takes what is made, about 1.1 GB for a million pictures, and is used again. The vectors are
random, 512 numbers of float16. Parts: scan (one query, 100 queries, a filter, beside NumPy reading
the same bytes, torch.mm, Lance's own search and FAISS, if it is installed), ann, add, maps, growth
(a gallery that is added to until it has so many pictures, 1.1 GB for a million).

`ann --like RUN CSV` draws identities of 20 pictures whose vectors spread, between identities and
within them, as those that a run makes of the CSV's pictures.

Where other programs run on the same processors, --processor gives the time that this one computes.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import torch

from reid_gallery import Gallery
from reid_gallery.adding import Written, commit
from reid_gallery.approximate import SHARE, approximate, has_index
from reid_gallery.filters import Filter
from reid_gallery.rows import entries_of
from reid_gallery.scoring import Scorer
from reid_gallery.searching import scan
from reidcore.api import Row
from reidcore.tools import Templates, load

now = time.perf_counter
Vectors = Callable[[int, int], np.ndarray]
SIZE = 512
STEP = 250_000
CAMERAS = 10
RUN = """\
format = 1
name = "wide"
[data]
train = { read = "core.demo", train_identities = 8, test_identities = 4, pictures = 8 }
image = [64, 32]
batch = { use = "core.identities", ids = 4, per_id = 2 }
[backbone]
use = "core.resnet"
depth = 18
[[head]]
name = "neck"
use = "core.bnneck"
source = "backbone.layer4"
[[head]]
name = "local"
use = "qaconv.local"
source = "backbone.layer3"
channels = 128
[[matcher]]
name = "look"
use = "core.cosine"
features = ["neck.bn"]
[[matcher]]
name = "pairs"
use = "qaconv.matcher"
feature = "local.map"
[[ranking]]
name = "plain"
matcher = "look"
[[loss]]
name = "id"
use = "core.softmax"
features = ["neck.bn"]
[train]
epochs = 1
[optim]
lr = 1e-3
"""
SHORT = """
[[ranking]]
name = "short"
matcher = "pairs"
shortlist = { by = "look", top = 200 }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--like", type=Path, nargs=2, metavar=("RUN", "CSV"), help="vectors for ann"
    )
    parser.add_argument("--processor", action="store_true", help="seconds of the processor alone")
    options = parser.parse_args()
    if options.processor:
        global now
        now = time.process_time
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.like:
        if options.part != "ann":
            parser.error("--like is for the part ann")
        neighbours(options.folder, options.pictures, options.repeats, People.like(*options.like))
    else:
        PARTS[options.part](options.folder, options.pictures, options.repeats)


def run_folder(folder: Path, maps: bool = False) -> Path:
    """A run whose vectors have 512 numbers; with `maps`, QAConv re-scores 200 of 24 x 8 x 128."""
    place = folder / ("run-maps" if maps else "run")
    if not place.is_dir():
        text = RUN.replace("[64, 32]", "[384, 128]") + SHORT if maps else RUN
        (folder / "run.toml").write_text(text)
        command = [sys.executable, "-m", "reidcore", "run", str(folder / "run.toml")]
        subprocess.run([*command, "--out", str(place)], check=True, stdout=subprocess.DEVNULL)
    return place


class People:
    """Draws vectors of identities, EACH pictures of every one."""

    EACH = 20

    def __init__(self, mean: np.ndarray, between: np.ndarray, within: np.ndarray) -> None:
        self.mean, self.between, self.within = mean, between, within

    @classmethod
    def like(cls, run: Path, pictures: Path) -> People:
        """Of a mean and spreads as a run's vectors have between identities and within them."""
        entries = entries_of(pictures)
        found = load(run, device="cpu").templates([entry.row.path for entry in entries])
        vectors = next(iter(next(iter(found.parts.values())).values())).double().numpy()
        names = [entry.cells["identity"] for entry in entries]
        _, identity, counts = np.unique(names, return_inverse=True, return_counts=True)
        means = np.zeros((len(counts), vectors.shape[1]))
        np.add.at(means, identity, vectors)
        means /= counts[:, None]
        within = vectors - means[identity]
        spreads = [
            cls._root(np.cov(means, rowvar=False)),
            cls._root(within.T @ within / (len(vectors) - len(means))),
        ]
        return cls(means.mean(0).astype(np.float32), *spreads)

    @staticmethod
    def _root(covariance: np.ndarray) -> np.ndarray:
        values, axes = np.linalg.eigh(covariance)
        return (np.sqrt(values.clip(0))[:, None] * axes.T).astype(np.float32)

    def vectors(self, start: int, count: int, again: int = 0) -> np.ndarray:
        """Vectors of pictures from one on, the first of an identity; other pictures of the same
        identities with another `again`."""
        centres, noise = np.random.default_rng((start, 0)), np.random.default_rng((start, 1, again))
        drawn = centres.standard_normal((-(-count // self.EACH), SIZE), np.float32) @ self.between
        found = noise.standard_normal((count, SIZE), np.float32) @ self.within
        found += np.repeat(drawn, self.EACH, 0)[:count] + self.mean
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def sphere(start: int, count: int) -> np.ndarray:
    """Vectors of every direction alike."""
    vectors = np.random.default_rng(start).standard_normal((count, SIZE), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def rows(schema: pa.Schema, start: int, count: int, vectors: Vectors) -> pa.Table:
    """Rows of drawn vectors, their times ascending."""
    draw = np.random.default_rng((start, 2))
    numbers = np.arange(start, start + count)
    cells: dict[str, Any] = {
        "id": pa.array(numbers),
        "key": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), count, [None, pa.py_buffer(np.stack([numbers, numbers], 1).tobytes())]
        ),
        "source": pa.array([f"/pictures/{number:09d}.jpg" for number in numbers]),
        "camera": pa.array([str(one) for one in draw.integers(0, CAMERAS, count)]),
        "time": pa.array(numbers * 0.5),
        "added": pa.array(numbers, pa.int64()).cast(schema.field("added").type),
        "look__vector": pa.FixedSizeListArray.from_arrays(
            pa.array(vectors(start, count).astype(np.float16).reshape(-1)), SIZE
        ),
    }
    arrays = [cells.get(field.name, pa.nulls(count, field.type)) for field in schema]
    return pa.table(arrays, schema=schema)


def filled(folder: Path, pictures: int) -> Gallery:
    """A gallery of so many pictures."""
    return grown(folder, f"gallery-{pictures}", pictures)


def grown(folder: Path, name: str, pictures: int, vectors: Vectors = sphere) -> Gallery:
    """A gallery of at least so many pictures: those that it lacks are added."""
    run, place = run_folder(folder), folder / name
    if not place.is_dir():
        Gallery.create(run, place, "float16", "cpu")
    made = Gallery.open(place, run, "cpu")
    for start in range(len(made), pictures, STEP):
        table = rows(made.origin.schema(), start, min(STEP, pictures - start), vectors)
        made.tables.append("pictures.lance", made.tables.write("pictures.lance", table))
    return made


def median(work: Callable[[], object], repeats: int) -> float:
    """The median of seconds, after one call that does not count."""
    work()
    found = []
    for _ in range(repeats):
        started = now()
        work()
        found.append(now() - started)
    return statistics.median(found)


def queries(gallery: Gallery, count: int) -> Templates:
    """Templates of pictures that there are not."""
    draw = torch.Generator().manual_seed(1)
    return asked(gallery, torch.nn.functional.normalize(torch.randn(count, SIZE, generator=draw)))


def asked(gallery: Gallery, vectors: torch.Tensor) -> Templates:
    """Templates of pictures with these vectors."""
    count = len(vectors)
    made = tuple(Row(f"/queries/{place}.jpg", "", split="gallery") for place in range(count))
    return Templates(made, {"look": {"vector": vectors}}, gallery.search_run.made_by)


def scorer(gallery: Gallery, query: Templates) -> Scorer:
    """The scorer of the gallery's first ranking."""
    table = gallery.search_run.plan.rankings[0]
    return Scorer(gallery.search_run, gallery.origin, table, None, query)


def show(name: str, seconds: float, beside: float | None = None, words: str = "") -> None:
    """A line with the time, and how many times as long as another it is."""
    ratio = "" if beside is None else f"  {seconds / beside:6.2f} x {words}"
    print(f"{name:<52}{seconds * 1000:10.1f} ms{ratio}", flush=True)


def scans(folder: Path, pictures: int, repeats: int) -> None:
    """Exact searches of one query and of a hundred, with and without a filter."""
    gallery = filled(folder, pictures)
    view = gallery.view()
    raw = folder / f"vectors-{pictures}.f16"
    if not raw.exists():
        with open(raw, "wb") as file:
            for batch in view.dataset.to_batches(columns=["look__vector"]):
                file.write(batch.column(0).flatten().to_numpy().tobytes())
    one, many = (scorer(gallery, queries(gallery, count)) for count in (1, 100))
    times: dict[str, list[float]] = {}
    works: dict[str, Callable[[], object]] = {
        "numpy": lambda: np.fromfile(raw, np.float16),
        "one": lambda: scan(view, one, 100, Filter()),
        "filter": lambda: scan(view, one, 100, kept(pictures)),
        "lance": lambda: view.dataset.to_table(
            columns=["id"],
            nearest={
                "column": "look__vector",
                "k": 100,
                "metric": "cosine",
                "use_index": False,
                "q": one.query.parts["look"]["vector"][0].half().numpy(),
            },
        ),
    }
    # Side by side, in turns, so that what else the machine does disturbs all alike.
    for turn in range(repeats + 1):
        for name, work in works.items():
            started = now()
            work()
            if turn:
                times.setdefault(name, []).append(now() - started)
    found = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{pictures} vectors of {SIZE} in float16, exact top 100, {torch.get_num_threads()} threads"
    )
    show("NumPy reads the same bytes", found["numpy"])
    show("gallery, one query", found["one"], found["numpy"], "NumPy")
    show("Lance's own flat search, one query", found["lance"], found["one"], "the gallery")
    share = (
        sum(len(batch) for batch in view.dataset.to_batches(["id"], kept(pictures).sql)) / pictures
    )
    show(f"gallery, a filter that keeps {share:.1%}", found["filter"], found["one"], "no filter")
    batches(gallery, many, raw, repeats)


def kept(pictures: int) -> Filter:
    """The filter for a fifth of the time at a tenth of the cameras."""
    last = pictures * 0.5
    return Filter.of("3", 0.4 * last, 0.6 * last)


def batches(gallery: Gallery, many: Scorer, raw: Path, repeats: int) -> None:
    """A hundred queries at once beside the same product, and FAISS."""
    view = gallery.view()
    query = many.query.parts["look"]["vector"]
    half = torch.from_numpy(np.fromfile(raw, np.float16)).view(-1, SIZE)
    whole = half.float()
    show_mm, show_scan, faiss_times = [], [], []
    index = _faiss(whole)
    for turn in range(repeats + 1):
        for times, work in (
            (show_mm, lambda: torch.mm(query, whole.T)),
            (show_scan, lambda: scan(view, many, 100, Filter())),
            (faiss_times, (lambda: index.search(query.numpy(), 100)) if index else None),
        ):
            if work is None:
                continue
            started = now()
            work()
            if turn:
                times.append(now() - started)
    product = statistics.median(show_mm)
    show("torch.mm of 100 queries, float32 in memory", product)
    show("gallery, 100 queries", statistics.median(show_scan), product, "torch.mm")
    if faiss_times:
        show("FAISS flat, 100 queries", statistics.median(faiss_times), product, "torch.mm")


def _faiss(vectors: torch.Tensor) -> Any:
    try:
        import faiss
    except ImportError:
        return None
    index = faiss.IndexFlatIP(SIZE)
    index.add(vectors.numpy())
    return index


def neighbours(folder: Path, pictures: int, repeats: int, people: People | None = None) -> None:
    """The index of approximate neighbours: its time and its recall, by the share looked through."""
    if people is None:
        gallery = filled(folder, pictures)
        query = queries(gallery, 20)
    else:
        gallery = grown(folder, f"people-{pictures}", pictures, people.vectors)
        vectors = people.vectors(0, 20 * people.EACH, again=1)[:: people.EACH]
        query = asked(gallery, torch.from_numpy(vectors))
    if not has_index(gallery.view().dataset):
        started = now()
        gallery.compact(ann=True)
        print(f"built the index of {pictures} in {now() - started:.0f} s", flush=True)
    view, every = gallery.view(), scorer(gallery, query)
    single = every.of(0)
    exact = scan(view, every, 100, Filter())
    slow = median(lambda: scan(view, single, 100, Filter()), repeats)
    show("exact, one query", slow)
    for share in (0.01, 0.04, SHARE, 1.0):
        way = approximate(share)
        found = way(view, every, 100, Filter())
        recall = {
            count: np.mean(
                [
                    len(np.intersect1d(a[:count], b[:count])) / count
                    for a, b in zip(exact.id, found.id, strict=True)
                ]
            )
            for count in (10, 100)
        }
        taken = median(lambda way=way: way(view, single, 100, Filter()), repeats)
        show(f"a share of {share:g}, one query", taken, slow, "exact")
        print("  " + ", ".join(f"recall@{count} {value:.3f}" for count, value in recall.items()))


def adding(folder: Path, pictures: int, repeats: int) -> None:
    """Ready vectors beside Lance's own writer, and pictures beside the bare network."""
    made = Gallery.create(run_folder(folder), folder / "adding", "float16", "cpu")
    table = rows(made.origin.schema(), 0, min(pictures, 200_000), sphere)

    def own() -> None:
        written = made.tables.write("pictures.lance", table)
        commit(made.tables, made.origin, [Written((), tuple(range(9)), written, [])])

    def bare() -> None:
        place = str(folder / "bare.lance")
        lance.write_dataset(table, place, mode="append", data_storage_version="2.0")

    try:
        times: list[list[float]] = [[], []]
        for turn in range(repeats + 1):
            for found, work in zip(times, (own, bare), strict=True):
                if work is own:
                    made.tables.open().delete("true")
                started = now()
                work()
                if turn:
                    found.append(now() - started)
        ours, theirs = map(statistics.median, times)
        show(f"gallery, {len(table)} ready vectors", ours, theirs, "Lance's writer")
        print(f"{len(table) / ours:.0f} rows/s")
    finally:
        shutil.rmtree(folder / "adding")
        shutil.rmtree(folder / "bare.lance", ignore_errors=True)
    _extraction(folder, repeats)


def _extraction(folder: Path, repeats: int) -> None:
    pictures = sorted((folder / "drawn").rglob("*.jpg"))
    if not pictures:
        command = [sys.executable, "-m", "reidcore", "data", "demo", str(folder / "drawn")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        pictures = sorted((folder / "drawn").rglob("*.jpg"))
    pictures = pictures[:512]
    search = load(run_folder(folder), device="cpu")
    images = search.images(pictures[:128])

    @torch.no_grad()
    def bare() -> None:
        for _ in range(len(pictures) // 128):
            search.model(images)

    def own() -> None:
        gallery = Gallery.create(run_folder(folder), folder / "adding", "float16", "cpu")
        gallery._search = search
        started = now()
        gallery.add(pictures)
        spent.append(now() - started)
        shutil.rmtree(folder / "adding")

    spent: list[float] = []
    network = []
    for turn in range(repeats + 1):
        started = now()
        bare()
        if turn:
            network.append(now() - started)
        own()
    count = len(pictures) // 128 * 128
    rates = len(pictures) / statistics.median(spent[1:]), count / statistics.median(network)
    print(f"pictures/s: gallery {rates[0]:.0f}, the bare network {rates[1]:.0f}")


def maps(folder: Path, pictures: int, repeats: int) -> None:
    """QAConv's re-scoring of each query's best 200 from stored maps of 98 KB."""
    run = run_folder(folder, maps=True)
    place = folder / "gallery-maps"
    search = load(run, device="cpu")
    drawn = sorted((folder / "drawn").rglob("*.jpg"))
    if not place.is_dir():
        made = Gallery.create(run, place, "float32", "cpu")
        made._search = search
        made.add(drawn)
    gallery = Gallery.open(place, run, "cpu")
    gallery._search = search
    query = search.templates(drawn[:4])
    for ranking in ("plain", "short"):
        time_of = median(lambda name=ranking: gallery.search(query, ranking=name), repeats)
        show(f"{ranking}, of {len(gallery)} pictures, each query", time_of / len(query))


def growth(folder: Path, pictures: int, repeats: int) -> None:
    """Time and memory of adding and of a scan as a gallery grows."""
    more = ["--repeats", str(repeats), *(["--processor"] if now is time.process_time else [])]
    for share in (8, 4, 2, 1):
        for part in ("step", "peak"):
            command = [sys.executable, __file__, str(folder), part]
            subprocess.run([*command, "--pictures", str(pictures // share), *more], check=True)


def step(folder: Path, pictures: int, repeats: int) -> None:
    """Add what `growth` lacks, in a process of its own."""
    before = len(grown(folder, "growth", 0))
    started = now()
    grown(folder, "growth", pictures)
    seconds = now() - started
    print(f"{pictures} pictures: {pictures - before} drawn and added in {seconds:.0f} s", end=", ")
    print(f"peak memory {memory()} MiB", flush=True)


def peak(folder: Path, pictures: int, repeats: int) -> None:
    """Search in what `growth` has, in a process of its own."""
    gallery = grown(folder, "growth", pictures)
    view, one = gallery.view(), scorer(gallery, queries(gallery, 1))
    gallery.search_run.images([_grey()])
    before = memory()
    seconds = median(lambda: scan(view, one, 100, Filter()), repeats)
    show(f"{pictures} pictures, one query", seconds, pictures / 1e6, "millions of pictures")
    print(f"  peak memory {memory()} MiB, {before} MiB of them before the scan", flush=True)


def memory() -> int:
    """The most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _grey() -> np.ndarray:
    return np.zeros((64, 32, 3), np.uint8)


PARTS: dict[str, Callable[[Path, int, int], None]] = {
    "scan": scans,
    "ann": neighbours,
    "add": adding,
    "maps": maps,
    "growth": growth,
    "step": step,
    "peak": peak,
}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
