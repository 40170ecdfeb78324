"""What goes wrong around a service: it says what, answers the others rightly, and lives."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import attrs
import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

from disks import files_of
from fastapi.testclient import TestClient
from gallery_runs import other_run
from PIL import Image
from serving import listening, png

from reid_gallery import Gallery
from reid_gallery.serve.app import create_app
from reid_gallery.serve.audit import masked
from reid_gallery.serve.client import Client
from reid_gallery.serve.decoding import Decoders
from reid_gallery.serve.problems import Problem
from reid_gallery.serve.settings import Settings, digest

FULL = 8
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


@pytest.fixture(scope="module")
def settings(work, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    Gallery.create(work / "run", folder / "g", device="cpu").add(work / "gallery.csv")
    return Settings(
        str(folder / "g"),
        str(folder / "state"),
        device="cpu",
        rate=0,
        waiting=FULL,
        picture_bytes=200_000,
        pictures=4,
        tokens={"ann": digest(TOKEN)},
    )


@pytest.fixture(scope="module")
def http(settings):
    with running(settings) as http:
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


def until(true):
    """Waits until something is true."""
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def together(http, contents):
    """The answers to requests that are embedded as one batch: the network is busy with another
    picture until all of them wait."""
    engine = http.app.state.engine
    entered, gate = threading.Event(), threading.Event()

    def linger(network, given):
        entered.set()
        gate.wait(120)

    hook = engine.gallery.search_run.model.register_forward_pre_hook(linger)
    with ThreadPoolExecutor(1 + len(contents)) as pool:
        try:
            pool.submit(ask, http, png())
            assert entered.wait(120)
            asked = [pool.submit(ask, http, one) for one in contents]
            until(lambda: engine.embedding.waiting == len(contents))
        finally:
            gate.set()
            hook.remove()
        return [one.result() for one in asked]


def number(http, name):
    """One of the numbers for Prometheus, 0 where it is not told."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_one_queue_that_is_bounded(http, settings):
    contents = [png(seed) for seed in range(4)]
    before = number(http, "reid_search_seconds_count")
    for found, matches in zip(together(http, contents), expected(settings, contents), strict=True):
        assert found.status_code == 200 and like(found, matches)
    # One may have been taken before the others came; the rest is one search.
    assert number(http, "reid_search_seconds_count") - before <= 2
    with http.app.state.engine.places.take(FULL - 1):
        assert ask(http, png()).status_code == 200
        found = http.post("/v1/search", files=[("picture", png())] * 2)
        assert "wait" in problem(found, 503, settings) and int(found.headers["retry-after"]) >= 1
    assert ask(http, png()).status_code == 200
    assert http.app.state.engine.places.taken == 0


def test_a_picture_on_which_the_network_fails(http, settings):
    """It alone fails; those that are embedded with it are answered as ever."""
    black = io.BytesIO()
    Image.new("RGB", (40, 80)).save(black, "PNG")
    contents = [png(1), png(2), black.getvalue(), png(3)]

    def fail(network, given):
        pixels = given[0].pixels.flatten(2)
        if bool((pixels.amax(2) == pixels.amin(2)).any()):
            raise RuntimeError(f"broken in {__file__}")

    hook = http.app.state.engine.gallery.search_run.model.register_forward_pre_hook(fail)
    try:
        answers = together(http, contents)
    finally:
        hook.remove()
    problem(answers.pop(2), 500, settings)
    matches = expected(settings, [contents[0], contents[1], contents[3]])
    assert all(map(like, answers, matches))
    assert ask(http, black.getvalue()).status_code == 200


def test_a_network_that_gives_too_few(http, settings):
    """It is refused: else one would be shown who is on another's picture."""

    def drop(network, given, features):
        return {name: value[1:] for name, value in features.items()}

    hook = http.app.state.engine.gallery.search_run.model.register_forward_hook(drop)
    try:
        answers = together(http, [png(1), png(2), png(3)])
    finally:
        hook.remove()
    for found in answers:
        problem(found, 500, settings)
    assert ask(http, png(1)).status_code == 200


def test_an_upgrade_drops_no_request(settings, work, tmp_path):
    """Requests go on while another program extracts all anew by another run."""
    import shutil

    shutil.copytree(settings.gallery, tmp_path / "g")
    own = attrs.evolve(settings, gallery=str(tmp_path / "g"), state=str(tmp_path / "state"))
    answers, done = [], threading.Event()
    with running(own) as http, ThreadPoolExecutor(3) as pool:

        def go_on():
            while not done.is_set():
                answers.append(ask(http, png(1)))

        asking = [pool.submit(go_on) for _ in range(3)]
        other = other_run(work, tmp_path / "other")
        Gallery.open(own.gallery, device="cpu").upgrade(other)
        after = len(answers)
        while len(answers) < after + 6 and not any(one.done() for one in asking):
            time.sleep(0.01)
        done.set()
        for one in asking:
            one.result()
        assert [one.status_code for one in answers] == [200] * len(answers)
        last = ask(http, png(1))
        assert like(last, expected(own, [png(1)])[0])
        assert last.json() != answers[0].json()


def test_a_table_that_is_compacted_and_forgets(http, settings):
    """Searches go on, and find the same, while rows of another camera come, go, and are erased."""
    gallery = Gallery.open(settings.gallery, device="cpu")
    known = gallery.info()["cameras"]
    first = ask(http, png(1), camera=known)
    answers, done = [], threading.Event()

    def go_on():
        while not done.is_set():
            answers.append(ask(http, png(1), camera=known))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(go_on) for _ in range(2)]
        for round in range(3):
            found = http.post(
                "/v1/pictures", files={"picture": png(50 + round)}, data={"camera": "passing"}
            )
            assert found.json()["added"] == 1
            gallery.compact()
            assert gallery.forget(camera="passing") == 1
        done.set()
        for one in asking:
            one.result()
    assert answers and all(one.json() == first.json() for one in answers)


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
    bounds = attrs.evolve(settings, decoders=1, decode_memory=300 << 20)

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
            end = time.monotonic() + 60
            while app.state.engine.places.taken and time.monotonic() < end:
                time.sleep(0.05)
        assert app.state.engine.places.taken == 0


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
