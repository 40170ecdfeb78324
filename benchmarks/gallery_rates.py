"""Rates of a gallery on one processor core, and what a hundred million pictures take at them.

    OMP_NUM_THREADS=1 uv run --all-groups python benchmarks/gallery_rates.py

An OSNet x0.25 at 256x128 gives 512 numbers a picture, kept as float16. Times are seconds of the
processor, medians of several, so that other programs on the machine count little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from reid_gallery import Gallery
from reid_gallery.extraction import Extractor
from reid_gallery.filters import Filter
from reid_gallery.request import Request
from reid_gallery.rows import entries_of
from reid_gallery.scan import fragments_of
from reid_gallery.searching import Searcher, scan
from reidcore.tools import plan_run, train

RUN = """
format = 1
name = "rates"
[data]
train = { read = "core.demo", train_identities = 40, pictures = 14 }
image = [256, 128]
[backbone]
use = "core.osnet"
width = 0.25
[[matcher]]
name = "look"
use = "core.cosine"
features = ["backbone.fc"]
[train]
epochs = 0
"""
PICTURES = 10**8


def cost(work: Callable[[], object], times: int) -> float:
    """Return the median of the processor's seconds."""
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return statistics.median(found)


def fill(gallery: Gallery, rows: pa.Table, count: int) -> float:
    """Add rows of random vectors, 50,000 at a time; return the processor's seconds."""
    dice, spent = np.random.default_rng(0), 0.0
    (column,) = gallery.origin.columns
    step = len(rows)
    for start in range(0, count, step):
        vectors = dice.standard_normal((step, *column.shape), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        values = pa.array(vectors.astype(np.float16).reshape(-1))
        made = {
            "id": pa.array(np.arange(start, start + step)),
            column.name: pa.FixedSizeListArray.from_arrays(values, type=column.field.type),
        }
        for name, array in made.items():
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, rows.schema.field(place), array)
        begun = time.process_time()
        with gallery.tables.writing():
            written = gallery.tables.write(gallery.tables.pictures, rows)
            gallery.tables.append(gallery.tables.pictures, written)
        spent += time.process_time() - begun
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "run.toml").write_text(RUN)
        train(folder / "run.toml", folder / "run", check=False)
        gallery = Gallery.create(folder / "run", folder / "gallery", "float16", "cpu")
        search = gallery.search_run
        pictures = plan_run(folder / "run.toml").data.training_rows()
        entries = entries_of([row.path for row in pictures])[:256]
        extractor = Extractor(search, gallery.origin, pa.schema([]))
        extracted = cost(lambda: extractor.extract(entries), options.repeats) / len(entries)
        some = extractor.extract(entries).rows
        rows = some.take(pa.array(np.arange(50_000) % len(some)))
        written = fill(gallery, rows, options.rows) / options.rows
        files = [one for one in (folder / "gallery").rglob("*") if one.is_file()]
        size = sum(one.stat().st_size for one in files) / options.rows
        view = gallery.view()
        searcher = Searcher(search, view)
        table = searcher.table(None)
        seconds = {}
        for queries in (1, 100):
            query = search.templates([entry.row for entry in entries[:queries]])
            scorer = searcher._scorer(table, query)
            top = Request().top
            scan(view, scorer, top, Filter())  # reads the files once
            seconds[queries] = (
                cost(lambda s=scorer, t=top: scan(view, s, t, Filter()), options.repeats)
                / options.rows
            )
        print(f"{options.rows:,} rows in {len(fragments_of(view.dataset))} fragments, one core:")
        print(f"extraction         {1 / extracted:12,.0f} pictures/s")
        print(f"writing            {1 / written:12,.0f} rows/s")
        print(f"on disk            {size:12,.0f} bytes a row")
        for queries, each in seconds.items():
            print(f"scan, {queries:>3} queries  {1 / each:12,.0f} rows/s")
        print(f"{PICTURES:,} pictures:")
        print(f"on disk            {size * PICTURES / 1e9:12,.0f} GB")
        print(f"extraction         {extracted * PICTURES / 3600:12,.0f} core hours")
        print(f"writing            {written * PICTURES / 3600:12,.2f} core hours")
        for queries, each in seconds.items():
            print(f"scan, {queries:>3} queries  {each * PICTURES:12,.1f} core seconds")


if __name__ == "__main__":
    main()
