"""A headless Chromium that opens pages from disk, with everything it asks the network for kept."""

from __future__ import annotations

import html
import json
import shutil
import socket
import subprocess
import threading
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path

import attrs
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium; on Debian: apt-get install chromium"
)


QUIET = (
    "--no-first-run",
    "--no-pings",
    "--metrics-recording-only",
    "--disable-background-networking",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--disable-features=NetworkTimeServiceQuerying,OptimizationHints,MediaRouter",
)
"""Options that keep the browser from asking for things itself, whatever page it shows."""


def asked_by_pages(log: str) -> list[str]:
    """What pages have asked the network for, as "GET URL", from the browser's log of its network.

    A request that a page causes has an origin as its initiator, be it "null"; what the browser asks
    for itself, such as updates and the time, has none.
    """
    found = []
    for event in json.loads(log)["events"]:
        params = event.get("params", {})
        if params.get("initiator", "not an origin") != "not an origin":
            found.append(f"{params['method']} {params['url']}")
    return list(dict.fromkeys(found))


class Silence:
    """A proxy that takes every request and answers nothing, so that none leaves this machine."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                with suppress(OSError):
                    connection.recv(4096)

    def close(self) -> None:
        self._socket.close()


@attrs.frozen
class Opened:
    """What a page became. dom: its HTML after a while. requests: what it asked the network for."""

    dom: str
    requests: list[str]


def _run(profile: Path, page: Path, *options: str) -> Opened:
    silence = Silence()
    log = profile.with_name(f"{profile.name}-network.json")
    try:
        done = subprocess.run(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                *QUIET,
                f"--log-net-log={log}",
                # Everything goes to the proxy, this machine's own addresses too.
                f"--proxy-server=http://127.0.0.1:{silence.port}",
                "--proxy-bypass-list=<-loopback>",
                "--virtual-time-budget=4000",
                *options,
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        silence.close()
    assert done.returncode == 0, done.stderr
    return Opened(done.stdout, asked_by_pages(log.read_text()))


def opened(folder: Path, page: Path) -> Opened:
    """The page after its scripts, if it has any, have run. folder: for the browser's own files."""
    return _run(folder / "profile", page, "--dump-dom")


def screenshot(folder: Path, page: Path, dark: bool = False) -> Image.Image:
    """The top of the page, 1000 x 800, in light or dark mode."""
    target = folder / "shot.png"
    mode = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    _run(folder / "profile", page, f"--screenshot={target}", "--window-size=1000,800", mode)
    with Image.open(target) as file:
        return file.convert("RGB")


def width_of(folder: Path, page: Path, width: int) -> int:
    """How wide the page's content is in a window of this width, which scrolls where it is wider."""
    measured = folder / "measured.html"
    script = "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script>"
    measured.write_text(unguarded(page.read_text()) + script)
    outer = folder / "outer.html"
    outer.write_text(
        "<!doctype html><title>none</title>"
        "<script>onmessage = message => { document.title = message.data }</script>"
        f'<iframe src="{measured.name}" width="{width}" height="700"></iframe>'
    )
    return int(title_of(opened(folder, outer).dom))


def unguarded(page: str) -> str:
    """The page without the policy that keeps scripts and requests in."""
    start = page.index('<meta http-equiv="Content-Security-Policy"')
    return page[:start] + page[page.index(">", start) + 1 :]


def title_of(dom: str) -> str:
    start = dom.index("<title>") + len("<title>")
    return html.unescape(dom[start : dom.index("</title>", start)])


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attributes}))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@attrs.frozen
class Read:
    """A page's elements in order, and its text."""

    tags: list[tuple[str, dict[str, str]]]
    text: str

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def pictures(self) -> list[dict[str, str]]:
        """Pictures of the test set, in order."""
        return [one for one in self.all("span") if one.get("role") == "img"]


def read(page: str) -> Read:
    reader = _Reader()
    reader.feed(page)
    return Read(reader.tags, " ".join(" ".join(reader.text).split()))
