"""Every kind of answer has the headers that keep browsers safe."""

from __future__ import annotations

import attrs
import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from service_asking import TOKEN, number, problem
from serving import png

from reid_gallery.serve.app import create_app
from reid_gallery.serve.security import HEADERS

BURST = 100
"""Requests that a client of this file may make."""


@pytest.fixture(scope="module")
def app(settings, tmp_path_factory):
    state = str(tmp_path_factory.mktemp("state"))
    app = create_app(attrs.evolve(settings, state=state, rate=1e-6, burst=BURST))

    @app.get("/raises")
    async def raises() -> None:
        raise RuntimeError(f"broken in {__file__}")

    @app.get("/breaks-off")
    async def breaks_off() -> StreamingResponse:
        def parts():
            yield b"some"
            raise RuntimeError("broken amid the answer")

        return StreamingResponse(parts())

    return app


def client_of(app, address="testclient"):
    return TestClient(
        app,
        base_url="http://127.0.0.1",
        headers={"Authorization": f"Bearer {TOKEN}"},
        raise_server_exceptions=False,
        client=(address, 50000),
        follow_redirects=False,
    )


@pytest.fixture(scope="module")
def http(app):
    with client_of(app) as http:
        yield http


FORM = {"Content-Type": "multipart/form-data; boundary=x"}
ASKED = {
    "an answer": ("GET", "/v1/health", {}, 200),
    "the page": ("GET", "/", {}, 200),
    "numbers": ("GET", "/metrics", {}, 200),
    "a file": ("GET", "/static/page.js", {}, 200),
    "a file's head": ("HEAD", "/static/page.js", {}, 200),
    "to another path": ("GET", "/v1/health/", {}, 307),
    "to the login": ("GET", "/", {"headers": {"Authorization": "", "Accept": "text/html"}}, 303),
    "no form": ("POST", "/v1/search", {"headers": FORM, "content": b"nothing"}, 400),
    "no token": ("GET", "/v1/gallery", {"headers": {"Authorization": "Bearer wrong"}}, 401),
    "another host": ("GET", "/v1/health", {"headers": {"Host": "evil.example"}}, 403),
    "another site": ("POST", "/v1/search", {"headers": {"Origin": "http://evil"}}, 403),
    "no such path": ("GET", "/v1/nothing", {}, 404),
    "no such row": ("GET", "/v1/pictures/12345", {}, 404),
    "no such file": ("GET", "/static/nothing.js", {}, 404),
    "no such method": ("PUT", "/v1/search", {}, 405),
    "a head": ("HEAD", "/v1/gallery", {}, 405),
    "options": ("OPTIONS", "/v1/search", {}, 405),
    "a large body": ("POST", "/v1/search", {"content": b"\0" * (3 << 20)}, 413),
    "a large body of no length": ("POST", "/v1/search", {}, 413),
    "no picture": ("POST", "/v1/search", {"files": {"picture": b"text"}}, 415),
    "no such field": ("POST", "/v1/search", {"data": {"camra": "1"}}, 422),
    "work that raises": ("GET", "/raises", {}, 500),
    "an answer that breaks off": ("GET", "/breaks-off", {}, 200),
}


def assert_safe(found):
    assert {name: found.headers.get_list(name) for name in HEADERS} == {
        name: [value] for name, value in HEADERS.items()
    }


@pytest.mark.parametrize("kind", ASKED)
def test_every_answer_has_the_headers(http, settings, kind):
    method, path, more, status = ASKED[kind]
    if kind == "a large body of no length":
        more = {"headers": FORM, "content": (b"\0" * (1 << 16) for _ in range(40))}
    found = http.request(method, path, **more)
    assert found.status_code == status, found.text
    assert_safe(found)
    if status >= 400 and method != "HEAD":
        problem(found, status, settings)
    assert http.get("/v1/health").status_code == 200


def test_a_busy_service_and_too_many_requests(http, app, settings):
    with app.state.engine.places.take(settings.waiting):
        found = http.post("/v1/search", files={"picture": png()})
    problem(found, 503, settings)
    assert_safe(found)
    other = client_of(app, "other")
    answers = [other.get("/v1/nothing") for _ in range(BURST + 1)]
    problem(answers[-1], 429, settings)
    assert_safe(answers[-1])


def test_what_raises_is_counted_and_reaches_the_server(http, app):
    """The server, which writes it into its log, is given the error itself."""
    name = 'reid_requests_total{path="/raises",status="500"}'
    before = number(http, name)
    assert http.get("/raises").status_code == 500
    assert number(http, name) == before + 1
    loud = TestClient(app, base_url="http://127.0.0.1", headers=dict(http.headers))
    with pytest.raises(RuntimeError, match="broken in"):
        loud.get("/raises")
