"""Asks a service that runs in the test's process, and compares what it says."""

from __future__ import annotations

import io
import os
import re
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from reid_gallery import Gallery
from reid_gallery.serve.app import create_app

TOKEN = "a-token-that-nobody-guesses"


@contextmanager
def running(settings):
    """A client's connection to a service that runs in this process."""
    headers = {"Authorization": f"Bearer {TOKEN}"} if settings.tokens else {}
    with TestClient(
        create_app(settings),
        base_url="http://127.0.0.1",
        headers=headers,
        raise_server_exceptions=False,
    ) as http:
        yield http


def ask(http, content, **asked):
    return http.post("/v1/search", files={"picture": content}, data={"top": "3", **asked})


def problem(found, status, settings):
    """What a problem says, which is one of RFC 9457 and tells nothing of the host."""
    assert found.status_code == status, found.text
    assert found.headers["content-type"] == "application/problem+json"
    said = found.json()
    assert said["status"] == status and said["title"] and said["type"]
    assert os.path.dirname(settings.gallery) not in found.text and "Traceback" not in found.text
    return said["detail"]


def expected(settings, contents):
    """The gallery's own answers."""
    gallery = Gallery.open(settings.gallery, device="cpu")
    return [gallery.search([Image.open(io.BytesIO(one))], top=3)[0].matches for one in contents]


def like(found, matches):
    """Whether an answer is the gallery's, but for digits that depend on who is asked with it."""
    (answer,) = found.json()["answers"]
    assert [one["id"] for one in answer["matches"]] == [one.id for one in matches]
    distances = [one["distance"] for one in answer["matches"]]
    assert distances == pytest.approx([one.distance for one in matches], abs=2e-6)
    return True


def number(http, name):
    """One of the numbers for Prometheus, 0 where it is not told."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0
