"""Links of built pages that lead nowhere: to no file, or to no place of a page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The places of a page that links may lead to, and its own links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for key, value in attributes:
            if key in ("id", "name") and value:
                self.places.add(value)
            if key in ("href", "src") and value is not None:
                self.links.add(value)


def dead_links(html: Path) -> list[str]:
    """Return a line for every link of a folder's pages that leads nowhere, and for every picture or
    script that a page asks of another server."""
    pages = {path.resolve(): _Page(path.read_text("utf-8")) for path in html.rglob("*.html")}
    found = []
    for path, page in sorted(pages.items()):
        for link in sorted(page.links):
            parts = urlsplit(link)
            # 404.html is shown under any address, so that its links start at the root.
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            place = unquote(parts.fragment)
            if not to.is_file():
                found.append(f"{path.relative_to(html)}: {link} leads to no file")
            elif place and to in pages and place not in pages[to].places | {"__skip", "top"}:
                found.append(f"{path.relative_to(html)}: {link} leads to no place of that page")
    return found
