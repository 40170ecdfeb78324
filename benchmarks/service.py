"""Measures `reid serve` on loopback beside the same work in a plain loop.

    uv run --all-groups python benchmarks/service.py RUN_DIR FOLDER --pictures 100000 --seconds 30

RUN_DIR is a trained run whose first matcher has one vector. A gallery of PICTURES random vectors is
made in FOLDER. For 1, 8 and 32 clients: a loop of `Gallery.search` with one picture, and clients of
the service, in turns of five seconds, until each has had SECONDS; then --requests requests, with
the service's memory at each tenth of them. Clients are threads of this process. Since they share
the machine with the service, and both with whatever else runs, the processor's time of a request is
told beside the rates: the loop's, and the service's with its decoders.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import attrs
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
TURN = 5.0
"""Seconds of a turn."""


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


@attrs.define
class Turn:
    """What was done in a while: seconds of each request, and of the clock and the processor."""

    times: list[float] = attrs.field(factory=list)
    wall: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.times) / self.wall

    @property
    def cost(self) -> float:
        """Milliseconds of the processor's time for each request."""
        return self.cpu / max(1, len(self.times)) * 1e3


def loop(gallery: Gallery, pictures: list[bytes], seconds: float, turn: Turn) -> None:
    """Search in a plain loop for a while."""
    began, cpu = time.perf_counter(), time.process_time()
    while (started := time.perf_counter()) < began + seconds:
        content = pictures[len(turn.times) % len(pictures)]
        gallery.search([Image.open(io.BytesIO(content))])
        turn.times.append(time.perf_counter() - started)
    turn.wall += time.perf_counter() - began
    turn.cpu += time.process_time() - cpu


@attrs.frozen
class Service:
    """A service that is measured: where it listens, and its process."""

    url: str
    process: int

    def load(
        self, pictures: list[bytes], clients: list[Client], seconds: float, turn: Turn
    ) -> None:
        """Ask by several clients for a while."""
        began, cpu = time.perf_counter(), self.cpu()

        def ask(client: Client) -> None:
            while (started := time.perf_counter()) < began + seconds:
                client.search([pictures[len(turn.times) % len(pictures)]])
                turn.times.append(time.perf_counter() - started)

        threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        turn.wall += time.perf_counter() - began
        turn.cpu += self.cpu() - cpu

    def cpu(self) -> float:
        """Return seconds of the processor's time of the service and its decoders."""
        ticks = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                words = file.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if self.process in (int(file.parent.name), int(words[1])):
                ticks += int(words[11]) + int(words[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def spent(self) -> dict[str, float]:
        """Return the seconds for which the network and the search have worked."""
        text = httpx.get(f"{self.url}/metrics").text
        return {
            name: float(re.search(rf"^reid_{name}_seconds_sum (\S+)", text, re.M)[1])  # type: ignore[index]
            for name in ("model", "search")
        }

    def memory(self) -> float:
        """Return the memory of the service's process in MiB."""
        text = Path(f"/proc/{self.process}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def compare(
    service: Service, gallery: Gallery, pictures: list[bytes], count: int, seconds: float
) -> None:
    """Measure some clients beside the loop, and say what was found."""
    plain, served = Turn(), Turn()
    shares = {"model": 0.0, "search": 0.0}
    clients = [Client(service.url) for _ in range(count)]  # each takes a while to make
    while served.wall < seconds:
        loop(gallery, pictures, min(TURN, seconds), plain)
        before = service.spent()
        service.load(pictures, clients, min(TURN, seconds), served)
        for name, spent in service.spent().items():
            shares[name] += spent - before[name]
    cuts = np.quantile(served.times, (0.5, 0.95, 0.99)) * 1e3
    print(
        f"{count} clients: {served.rate:.1f} requests/s, {served.rate / plain.rate:.2f} of the "
        f"loop's {plain.rate:.1f}; {served.cost:.1f} ms of the processor a request, the loop "
        f"{plain.cost:.1f}; ms p50 {cuts[0]:.0f}, p95 {cuts[1]:.0f}, p99 {cuts[2]:.0f}; model "
        f"{shares['model'] / served.wall:.0%}, search {shares['search'] / served.wall:.0%} of "
        f"the time; {len(served.times)} requests",
        flush=True,
    )


def drain(service: Service, pictures: list[bytes], count: int) -> None:
    """Ask a number of requests by 32 clients."""
    left = iter(range(count))
    lock = threading.Lock()

    def ask() -> None:
        with Client(service.url) as client:
            while True:
                with lock:
                    number = next(left, None)
                if number is None:
                    return
                client.search([pictures[number % len(pictures)]])

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, nargs="*", default=(1, 8, 32))
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
        service = Service(url, process.pid)
        drain(service, pictures, 16)
        gallery.search([Image.open(io.BytesIO(pictures[0]))])
        for count in options.clients:
            compare(service, gallery, pictures, count, options.seconds)
        for tenth in range(11 if options.requests else 0):
            if tenth:
                drain(service, pictures, options.requests // 10)
            print(f"after {tenth} tenths: {service.memory():.0f} MiB", flush=True)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
