"""Killed workers, kills during adds, and requests that nobody would send."""

from __future__ import annotations

import io
import os
import signal
import threading
from pathlib import Path

import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

import httpx
from PIL import Image
from serving import png, served, until

from reid_gallery import Gallery
from reid_gallery.serve.client import Client, ServiceError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture
def place(work, trained, tmp_path):
    gallery = Gallery.create(work / "run", tmp_path / "g", device="cpu")
    gallery.add(work / "gallery.csv")
    return tmp_path / "g"


def children(pid):
    """The processes whose parent is this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, ValueError):
            continue
    return found


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def workers_of(process):
    """The workers that a service has, be they ready or not."""
    return [one for one in children(process.pid) if b"spawn_main" in command_of(one)]


def decodes(worker):
    """Whether a worker has been given a picture."""
    return any(b"serve.decoder" in command_of(one) for one in children(worker))


def kill_one(process, right):
    """Kills a worker of two that both answer; the other goes on, and another takes its place."""
    until(lambda: len(workers_of(process)) == 2 and all(map(decodes, workers_of(process))))
    killed = workers_of(process)[0]
    os.kill(killed, signal.SIGKILL)
    before = len(right)
    until(lambda: len(right) >= before + 5)
    until(lambda: killed not in workers_of(process) and len(workers_of(process)) == 2)


def test_a_killed_worker(place, work):
    """Requests get the right answer or none while workers are killed, and the service lives on."""
    query = png(1)
    (expected,) = Gallery.open(place, device="cpu").search([Image.open(io.BytesIO(query))], top=3)
    wrong, right, lost = [], [], []
    done = threading.Event()

    def ask(url):
        while not done.is_set():
            with Client(url) as client:
                try:
                    found = client.search([query], top=3).answers[0].matches
                except (httpx.TransportError, ServiceError) as error:
                    lost.append(error)
                    continue
            same = [(one.id, one.distance) for one in found] == [
                (one.id, one.distance) for one in expected.matches
            ]
            (right if same else wrong).append(found)

    with served(place, work / "cache", "--workers", "2", "--together", "1") as (url, process):
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            kill_one(process, right)
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong and right
    print(len(right), "right,", len(lost), "without an answer")
    assert len(lost) < 20


def test_several_workers(place, work):
    """What one worker has added all of them find at once; their numbers are added up."""
    with served(place, work / "cache", "--workers", "2") as (url, process):
        for seed in range(4):
            with Client(url) as client:
                (id,) = client.add([png(seed)], camera="new").ids
            for _ in range(5):  # each by a connection of its own, which either may accept
                with Client(url) as client:
                    found = client.search([png(seed)], camera="new").answers[0].matches
                    assert found[0].id == id and len(found) == seed + 1
        workers = workers_of(process)
        text = httpx.get(f"{url}/metrics").text
    assert len(workers) == 2
    assert 'reid_requests_total{path="/v1/search",status="200"} 20.0' in text
    assert 'reid_requests_total{path="/v1/pictures",status="201"} 4.0' in text


def test_kills_during_adds(place, work):
    """What was acknowledged is there, once, whenever the service is killed."""
    acknowledged = {}
    seed = 100
    for round in range(4):
        with served(place, work / "cache") as (url, process):
            enough = len(acknowledged) + 1 + 3 * round

            def kill(process=process, enough=enough, round=round):
                until(lambda: len(acknowledged) >= enough)
                threading.Event().wait(0.03 * round)  # amid the next one
                process.kill()

            killer = threading.Thread(target=kill)
            killer.start()
            with Client(url) as client:
                while True:
                    try:
                        (id,) = client.add([png(seed)]).ids
                    except httpx.TransportError:
                        break
                    acknowledged[seed] = id
                    seed += 1
            killer.join()
    gallery = Gallery.open(place, device="cpu")
    rows = gallery.tables.open().to_table(columns=["id", "source"]).to_pylist()
    by_id = {row["id"]: row["source"] for row in rows}
    assert acknowledged and len(by_id) == len({row["source"] for row in rows})
    for seed, id in acknowledged.items():
        assert Path(by_id[id]).read_bytes() == png(seed)
    print(len(acknowledged), "acknowledged, none lost")


def test_fuzzed_requests(place, work):
    """5,000 requests that schemathesis makes of the description: no 500, and it answers after."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, Phase, given
    from hypothesis import settings as bounds

    count: dict[int, int] = {}
    with served(place, work / "cache") as (url, process):
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [one.ok() for one in schema.get_all_operations()]
        each = 5000 // 6  # some can be asked in few ways only
        limits = bounds(
            max_examples=each,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        for operation in operations:
            modes = schemathesis.GenerationMode

            @limits
            @given(
                case=operation.as_strategy(generation_mode=modes.POSITIVE)
                | operation.as_strategy(generation_mode=modes.NEGATIVE)
            )
            def ask(case):
                found = case.call(base_url=url, timeout=120)
                count[found.status_code] = count.get(found.status_code, 0) + 1
                assert found.status_code not in (500, 501, 502), found.text

            ask()
        print(sum(count.values()), dict(sorted(count.items())))
        assert sum(count.values()) >= 5000
        assert process.poll() is None and Client(url).search([png(1)]).answers
