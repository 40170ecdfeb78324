"""A service in a process of its own, to be asked and killed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def wait(url: str, process: subprocess.Popen, seconds: float = 120) -> None:
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
