"""What goes wrong behind a service: it answers the others rightly, and lives."""

from __future__ import annotations

import gc
import io
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")
pytest.importorskip("fastapi", reason="needs `uv run --all-groups`")

from gallery_runs import other_run
from PIL import Image
from service_asking import ask, expected, like, number, problem, running
from serving import png, until

from reid_gallery import Gallery


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


def test_one_queue_that_is_bounded(http, settings):
    contents = [png(seed) for seed in range(4)]
    before = number(http, "reid_search_seconds_count")
    for found, matches in zip(together(http, contents), expected(settings, contents), strict=True):
        assert found.status_code == 200 and like(found, matches)
    # One may have been taken before the others came; the rest is one search.
    assert number(http, "reid_search_seconds_count") - before <= 2
    with http.app.state.engine.places.take(settings.waiting - 1):
        assert ask(http, png()).status_code == 200
        found = http.post("/v1/search", files=[("picture", png())] * 2)
        assert "wait" in problem(found, 503, settings) and int(found.headers["retry-after"]) >= 1
    assert ask(http, png()).status_code == 200
    assert http.app.state.engine.places.taken == 0


def test_all_that_is_decoded_is_bounded(http, settings):
    """Pictures that are added or explained have places as those that are searched for; those that
    wait to be added are not kept decoded."""
    engine = http.app.state.engine
    size, most = (41, 83), settings.pictures
    files = [("picture", png(seed, size)) for seed in range(most)]
    row = expected(settings, [png(1)])[0][0].id
    gate = threading.Event()
    for thread in (engine.changing, engine.searching.thread):
        thread.submit(gate.wait, 120)
    asked = []
    with ThreadPoolExecutor(most + 1) as pool:
        try:
            asked.append(pool.submit(http.post, "/v1/pictures", files=files))
            until(lambda: engine.changing._work_queue.qsize() or asked[0].done())
            gc.collect()
            found = [one for one in gc.get_objects() if issubclass(type(one), Image.Image)]
            assert [one for one in found if one.size == size] == []
            asked += [
                pool.submit(
                    http.post, "/v1/explain", files={"picture": png(one)}, data={"match": row}
                )
                for one in range(settings.waiting - most)
            ]
            until(lambda: engine.places.taken == settings.waiting or any(o.done() for o in asked))
            for path in ("/v1/pictures", "/v1/explain", "/v1/search"):
                data = {"match": row} if "explain" in path else {}
                found = http.post(path, files={"picture": png(1)}, data=data)
                assert "wait" in problem(found, 503, settings)
        finally:
            gate.set()
    assert [one.result().status_code for one in asked] == [201] + [200] * (len(asked) - 1)
    assert engine.places.taken == 0
    ids = asked[0].result().json()["ids"]
    assert http.post("/v1/forget", json={"ids": ids}).json() == {"rows": most}


def test_a_search_blocks_no_adding(http):
    """Pictures are added while a search goes on."""
    gate = threading.Event()
    http.app.state.engine.searching.thread.submit(gate.wait, 120)
    with ThreadPoolExecutor(1) as pool:
        try:
            asked = pool.submit(ask, http, png(1))
            found = http.post("/v1/pictures", files={"picture": png(60)})
            assert found.status_code == 201 and not asked.done()
        finally:
            gate.set()
        assert asked.result().status_code == 200
    assert http.post("/v1/forget", json={"ids": found.json()["ids"]}).json() == {"rows": 1}


def test_a_row_whose_file_has_gone(http, settings):
    """That is told for good, in a search as elsewhere; other rows' searches go on."""
    found = http.post("/v1/pictures", files=[("picture", png(seed)) for seed in (61, 62)])
    lost, kept = found.json()["ids"]
    row = http.app.state.engine.cells([lost])[0]
    os.unlink(row["source"])
    answers = [
        http.get(f"/v1/pictures/{lost}/thumbnail"),
        http.get("/v1/explain", params={"query": lost, "match": kept}),
        http.post("/v1/search", data={"id": [lost]}),
        http.post("/v1/search", data={"id": [kept, lost]}),
        http.post("/v1/search", data={"id": [lost]}, files={"picture": png(1)}),
    ]
    for one in answers:
        assert "no longer there" in problem(one, 404, settings)
        assert "retry-after" not in one.headers
    assert http.post("/v1/search", data={"id": [kept]}).status_code == 200
    assert http.post("/v1/forget", json={"ids": [lost, kept]}).json() == {"rows": 2}


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
        until(lambda: len(answers) >= after + 6 or any(one.done() for one in asking))
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
