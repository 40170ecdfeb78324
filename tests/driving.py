"""A headless Chromium that is driven: it drops, clicks and types, and all it asks for is kept."""

from __future__ import annotations

import base64
import mimetypes
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

    def search(self) -> None:
        """Presses Search and waits for what is found."""
        with self.page.expect_response(lambda answer: answer.request.method == "POST"):
            self.page.click("#search")
        self.page.wait_for_selector("#results:not(.waiting) #summary")

    def ids(self) -> list[int]:
        """The gallery's pictures that are shown, by their ids."""
        cards = self.page.query_selector_all(".card")
        return [int(one.get_attribute("data-id")) for one in cards]

    def until(self, condition: str, seconds: float = 60) -> None:
        """Waits until a condition in JavaScript holds. Playwright's own way needs a page whose
        policy lets texts be run."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(50)

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


def found(client: Any, *files: Any, **asked: Any) -> list[int]:
    """The ids that a service finds, by its client, for files of one person."""
    answers = client.search(files, together=True, **asked).answers
    return [match.id for match in answers[0].matches]
