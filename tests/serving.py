"""A service in a process of its own, to be asked and killed."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from running import environment


@contextmanager
def served(folder: Path, cache: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Yields the address and the process of `reid serve` for a gallery; kills it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "reidcore", "serve", str(folder), "--port", str(port)]
    with open(folder.parent / "serve.log", "ab") as log:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--rate", "0", *options],
            env=environment(cache),
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait(url, process)
        yield url, process
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(url: str, process: subprocess.Popen, seconds: float = 300) -> None:
    """Waits until a service answers."""
    import httpx

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the service has ended"
        try:
            if httpx.get(f"{url}/v1/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("the service does not answer")


@contextmanager
def listening(app: Callable[..., Any]) -> Iterator[tuple[str, int]]:
    """Yields the address at which an app listens, served by a thread of this process."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service has ended"
            time.sleep(0.05)
        yield server.servers[0].sockets[0].getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(60)


def png(seed: int = 0, size: tuple[int, int] = (40, 80)) -> bytes:
    """A picture of noise."""
    import numpy as np
    from PIL import Image

    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(values).save(content, "PNG")
    return content.getvalue()


def until(true: Callable[[], bool], seconds: float = 300) -> None:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it has not become true"
        time.sleep(0.02)
