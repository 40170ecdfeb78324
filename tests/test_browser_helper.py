"""The browser of the report's tests: what a page asks for counts, what the browser asks for does
not."""

from __future__ import annotations

import json

from browser import asked_by_pages, needs_chromium, opened

ASKING = """<title>t</title><img src="http://outside.example/picture.png">
<style>body { background: url(http://outside.example/style.png) }</style>
<iframe src="https://outside.example/frame"></iframe>
<script>
fetch("http://outside.example/fetched").catch(() => 0)
navigator.sendBeacon("http://outside.example/beacon")
new WebSocket("ws://outside.example/socket")
</script>"""


def test_only_requests_with_an_initiator_are_a_pages():
    """An update of the browser and the document itself have none."""
    page = {"method": "GET", "url": "http://outside.example/x", "initiator": "null"}
    own = {"method": "POST", "url": "http://update.googleapis.com/", "initiator": "not an origin"}
    events = [{"params": one} for one in (page, page, own, {"url": "file:///page.html"})]
    log = json.dumps({"events": [{"type": 1}, *events]})
    assert asked_by_pages(log) == ["GET http://outside.example/x"]


@needs_chromium
def test_every_way_of_asking_counts(tmp_path):
    """Also those of frames, styles, scripts and sockets; a page that asks for nothing has none."""
    page = tmp_path / "page.html"
    page.write_text(ASKING)
    requests = " ".join(opened(tmp_path, page).requests)
    for word in ("picture.png", "style.png", "frame", "fetched", "beacon", "socket"):
        assert f"//outside.example/{word}" in requests, word
    page.write_text("<title>nothing</title>")
    assert opened(tmp_path, page).requests == []
