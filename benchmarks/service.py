"""Measures `reid serve` on loopback beside the same work in a plain loop.

    uv run --all-groups python benchmarks/service.py RUN_DIR FOLDER --pictures 100000 --seconds 30

RUN_DIR is a trained run whose first matcher has one vector. A gallery of PICTURES random vectors is
made in FOLDER. In turns: a loop of `Gallery.search` with one picture, and 1, 8 and 32 clients, for
SECONDS each; then --requests requests, with the service's memory at each tenth of them.
"""

from __future__ import annotations

import argparse
import io
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image

from reid_gallery import Gallery
from reid_gallery.adding import commit, write
from reid_gallery.extraction import Extractor
from reid_gallery.rows import Entry
from reid_gallery.serve.client import Client
from reidcore.api import Row

SHARD = 20_000


def fill(gallery: Gallery, count: int) -> None:
    """Add random vectors."""
    search = gallery.search_run
    extractor = Extractor(
        search, gallery.origin, gallery.origin.extra(gallery.tables.open().schema)
    )
    for start in range(len(gallery), count, SHARD):
        places = range(start, min(start + SHARD, count))
        entries = [Entry(Row(f"/nowhere/{at}.png", "", str(at % 6), "gallery")) for at in places]
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for one in gallery.origin.columns:
            values = torch.randn(len(entries), *one.shape).to(getattr(torch, one.dtype))
            parts.setdefault(one.matcher, {})[one.key] = values
        with gallery.tables.writing():
            written = write(gallery.tables, gallery.origin, extractor.rows(entries, parts))
            commit(gallery.tables, gallery.origin, [written])


def pngs(count: int) -> list[bytes]:
    """Return pictures as a camera's program sends them."""
    found = []
    for seed in range(count):
        values = np.random.default_rng(seed).integers(0, 255, (128, 64, 3), np.uint8)
        content = io.BytesIO()
        Image.fromarray(values).save(content, "PNG")
        found.append(content.getvalue())
    return found


def loop(gallery: Gallery, pictures: list[bytes], seconds: float) -> float:
    """Return searches a second of a plain loop."""
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        gallery.search([Image.open(io.BytesIO(pictures[done % len(pictures)]))])
        done += 1
    return done / (time.perf_counter() - started)


def load(url: str, pictures: list[bytes], clients: int, seconds: float, most: int) -> list[float]:
    """Return the seconds of each request of several clients."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    def ask(place: int) -> None:
        with Client(url) as client:
            while (started := time.perf_counter()) < end and len(times) < most:
                client.search([pictures[(place + len(times)) % len(pictures)]])
                times.append(time.perf_counter() - started)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def spent(url: str) -> dict[str, float]:
    """Return the seconds for which the network and the search have worked."""
    text = httpx.get(f"{url}/metrics").text
    return {
        name: float(re.search(rf"^reid_{name}_seconds_sum (\S+)", text, re.M)[1])  # type: ignore[index]
        for name in ("model", "search")
    }


def memory(process: int) -> float:
    """Return a process's memory in MiB."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--port", type=int, default=8123)
    options = parser.parse_args()
    place = options.folder / "gallery"
    made = place.exists()
    gallery = (
        Gallery.open if made else lambda at, **more: Gallery.create(options.run, at, **more)
    )(place, device="cpu")
    fill(gallery, options.pictures)
    pictures = pngs(64)
    command = [sys.executable, "-m", "reidcore", "serve", str(place), "--device", "cpu"]
    process = subprocess.Popen([*command, "--rate", "0", "--port", str(options.port)])
    url = f"http://127.0.0.1:{options.port}"
    try:
        while True:
            try:
                httpx.get(f"{url}/v1/health").raise_for_status()
                break
            except httpx.TransportError:
                assert process.poll() is None
                time.sleep(0.2)
        load(url, pictures, 1, 2, 10)
        loop(gallery, pictures, 1)
        for clients in (1, 8, 32):
            plain = loop(gallery, pictures, options.seconds)
            before, started = spent(url), time.perf_counter()
            times = load(url, pictures, clients, options.seconds, 1 << 30)
            wall = time.perf_counter() - started
            cuts = statistics.quantiles(times, n=100)
            shares = {name: (spent(url)[name] - before[name]) / wall for name in before}
            print(
                f"{clients} clients: {len(times) / wall:.1f} requests/s, "
                f"{len(times) / wall / plain:.2f} of the loop's {plain:.1f}; ms "
                f"p50 {cuts[49] * 1e3:.0f}, p95 {cuts[94] * 1e3:.0f}, p99 {cuts[98] * 1e3:.0f}; "
                f"model {shares['model']:.0%}, search {shares['search']:.0%} of the time",
                flush=True,
            )
        sizes = []
        for _ in range(10):
            load(url, pictures, 8, 1e9, max(1, options.requests // 10))
            sizes.append(memory(process.pid))
        print("MiB at each tenth:", *(f"{size:.0f}" for size in sizes))
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
