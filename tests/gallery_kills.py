"""Programs that change one gallery, killed at random moments and at each write, or at once.

Run as `python gallery_kills.py RUN PICTURES GALLERY ROUNDS SEED`; it prints what happened as JSON.
A process loads the run and forks all others, so that each costs no start; it never touches Lance
itself, whose threads a forked child would lack.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from reid_gallery import Gallery
from reidcore.tools import load

LIMIT = 60.0
"""Seconds after which something hangs."""


class World:
    """The run, its pictures, and the place of the gallery."""

    def __init__(self, run: str, pictures: str, place: str):
        torch.set_num_threads(1)
        self.run, self.place = run, place
        self.search = load(run, device="cpu")
        self.pictures = sorted(str(path) for path in Path(pictures).rglob("*.jpg"))
        self.query = self.search.templates(self.pictures[:2])

    def gallery(self) -> Gallery:
        """The gallery, with the run that is loaded already."""
        found = Gallery.open(self.place, device="cpu")
        found._search = self.search
        return found


@contextmanager
def forked(work: Callable[[Callable[[object], None]], None]) -> Iterator[tuple[int, int]]:
    """A child that runs `work`, which is given a function that tells something; yields its process
    id and the end of a pipe from which lines of JSON come."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        os.close(source)
        try:
            work(lambda told: os.write(sink, json.dumps(told).encode() + b"\n") and None)
        except BaseException:
            os.write(sink, json.dumps(["error", traceback.format_exc()]).encode() + b"\n")
            os._exit(1)
        os._exit(0)
    os.close(sink)
    try:
        yield child, source
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(source)


def lines(source: int, until: Callable[[], bool] = lambda: False) -> list[list[object]]:
    """What a child tells until its end, or until `until`."""
    content, end = b"", time.monotonic() + LIMIT  # lines are shorter than what a pipe takes whole
    while not until():
        assert time.monotonic() < end, "a child hangs"
        if select.select([source], [], [], 0.0005)[0]:
            piece = os.read(source, 1 << 16)
            if not piece:
                break
            content += piece
    return [json.loads(line) for line in content.splitlines() if line.endswith(b"]")]


def changes(world: World, draw: random.Random, tell: Callable[[object], None]) -> None:
    """Adds, removes, forgets and compacts on and on, telling each before and after."""
    gallery = world.gallery()
    while True:
        some = draw.sample(world.pictures, draw.randint(1, 3))
        what = draw.choices(["add", "remove", "forget", "compact"], [6, 2, 1, 1])[0]
        tell(["begin", what, some])
        if what == "add":
            gallery.add(some)
        elif what == "remove":
            gallery.remove(some)
        elif what == "forget":
            gallery.forget(some)
        else:
            gallery.compact()
        tell(["end"])


def searches(world: World, tell: Callable[[object], None]) -> None:
    """Searches on and on; tells each count of matches."""
    gallery = world.gallery()
    while True:
        for ranking in ("plain", "short"):
            answers = gallery.search(world.query, ranking=ranking, top=1000)
            tell(["found", len(answers[0].matches)])


def contents(world: World, tell: Callable[[object], None]) -> None:
    """Tells the sources that are there, and how many of their maps are not."""
    gallery = world.gallery()
    rows = gallery.tables.open().to_table(columns=["id", "source", "look__vector"])
    maps = gallery.tables.open_maps(gallery.origin)
    ids = rows.column("id").to_pylist()
    own = maps.to_table(columns=["id"]).column("id").to_pylist() if maps is not None else ids
    tell(["ids", len(ids), len(set(ids))])
    tell(["maps", len(set(ids) - set(own)), len(own) - len(set(own))])
    tell(["sources", rows.column("source").to_pylist()])


def files(place: str) -> int:
    """A number that changes with what lies in a gallery."""
    return hash(tuple(sorted(str(path) for path in Path(place).rglob("*"))))


def moment(world: World, draw: random.Random, number: int) -> Callable[[], bool]:
    """The moment of a kill: after a random time or, every other one, at the n-th change of
    files."""
    if number % 2:
        end = time.monotonic() + draw.uniform(0.005, 0.6)
        return lambda: time.monotonic() > end
    left, seen = draw.randint(1, 25), files(world.place)

    def now() -> bool:
        nonlocal left, seen
        current = files(world.place)
        if current != seen:
            seen, left = current, left - 1
        return left <= 0

    return now


def kill(world: World, draw: random.Random, number: int, state: dict[str, bool]) -> str:
    """Kills a program once, checks what it has left, and takes it as the state; returns what was
    interrupted. state: {source: whether it is there}."""
    with forked(lambda tell: changes(world, random.Random(draw.random()), tell)) as (child, source):
        told = lines(source, moment(world, draw, number))
        os.kill(child, signal.SIGKILL)
        told += lines(source)
    errors = [one for one in told if one[0] == "error"]
    assert not errors, errors[0][1]
    unknown: set[str] = set()  # what was interrupted may or may not have been done
    interrupted = ""
    for place, (what, *rest) in enumerate(told):
        if what != "begin":
            continue
        done = place + 1 < len(told)
        if rest[0] != "compact":
            for one in rest[1]:
                state[one] = rest[0] == "add"
            unknown |= set() if done else set(rest[1])
        interrupted = "" if done else str(rest[0])
    check(world, state, unknown)
    return interrupted


def check(world: World, state: dict[str, bool], unknown: set[str]) -> None:
    """Compares the gallery with the state, but for what is unknown, and takes that over."""
    with forked(lambda tell: contents(world, tell)) as (_, source):
        found = lines(source)
    assert [one[0] for one in found] == ["ids", "maps", "sources"], found
    (_, count, distinct), (_, lost, twice), (_, sources) = found
    assert count == distinct and len(sources) == len(set(sources)), "a row is there twice"
    assert lost == twice == 0, f"{lost} maps are lost, {twice} twice"
    for one in world.pictures:
        if one not in unknown:
            assert state.get(one, False) == (one in sources), f"{one}: {state.get(one)}"
        state[one] = one in sources


def kills(world: World, rounds: int, seed: int) -> dict[str, object]:
    """Kills programs again and again while another one searches."""
    draw, state, interrupted = random.Random(seed), {}, []
    with forked(lambda tell: searches(world, tell)) as (_, source):
        for number in range(rounds):
            interrupted.append(kill(world, draw, number, state))
        time.sleep(0.2)
        end = time.monotonic() + 0.05
        told = lines(source, lambda: time.monotonic() > end)
    counts = {name: interrupted.count(name) for name in ("add", "remove", "forget", "compact")}
    errors = [one[1] for one in told if one[0] == "error"]
    return {"kills": rounds, "interrupted": counts, "searches": len(told), "errors": errors}


def race(world: World) -> dict[str, object]:
    """Two programs add the same pictures, a third removes and forgets others, a fourth searches."""
    mine, others = world.pictures[: len(world.pictures) // 2], world.pictures[-6:]

    def add(order: int) -> Callable[[Callable[[object], None]], None]:
        def work(tell: Callable[[object], None]) -> None:
            gallery = world.gallery()
            # From both ends, so that each adds some however the two are scheduled.
            pictures = mine[::order]
            for start in range(0, len(pictures), 3):
                done = gallery.add(pictures[start : start + 3])
                tell(["added", done.added, done.skipped])

        return work

    def forget(tell: Callable[[object], None]) -> None:
        gallery = world.gallery()
        for one in others:
            gallery.add([one])
            gallery.forget([one])
            tell(["forgot"])

    with (
        forked(add(1)) as (_, first),
        forked(add(-1)) as (_, second),
        forked(forget) as (_, third),
        forked(lambda tell: searches(world, tell)) as (_, fourth),
    ):
        told = [lines(one) for one in (first, second, third)]
        end = time.monotonic() + 0.05
        told.append(lines(fourth, lambda: time.monotonic() > end))
    errors = [one[1] for some in told for one in some if one[0] == "error"]
    if not errors:
        check(world, {one: one in mine for one in world.pictures}, set())
    added = [sum(int(one[1]) for one in some if one[0] == "added") for some in told[:2]]
    return {"pictures": len(mine), "added": added, "searches": len(told[3]), "errors": errors}


if __name__ == "__main__":
    here = World(*sys.argv[1:4])
    rounds, seed = map(int, sys.argv[4:6])
    print(json.dumps(kills(here, rounds, seed) if rounds else race(here)))
