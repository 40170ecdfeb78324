"""A headless Chromium that is driven: it drops, clicks and types, and all it asks for is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from browser import CHROMIUM, QUIET

PUT = """async (files) => {
  const held = new DataTransfer();
  for (const [name, kind, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    held.items.add(new File([bytes], name, { type: kind }));
  }
  return held;
}"""
"""Makes what a drop or a paste carries."""


@contextmanager
def served_here(settings: Any) -> Iterator[str]:
    """Yields the address of a service in a thread of this process, which has torch already."""
    import uvicorn

    from reid_gallery.serve.app import create_app

    config = uvicorn.Config(create_app(settings), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + 200
        while not server.started:
            assert thread.is_alive() and time.monotonic() < end, "the service did not start"
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def chromium() -> Iterator[Any]:
    """Yields a browser of Playwright's, the system's own Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *QUIET], timeout=120_000
        )
        yield browser
        browser.close()


@attrs.define
class Driven:
    """A page with what it has asked for, and what went wrong in it, messages of its policy too."""

    page: Any
    requests: list[str] = attrs.field(factory=list)
    faults: list[str] = attrs.field(factory=list)

    def drop(self, *files: Path) -> None:
        """Drops files on the page."""
        self._put("drop", files)

    def paste(self, *files: Path) -> None:
        """Pastes files."""
        self._put("paste", files)

    def _put(self, kind: str, files: tuple[Path, ...]) -> None:
        import base64
        import mimetypes

        content = [
            [
                file.name,
                mimetypes.guess_type(file.name)[0] or "",
                base64.b64encode(file.read_bytes()).decode(),
            ]
            for file in files
        ]
        held = self.page.evaluate_handle(PUT, content)
        made = {"drop": "DragEvent", "paste": "ClipboardEvent"}[kind]
        key = {"drop": "dataTransfer", "paste": "clipboardData"}[kind]
        self.page.evaluate(
            f"(held) => document.body.dispatchEvent(new {made}("
            f"'{kind}', {{ {key}: held, bubbles: true, cancelable: true }}))",
            held,
        )

    def width(self) -> int:
        """How wide the page is, which scrolls where it is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth"))


@contextmanager
def driven(browser: Any, address: str, **options: Any) -> Iterator[Driven]:
    """Yields an opened page. options: of Playwright's context, such as color_scheme."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(60_000)
    found = Driven(context.new_page())
    context.on("request", lambda request: found.requests.append(request.url))
    found.page.on("pageerror", lambda error: found.faults.append(str(error)))
    found.page.on("dialog", lambda dialog: found.faults.append(dialog.message))
    found.page.on(
        "console",
        lambda told: found.faults.append(told.text) if told.type == "error" else None,
    )
    found.page.goto(address)
    yield found
    context.close()
