"""What a service refuses, and what it writes down."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket

import attrs
import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

from disks import files_of
from PIL import Image
from service_asking import ask, number, problem, running
from serving import listening, png, until

from reid_gallery import Gallery
from reid_gallery.serve.app import create_app
from reid_gallery.serve.audit import masked
from reid_gallery.serve.client import Client
from reid_gallery.serve.decoding import Decoders
from reid_gallery.serve.problems import Problem


def test_a_full_disk(http, settings):
    audit = max(settings.audit.glob("*.jsonl"), default=None)
    size = audit.stat().st_size if audit else 0
    rows = len(Gallery.open(settings.gallery, device="cpu"))
    files = sorted(settings.uploads.glob("**/*"))
    large = png(70, (150, 150))
    with files_of(size + 20_000):  # the log has room, the picture has none
        found = http.post("/v1/pictures", files={"picture": large})
        assert "room" in problem(found, 507, settings)
        assert ask(http, png(1)).status_code == 200
    with files_of(10):
        found = http.post("/v1/pictures", files={"picture": png(70)})
        assert "audit log" in problem(found, 507, settings)
        problem(ask(http, png(1)), 507, settings)
    assert len(Gallery.open(settings.gallery, device="cpu")) == rows
    assert sorted(settings.uploads.glob("**/*")) == files
    assert http.post("/v1/pictures", files={"picture": large}).status_code == 201


def test_bodies_without_a_length(http, settings):
    def endless():
        yield b"--x\r\nContent-Disposition: form-data; name=picture; filename=a\r\n\r\n"
        for _ in range(40):
            yield b"\0" * (1 << 16)
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    found = http.post("/v1/search", content=endless(), headers=headers)
    assert "bytes" in problem(found, 413, settings)
    assert ask(http, png(1)).status_code == 200


def test_limits_of_decoders(settings):
    """A decoder that takes too long, needs too much memory, or dies is replaced."""
    large = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(large, "PNG", compress_level=1)
    bounds = attrs.evolve(settings, decode_memory=300 << 20)

    async def refused(decoders, content):
        with pytest.raises(Problem) as error:
            await decoders.decode(content, 1)
        picture = (await decoders.decode(png(1), 1)).picture  # it decodes on
        assert picture.tobytes() == Image.open(io.BytesIO(png(1))).tobytes()
        return error.value.status, error.value.detail

    async def all_of_it():
        slow = Decoders(attrs.evolve(bounds, decode_seconds=60.0))
        status, said = await refused(slow, large.getvalue())
        assert status == 413 and "memory" in said
        (child,) = slow.running
        child.kill()
        status, said = await refused(slow, png(1))
        assert (status, said) == (415, "picture 1 cannot be decoded")
        await slow.close()
        quick = Decoders(attrs.evolve(bounds, decode_seconds=1.5))
        await quick.decode(png(1), 1)
        (child,) = quick.running
        os.kill(child.pid, signal.SIGSTOP)
        assert await refused(quick, png(1)) == (415, "picture 1 takes too long to decode")
        assert child not in quick.running
        await quick.close()

    asyncio.run(all_of_it())


def test_clients_that_hang_up(settings, tmp_path):
    own = attrs.evolve(settings, tokens={}, state=str(tmp_path))
    app = create_app(own)
    with listening(app) as place:
        content = png(1)
        body = (
            b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
            + content
            + b"\r\n--x--\r\n"
        )
        head = (
            f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        ).encode()
        for sent in (head, head + body[:500], head + body, head + body, b"POST /v1/sea"):
            with socket.create_connection(place) as connection:
                connection.sendall(sent)
        with Client("http://{}:{}".format(*place)) as client:
            found = client.search([content], top=3)
            assert found.answers[0].matches and client.health().status == "ok"
            until(lambda: app.state.engine.places.taken == 0)


def test_the_audit_log(settings, tmp_path):
    """It says who asked what, when, and how it ended; names of persons are masked; what is older
    than it is kept goes."""
    own = attrs.evolve(settings, state=str(tmp_path), audit_days=30)
    own.audit.mkdir(parents=True)
    (own.audit / "2001-01-01.jsonl").write_text("{}\n")
    with running(own) as http:
        ask(http, png(1), where="identity = 'Zoe O''Hara' OR time > 5")
        ask(http, png(1), where="nothing = 3")
        added = http.post("/v1/pictures", files={"picture": png(80)}, data={"identity": "Zoe"})
        rows = {"ids": added.json()["ids"]}
        http.post("/v1/label", json={**rows, "identity": "Ann"})
        http.post("/v1/forget", json=rows)
    (file,) = own.audit.iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    begun = {line["request"]: line for line in lines if "action" in line}
    ended = {line["request"]: line for line in lines if "status" in line}
    told = [
        (line["action"], line["who"], ended[request]["status"]) for request, line in begun.items()
    ]
    who = "ann@testclient"
    assert told == [
        ("search", who, 200), ("search", who, 422), ("add", who, 201), ("label", who, 200),
        ("forget", who, 200),
    ]  # fmt: skip
    assert all(ended[one]["time"] >= begun[one]["time"] for one in begun)
    last = list(ended.values())
    assert last[2]["ids"] == rows["ids"] and last[3]["rows"] == last[4]["rows"] == 1
    assert "Zoe" not in file.read_text() and "Ann" not in file.read_text()
    first = next(iter(begun.values()))
    assert first["where"] == "identity = '{}' OR time > 5".format(masked("Zoe O'Hara"))
    assert oct(file.stat().st_mode & 0o777) == "0o600"


def test_what_is_asked_wrongly_is_told(http, settings):
    assert "'camera'" in problem(ask(http, png(1), where="camrea = '1'"), 422, settings)
    assert "has no camera" in problem(ask(http, png(1), camera="nowhere"), 422, settings)
    assert "quotes" in problem(ask(http, png(1), where="identity = 'Zoe"), 422, settings)
    assert "'plain'" in problem(ask(http, png(1), ranking="plian"), 422, settings)
    problem(http.get("/v1/nothing"), 404, settings)
    problem(http.put("/v1/search"), 405, settings)
    problem(http.post("/v1/label", content=b"{"), 422, settings)
    problem(http.get("/v1/gallery", headers={"Authorization": "Bearer x"}), 401, settings)
    problem(http.get("/v1/pictures/5/thumbnail"), 404, settings)
    problem(http.get("/v1/gallery", headers={"Host": "[::"}), 403, settings)
    origin = {"Origin": "http://[::"}
    problem(http.post("/v1/forget", json={"ids": [1]}, headers=origin), 403, settings)


def test_names_that_a_path_does_not_have_are_told(http, settings):
    """A condition that is misspelt would be none, and its answer that of another question."""
    told = problem(ask(http, png(1), camra="gate"), 422, settings)
    assert "body.camra" in told and "did you mean 'camera'?" in told
    told = problem(
        http.post("/v1/pictures", files={"picture": png(1)}, data={"idenity": "A"}), 422, settings
    )
    assert "body.idenity" in told and "did you mean 'identity'?" in told
    told = problem(http.get("/v1/explain?query=1&match=2&veiw=x"), 422, settings)
    assert "query.veiw" in told and "did you mean 'view'?" in told
    for path in ("/v1/gallery?camera=1", "/v1/search?camera=1"):
        found = http.post(path, files={"picture": png(1)}) if "search" in path else http.get(path)
        assert "query.camera: there is no such field; there are none" in problem(
            found, 422, settings
        )
    assert ask(http, png(1), csrf_token="").status_code in (200, 403)  # a field of every form
    told = problem(http.post("/v1/label", json={"idenity": "A", "ids": [1]}), 422, settings)
    assert "body.idenity" in told


def test_numbers_for_prometheus(http, settings):
    names = {
        'reid_requests_total{path="/v1/search",status="200"}': 2,
        'reid_requests_total{path="/v1/search",status="422"}': 1,
        'reid_requests_total{path="/v1/pictures/{id}",status="404"}': 2,
        "reid_batch_pictures_sum": 4,
        "reid_model_seconds_count": 2,
        "reid_search_seconds_count": 2,
        'reid_request_seconds_count{path="/v1/search"}': 3,
    }
    before = {name: number(http, name) for name in names}
    ask(http, png(1))
    http.post("/v1/search", files=[("picture", png(seed)) for seed in range(3)])
    http.post("/v1/search", data={"top": "3"})
    for row in (5, 6):
        http.get(f"/v1/pictures/{row}")
    assert {name: number(http, name) - before[name] for name in names} == names
    assert number(http, "reid_waiting_pictures") == 0
