"""The service answers as the gallery does, refuses what it should, and loses nothing."""

from __future__ import annotations

import io
import json

import attrs
import numpy as np
import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

import httpx
from fastapi.testclient import TestClient
from PIL import Image
from serving import png, served

from reid_gallery import Gallery
from reid_gallery.rows import Entry
from reid_gallery.serve.app import create_app
from reid_gallery.serve.client import Client, ServiceError
from reid_gallery.serve.settings import Settings, digest, read_tokens
from reidcore.api import Row
from reidcore.errors import UsageError

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def settings(work, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    gallery = Gallery.create(work / "run", folder / "g", device="cpu")
    gallery.add(work / "gallery.csv")
    # A busy machine takes seconds to start what decodes pictures.
    state = str(folder / "state")
    return Settings(str(folder / "g"), state, device="cpu", rate=0, decode_seconds=100)


@pytest.fixture(scope="module")
def http(settings):
    with TestClient(
        create_app(settings), base_url="http://127.0.0.1", raise_server_exceptions=False
    ) as http:
        yield http


@pytest.fixture(scope="module")
def client(http):
    return Client(http=http)


def pictures(work):
    return sorted((work / "drawn").rglob("query/*.*"))[:5]


def same(match, other):
    """Whether a match of the service is one of the gallery's, to the last bit."""
    names = ("rank", "id", "distance", "probability", "camera", "time", "identity", "columns")
    return all(getattr(match, name) == getattr(other, name) for name in names)


@pytest.mark.parametrize("ranking", ["plain", "fused", "short", "again"])
def test_answers_are_the_gallerys(client, settings, work, ranking):
    files = [row["path"] for row in rows(work)][:3]
    gallery = Gallery.open(settings.gallery, device="cpu")
    asked = {"ranking": ranking, "top": 4, "camera": ["1", "2"], "where": "speed > 1"}
    for file in files:
        (expected,) = gallery.search([file], **asked)
        (found,) = client.search([file], **asked).answers
        assert expected.matches
        assert len(found.matches) == len(expected.matches)
        assert all(map(same, found.matches, expected.matches))


def test_columns_of_older_galleries_hide_no_scores(work, trained, tmp_path):
    """Those that have names of an answer's own fields stand among the columns, and in JSON lines
    the scores win."""
    cells = {"rank": "last", "distance": "far", "probability": "no", "columns": "five"}
    place = tmp_path / "g"
    gallery = Gallery.create(work / "run", place, device="cpu")
    gallery._search = trained
    gallery.add([Entry(Row(str(path), "", "1"), cells) for path in pictures(work)[:2]])
    query = str(pictures(work)[2])
    expected = gallery.search([query])[0].matches
    assert [match.columns for match in expected] == [cells, cells]
    lines = [match.table() for match in expected]
    assert [line["rank"] for line in lines] == [1, 2]
    for line, match in zip(lines, expected, strict=True):
        assert line["distance"] == pytest.approx(match.distance)
        assert line["probability"] == pytest.approx(match.probability)
    asked = Settings(str(place), str(tmp_path / "state"), device="cpu", decode_seconds=100)
    with TestClient(create_app(asked), base_url="http://127.0.0.1") as http:
        found = Client(http=http).search([query]).answers[0].matches
    for match, other in zip(found, expected, strict=True):
        assert (match.id, match.rank, match.columns) == (other.id, other.rank, cells)
        assert match.distance == pytest.approx(other.distance, abs=1e-5)
        assert match.probability == pytest.approx(other.probability, abs=1e-4)


def rows(work):
    import csv

    with open(work / "query.csv") as file:
        return [{**row, "path": work / row["path"]} for row in csv.DictReader(file)]


def test_search_by_row_leaves_it_out(client, settings):
    gallery = Gallery.open(settings.gallery, device="cpu")
    first = gallery.tables.open().to_table(columns=["id", "source"]).to_pylist()[0]
    (expected,) = gallery.search([first["source"]], top=3)
    (found,) = client.search(ids=[first["id"]], top=3).answers
    assert all(map(same, found.matches, expected.matches))
    assert first["id"] not in [match.id for match in found.matches]


def test_times_and_strangers(client, settings, work):
    gallery = Gallery.open(settings.gallery, device="cpu")
    file = rows(work)[0]["path"]
    asked = {"after": 200, "before": 700, "unknown_above": 0.9999, "top": 50}
    (expected,) = gallery.search([file], **asked)
    (found,) = client.search([file], **asked).answers
    assert found.unknown == expected.unknown
    assert all(map(same, found.matches, expected.matches)) and len(found.matches) > 1
    assert all(200 <= match.time < 700 for match in found.matches)


def test_a_tracklet_has_one_answer(client, work):
    """Each row counts by the nearest of the pictures, and is there once."""
    files = [row["path"] for row in rows(work)][:3]
    apart = client.search(files, top=1000).answers
    (found,) = client.search(files, top=4, together=True).answers
    nearest = {}
    for match in (match for answer in apart for match in answer.matches):
        nearest[match.id] = min(nearest.get(match.id, 9.0), match.distance)
    assert [match.rank for match in found.matches] == [1, 2, 3, 4]
    assert [match.distance for match in found.matches] == pytest.approx(
        sorted(nearest.values())[:4], abs=2e-6
    )
    assert len({match.id for match in found.matches}) == 4


def test_a_box_is_cut_out(client, settings, work):
    file = rows(work)[0]["path"]
    with Image.open(file) as picture:
        cut = picture.convert("RGB").crop((2, 3, 20, 40))
    content = io.BytesIO()
    cut.save(content, "PNG")
    boxed = client.search([file], box=["2 3 20 40"], top=3)
    assert boxed == client.search([content.getvalue()], top=3)
    assert boxed != client.search([file], top=3)


def test_add_label_forget(http, client, settings):
    """What is added is found; what is forgotten is gone, with its file and from every byte."""
    added = client.add([png(7)], camera="9", time=5, identity="Zoe")
    again = client.add([png(7)], camera="9")
    assert (added.added, again.added, again.skipped) == (1, 0, 1) and added.ids == again.ids
    (id,) = added.ids
    assert client.picture(id).identity == "Zoe"
    (found,) = client.search([png(7)], camera="9").answers
    assert found.matches[0].id == id
    assert client.label(ids=[id], identity="Ann") == 1
    assert client.search([png(7)], where="identity = 'Ann'").answers[0].matches[0].id == id
    assert Image.open(io.BytesIO(client.thumbnail(id, 32))).height <= 32
    assert Image.open(io.BytesIO(client.explain(id, id))).format == "PNG"
    drawn = http.post("/v1/explain", files={"picture": png(7)}, data={"match": id})
    views = json.loads(drawn.headers["x-views"])
    assert json.loads(drawn.headers["x-view"]) in views
    assert client.explain_upload(png(7), id, view=views[-1], box="") == drawn.content
    for change in ({"box": "2 3 20 40"}, {"ranking": "pairs"}):
        other = client.explain_upload(png(7), id, **change)
        assert Image.open(io.BytesIO(other)).format == "PNG" and other != drawn.content
    with pytest.raises(ServiceError, match="did you mean 'pairs'"):
        client.explain_upload(png(7), id, ranking="pair")
    (gone,) = client.add([png(8)]).ids
    assert client.remove(ids=[gone]) == 1 and client.remove(ids=[gone]) == 0
    assert gone not in [one.id for one in client.search([png(8)], top=50).answers[0].matches]
    assert len(list(settings.uploads.iterdir())) == 1
    assert client.forget(identity="Ann") == 1
    assert list(settings.uploads.iterdir()) == []
    with pytest.raises(ServiceError) as error:
        client.picture(id)
    assert error.value.status == 404
    log = "".join(file.read_text() for file in settings.audit.glob("*.jsonl"))
    actions = [json.loads(line).get("action") for line in log.splitlines()]
    assert {"add", "label", "search", "explain", "forget"} <= set(actions)
    assert "Ann" not in log and "Zoe" not in log


def test_bad_input_is_told(http, client, settings):
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    gif = io.BytesIO()
    Image.new("RGB", (9, 9)).save(gif, "GIF")
    noise = np.random.default_rng(0).bytes(2 << 20)
    cases = [
        ({"data": {"top": "3"}}, 422),
        ({"files": {"picture": noise}}, 415),
        ({"files": {"picture": bomb.getvalue()}}, 413),
        ({"files": {"picture": gif.getvalue()}}, 415),
        ({"files": {"picture": png()[:900]}}, 415),
        ({"files": {"picture": b""}}, 415),
        ({"files": [("picture", png())] * 17}, 413),
        ({"files": {"picture": png()}, "data": {"where": "nothing = 3"}}, 422),
        ({"files": {"picture": png()}, "data": {"where": "speed / 0 = 1"}}, 422),
        ({"files": {"picture": png()}, "data": {"where": "camera = :p"}}, 422),
        ({"files": {"picture": png()}, "data": {"camera": "nowhere"}}, 422),
        ({"files": {"picture": png()}, "data": {"box": "9 9 1 1"}}, 422),
        ({"files": {"picture": png()}, "data": {"box": "900 900 910 910"}}, 415),
        ({"data": {"id": "5"}}, 404),
    ]
    for asked, status in cases:
        found = http.post("/v1/search", **asked)
        assert found.status_code == status, (asked.get("data"), found.text)
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json()["status"] == status and settings.gallery not in found.text
    assert http.post("/v1/forget", json={}).status_code == 422
    for where in ("1=1) OR (1=1", "/* ( */ true) OR (true /* ) */"):
        refused = http.post("/v1/remove", json={"ids": [3], "where": where})
        assert refused.status_code == 422 and refused.json()["detail"].startswith("where ")
    assert client.search([png()]).answers  # it lives on


def test_browsers_of_other_sites_are_refused(http):
    files = {"picture": png()}
    assert (
        http.post("/v1/search", files=files, headers={"Origin": "http://evil"}).status_code == 403
    )
    assert http.get("/v1/gallery", headers={"Host": "evil.example"}).status_code == 403
    own = {"Origin": "http://127.0.0.1"}
    assert http.post("/v1/search", files=files, headers=own).status_code == 403
    page = http.get("/")
    token = page.text.split('name="csrf-token" content="')[1].split('"')[0]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    headers = {**own, "X-CSRF-Token": token}
    assert http.post("/v1/search", files=files, headers=headers).status_code == 200
    form = {"csrf_token": token}
    assert http.post("/v1/search", files=files, data=form, headers=own).status_code == 200
    http.cookies.clear()


@pytest.mark.parametrize(
    "name, asked",
    [
        ("Camera-PC.Example", "camera-pc.example:8443"),
        ("camera-pc.example", "CAMERA-PC.EXAMPLE."),
        ("camera-pc.example.", "camera-pc.example"),
        ("2001:DB8:0::1", "[2001:db8::1]:8000"),
        ("[::2]", "[::2]"),
    ],
)
def test_a_host_goes_by_its_name_however_it_is_written(settings, name, asked):
    http = TestClient(create_app(attrs.evolve(settings, hosts=(name,))))
    assert http.get("/static/page.js", headers={"Host": asked}).status_code == 200
    assert http.get("/static/page.js", headers={"Host": "other.example"}).status_code == 403


@pytest.mark.parametrize(
    "name",
    [
        "cam.example:8443",
        "https://cam.example",
        "cam.example/reid",
        "me@cam",
        "",
        "a b",
        "b\u00fcro",
    ],
)
def test_a_name_by_which_no_request_goes_is_refused(settings, name):
    with pytest.raises(UsageError, match="expected a host's name") as refused:
        attrs.evolve(settings, hosts=(name,))
    assert repr(name) in str(refused.value)


def test_a_byte_order_mark_is_no_part_of_a_token(tmp_path):
    (tmp_path / "tokens").write_text(f"{TOKEN}\n", "utf-8-sig")
    assert read_tokens(str(tmp_path / "tokens")) == {"token": digest(TOKEN)}


def test_tokens_and_rates(settings):
    guarded = attrs.evolve(settings, tokens={"ann": digest(TOKEN)}, rate=1e-3, burst=12)
    with TestClient(create_app(guarded), base_url="http://127.0.0.1") as http:
        assert http.get("/v1/gallery").status_code == 401
        assert http.get("/metrics").status_code == 401
        wrong = {"Authorization": "Bearer wrong"}
        assert http.get("/v1/gallery", headers=wrong).status_code == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert http.get("/v1/gallery", headers=right).status_code == 200
        page = http.get("/login").text
        field = page.split('name="csrf_token" value="')[1].split('"')[0]
        data = {"token": TOKEN, "csrf_token": field}
        assert http.post("/login", data=data, follow_redirects=False).status_code == 303
        assert http.get("/v1/gallery").status_code == 200
        answers = [http.get("/v1/health") for _ in range(12)]
        assert answers[-1].status_code == 429 and int(answers[-1].headers["retry-after"]) >= 1


def test_numbers(http, client):
    client.health()
    text = http.get("/metrics").text
    assert 'reid_requests_total{path="/v1/health",status="200"}' in text


def test_the_walk(work, settings, tmp_path, monkeypatch):
    """The commands of docs/service.md are understood by a service."""
    import re
    import shutil
    import subprocess
    from pathlib import Path

    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    text = (Path(__file__).parents[3] / "docs" / "service.md").read_text()
    commands = re.findall(r"^\$ (curl .*)$", text, re.MULTILINE)
    assert len(commands) == 4
    shutil.copy(rows(work)[0]["path"], tmp_path / "new.jpg")
    shutil.copytree(settings.gallery, tmp_path / "gallery")
    with served(tmp_path / "gallery", work / "cache") as (url, _):
        said = [
            json.loads(
                subprocess.check_output(
                    ["sh", "-c", command.replace("http://127.0.0.1:8000", url)], cwd=tmp_path
                )
            )
            for command in commands
        ]
        shake = {
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }  # fmt: skip
        refused = httpx.get(f"{url}/v1/nothing", headers=shake)
    assert said[0]["status"] == "ok"
    assert refused.status_code == 404 and refused.headers["x-frame-options"] == "DENY"
    assert [match["camera"] for match in said[1]["answers"][0]["matches"]] == ["1"] * 3
    assert (said[2]["added"], said[3]["rows"]) == (1, 1)
    log = (tmp_path / "serve.log").read_text()
    start = log.index(f"loading {tmp_path / 'gallery'} and its run ...")
    assert start < log.index(f"Uvicorn running on {url}")
    assert "fork-safe" not in log  # uvloop forks for decoders, which have no Lance


def test_other_addresses_need_a_token(settings, capsys):
    from reidcore.cli.main import main

    assert main(["serve", settings.gallery, "--host", "0.0.0.0"]) == 2
    assert "--token-file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "asked, said",
    [
        (["--port", "70000"], "--port is 70000, expected 0 to 65535"),
        (["--rate", "-1"], "--rate is -1.0, expected a number of at least 0"),
        (["--rate", "nan"], "--rate is nan"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--name", "cam.example:8443"], "is 'cam.example:8443', expected a host's name"),
    ],
)
def test_what_does_not_fit_is_told(settings, capsys, asked, said):
    from reidcore.cli.main import main

    assert main(["serve", settings.gallery, *asked]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a|b", "\u0141ukasz", "a;b"])
def test_a_name_that_no_cookie_holds_is_refused(tmp_path, name):
    (tmp_path / "tokens").write_text(f"{name} {TOKEN}\n", "utf-8")
    with pytest.raises(UsageError, match="tokens line 1: the name is"):
        read_tokens(str(tmp_path / "tokens"))
