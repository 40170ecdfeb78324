"""A gallery on a Ray cluster of two slots: the same rows and the same answers as on one machine,
also where an actor is killed or another job holds a slot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import TINY, environment, reid

from reidcore.api import how_to_install
from reidcore.errors import DataError, UsageError

ray = pytest.importorskip("ray")
pytest.importorskip("lance")

from reid_gallery import Gallery, ray_adding, ray_cluster  # noqa: E402
from reid_gallery.ray_adding import add_with_ray  # noqa: E402
from reid_gallery.ray_search import RayScan  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RANKINGS = """
[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.pooled"]

[[ranking]]
name = "main"
matcher = "look"

[[ranking]]
name = "likely"
fuse = { look = 0.5, far = 0.5 }
scale = "logistic"

[[ranking]]
name = "rows"
fuse = { look = 0.5, far = 0.5 }
scale = "row_minmax"
"""
PICTURES = 2000


def start_cluster() -> None:
    """Start two slots; Ray gives up after 30 s, which a busy machine may need."""
    for left in (3, 2, 1, 0):
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            return
        except Exception:
            if not left:
                raise
            ray.shutdown()


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with an untrained run, 2,000 pictures in a CSV file of cameras and times, and a
    cluster of two slots to which this program is connected."""
    folder = tmp_path_factory.mktemp("ray")
    env = environment(folder / "cache")
    text = TINY.replace("epochs = 6", "epochs = 0").replace("every = 1", "")
    (folder / "tiny.toml").write_text(text + RANKINGS)
    reid(env, folder, "run", "tiny.toml", "--out", "run")
    (folder / "shots").mkdir()
    dice = np.random.default_rng(0)
    lines = ["path,camera,time,speed"]
    for number in range(PICTURES):
        pixels = dice.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        name = f"shots/{number:04d}.jpg"
        Image.fromarray(pixels).resize((16, 32)).save(folder / name)
        lines.append(f"{name},{number % 7},{number * 0.5},{number % 3}")
    (folder / "shots.csv").write_text("\n".join(lines) + "\n")
    (folder / "few.csv").write_text("\n".join(lines[:301]) + "\n")
    os.environ["RAY_AUTH_MODE"] = "disabled"
    start_cluster()
    yield folder
    ray.shutdown()


def rows(gallery: Gallery) -> dict[str, dict]:
    """All rows by source, without what depends on when they were added."""
    found = gallery.tables.open().to_table().to_pylist()
    ids = [row["id"] for row in found]
    assert len(set(ids)) == len(ids), "an id twice"
    by_source = {row["source"]: row for row in found}
    assert len(by_source) == len(found), "a picture twice"
    for row in found:
        del row["id"], row["added"]
    return by_source


@pytest.fixture(scope="module")
def plain(work) -> Gallery:
    """The gallery that one machine makes, in several fragments."""
    gallery = Gallery.create(work / "run", work / "plain", device="cpu")
    gallery.add(work / "shots.csv")
    return gallery


def processes(actors) -> list[int]:
    """The numbers of actors' processes."""
    return ray.get([actor.ready.remote() for actor in actors])


def test_a_killed_actor_loses_and_repeats_nothing(work, plain, monkeypatch):
    """One of two actors gets SIGKILL while it extracts: there are all 2,000 rows, each once, and
    equal to those of one machine, with vectors in lists of fixed size."""
    monkeypatch.setattr(ray_adding, "SHARD", 50)
    gallery = Gallery.create(work / "run", work / "killed", device="cpu")
    started, pools, killed = [], [], []

    class Pool(ray_adding._Pool):
        """Remembers its actors."""

        def _start(self):
            super()._start()
            pools.append(self)
            ping, actor = list(self._pings.items())[-1]
            started.append((actor, ping))

    monkeypatch.setattr(ray_adding, "_Pool", Pool)

    class Shown:
        """Kills an actor once both are at work."""

        def say(self, text: str) -> None: ...
        def close(self) -> None: ...

        def working(self, text: str) -> None:
            pids = ray.get([ping for _, ping in started])  # waits until both run
            busy = [actor for actor, _ in pools[0]._busy.values()]
            if not killed and "2 actors" in text and busy:
                (pid,) = (
                    pid for (actor, _), pid in zip(started, pids, strict=True) if actor is busy[0]
                )
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    done = add_with_ray(gallery, work / "shots.csv", "auto", Shown())
    assert killed and pools[0]._deaths == 1 and len(started) == 3
    assert (done.added, done.skipped, done.damaged) == (PICTURES, 0, ())
    table = gallery.tables.open()
    seen = {table.checkout_version(one["version"]).count_rows() for one in table.versions()}
    assert seen == {0, PICTURES}  # one commit of all rows
    assert rows(gallery) == rows(plain)
    assert table.schema == plain.tables.open().schema
    again = add_with_ray(gallery, work / "shots.csv")
    assert (again.added, again.skipped) == (0, PICTURES)


@pytest.mark.parametrize("ranking", ["main", "likely", "rows"])
@pytest.mark.parametrize("limits", [{}, {"camera": ["1", "3"], "after": 100, "where": "speed > 0"}])
def test_answers_are_those_of_one_machine(work, plain, ranking, limits):
    """To the last bit: distances, probabilities, order; asked twice, and after an actor's death."""
    queries = [work / f"shots/{number:04d}.jpg" for number in (0, 7, 1999)]
    asked = {"top": 150, "ranking": ranking, **limits}
    expected = plain.search(queries, **asked)
    assert len(expected) == 3 and all(len(one.matches) == 150 for one in expected)
    cluster = Gallery.open(work / "plain", device="cpu")
    with RayScan(cluster) as scan:
        cluster.scan = scan
        assert cluster.search(queries, **asked) == expected
        assert len(scan._actors) == 2
        os.kill(processes(scan._actors)[0], signal.SIGKILL)
        assert cluster.search(queries, **asked) == expected
        assert cluster.search(queries, **asked) == expected


def test_what_is_added_later_is_found(work):
    """Actors that keep fragments see the version that a search is of."""
    gallery = Gallery.create(work / "run", work / "grows", device="cpu")
    gallery.add([work / f"shots/{number:04d}.jpg" for number in range(20)])
    query = [work / "shots/0500.jpg"]
    with RayScan(gallery) as scan:
        gallery.scan = scan
        first = gallery.search(query, top=5)
        gallery.add([work / f"shots/{number:04d}.jpg" for number in range(20, 600)])
        found = gallery.search(query, top=5)
    assert found == Gallery.open(work / "grows", device="cpu").search(query, top=5) != first


@ray.remote(num_cpus=1)
class Other:
    """Another job on the cluster, which holds a slot until it is ended."""

    def ready(self) -> bool:
        return True


def test_a_slot_that_another_job_holds_stalls_nothing(work, plain, monkeypatch):
    """With one of two slots, or none, free: the free one does all the work, or it is told."""
    monkeypatch.setattr(ray_cluster, "LATER", 1.0)
    other = Other.remote()
    ray.get(other.ready.remote())
    gallery = Gallery.create(work / "run", work / "shared", device="cpu")
    assert add_with_ray(gallery, work / "few.csv").added == 300
    query = [work / "shots/0500.jpg"]
    with RayScan(gallery) as scan:
        assert len(scan._actors) == 1
        gallery.scan = scan
        expected = Gallery.open(work / "shared", device="cpu").search(query, top=9)
        assert gallery.search(query, top=9) == expected
    second = Other.remote()
    ray.get(second.ready.remote())
    monkeypatch.setattr(ray_cluster, "WAIT", 5.0)
    with pytest.raises(UsageError, match=r"within 5 s: each needs 1 CPU, and the cluster has 0"):
        add_with_ray(gallery, work / "shots.csv")
    assert len(gallery) == 300
    for one in (other, second):
        ray.kill(one)


def test_damaged_pictures_are_told_and_errors_are_sentences(work):
    """What is wrong with a picture comes back from its actor; so do the errors of a CSV file."""
    (work / "bad").mkdir()
    good = work / "bad" / "good.jpg"
    good.write_bytes((work / "shots/0001.jpg").read_bytes())
    (work / "bad" / "broken.jpg").write_bytes(b"no picture")
    gallery = Gallery.create(work / "run", work / "some", device="cpu")
    done = add_with_ray(gallery, work / "bad")
    assert done.added == 1 and [Path(name).name for name, _ in done.damaged] == ["broken.jpg"]
    (work / "speed.csv").write_text("path,speed\nshots/0002.jpg,3\n")
    add_with_ray(gallery, work / "speed.csv")
    (work / "speed.csv").write_text("path,speed\nshots/0003.jpg,fast\n")
    with pytest.raises(DataError, match=r"speed\.csv row 2: speed is 'fast', expected a whole"):
        add_with_ray(gallery, work / "speed.csv")
    assert len(gallery) == 2


def test_commands_take_an_address(work, plain):
    """`add` and `search` start a cluster of this machine's processors, and give the same rows and
    answers; a cluster that is not there is a sentence."""
    env = environment(work / "cache")
    reid(env, work, "gallery", "create", "run", "made", "--device", "cpu")
    add = ["gallery", "add", "made", "few.csv", "--ray", "local", "--json", "--device", "cpu"]
    found = json.loads(reid(env, work, *add).stdout)
    assert found["added"] == 300
    ask = ["gallery", "search", "made", "shots/0500.jpg", "--json", "--device", "cpu"]
    alone = reid(env, work, *ask).stdout
    assert reid(env, work, *ask, "--ray", "local").stdout == alone
    failed = reid(env, work, *ask, "--ray", "127.0.0.1:1", code=2, timeout=400).stderr
    assert "--ray 127.0.0.1:1: no Ray cluster can be reached there" in failed


def test_another_run_on_an_actors_machine_is_told(work, monkeypatch):
    """Where the run folder holds other weights when the actors load it, they say so."""
    shutil.copytree(work / "run", work / "changed")
    gallery = Gallery.create(work / "changed", work / "other", device="cpu")
    gallery.add([work / "shots/0000.jpg"])
    seed = ["--set", "train.seed=1"]
    reid(environment(work / "cache"), work, "run", "tiny.toml", "--out", "new", *seed)
    shutil.rmtree(work / "changed")
    shutil.copytree(work / "new", work / "changed")
    with pytest.raises(UsageError, match="on another machine of the cluster; copy the same run"):
        add_with_ray(gallery, work / "few.csv")
    with pytest.raises(UsageError, match="on another machine of the cluster; copy the same run"):
        RayScan(gallery)
    assert len(gallery) == 1


def test_a_program_that_is_stopped_has_committed_what_was_done(work, monkeypatch):
    """An interrupt while shards are extracted leaves those that were written."""
    monkeypatch.setattr(ray_adding, "SHARD", 50)
    gallery = Gallery.create(work / "run", work / "stopped", device="cpu")

    class Stop:
        def say(self, text: str) -> None: ...
        def close(self) -> None: ...

        def working(self, text: str) -> None:
            if text.startswith("150 "):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_with_ray(gallery, work / "few.csv", "auto", Stop())
    assert len(rows(gallery)) == 150
    assert add_with_ray(gallery, work / "few.csv").added == 150
    assert len(rows(gallery)) == 300


def test_two_programs_add_at_once(work, plain):
    """With Ray and without: every picture is there once."""
    gallery = Gallery.create(work / "run", work / "two", device="cpu")
    other = Gallery.open(work / "two", device="cpu")
    thread = threading.Thread(target=lambda: other.add(work / "few.csv"))
    thread.start()
    done = add_with_ray(gallery, work / "shots.csv")
    thread.join()
    time.sleep(0.1)
    assert rows(gallery) == rows(plain) and done.added <= PICTURES


def test_ray_that_is_not_installed_is_told(work):
    """The commands say what to install."""
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from reidcore.cli.main import main\n"
        "sys.exit(main(['gallery', 'add', 'plain', 'few.csv', '--ray', 'auto']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=work,
        env=environment(work / "cache"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert how_to_install("reid-plugin-gallery[ray]") in done.stderr
