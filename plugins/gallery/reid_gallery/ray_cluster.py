"""Connecting to a Ray cluster, and actors that are counted on only when they run."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from reid_gallery.schema import Origin
from reidcore.api import how_to_install
from reidcore.errors import UsageError
from reidcore.tools import Search, load

WAIT = 120.0
"""Seconds for the first actor to start: it has to find a free slot and load the run."""
LATER = 30.0
"""Seconds that are given to further actors once one runs."""


def connected(address: str) -> Any:
    """Return the module `ray`, connected to a cluster.

    address: "auto" for the cluster that runs on this machine, "local" for one of this machine that
    ends with the program, or as Ray writes addresses. A program that is connected stays so.

    Raises UsageError where Ray is not installed, or no cluster is found there.
    """
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--ray needs Ray, which is not installed. To install it: "
            + how_to_install("reid-plugin-gallery[ray]")
        ) from None
    if ray.is_initialized():
        return ray
    own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except Exception as error:  # a node that does not start raises just that
        said = " ".join(str(error).split())[:200]
        raise UsageError(
            f"--ray {address}: no Ray cluster can be reached there ({said}). Start one with "
            "`ray start --head`, or name 'local' for the processors of this machine"
        ) from None
    return ray


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT, which Ray would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), 10).close()


def loaded(run: str, device: str, origin: Origin) -> Search:
    """Return the run of a gallery, on an actor's machine. Raises UsageError for another run."""
    search = load(run, device=device)
    if search.made_by != origin.made_by:
        raise UsageError(
            f"the gallery was made by {origin.made_by}, and {run} is {search.made_by} on another "
            "machine of the cluster; copy the same run folder to all"
        )
    return search


def gpus(ray: Any) -> int:
    """Return the number of GPUs of the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def slots(ray: Any, device: str, threads: int, most: int) -> tuple[int, dict[str, float]]:
    """Return how many actors the whole cluster has room for, at most `most`, and what each asks
    for: a GPU on the device "cuda", else as many CPUs as it has threads."""
    if device == "cuda":
        return max(1, min(gpus(ray), most)), {"num_gpus": 1, "num_cpus": 0}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max((node.get("CPU", 0) for node in nodes), default=0)
    each = max(1, min(threads, int(largest)))
    room = int(sum(node.get("CPU", 0) // each for node in nodes))
    return max(1, min(room, most)), {"num_cpus": each}


def unwrapped(ray: Any, error: Exception) -> Exception | None:
    """Return what an actor has raised, as an error of its own kind; None if the actor, or its
    machine, is gone, so that its work must be done again."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        known = isinstance(cause, Exception) and not isinstance(cause, ray.exceptions.RayError)
        return cause if known else error
    gone = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)
    return None if isinstance(error, gone) else error


def no_slot(ray: Any, asked: dict[str, float], wait: float) -> UsageError:
    """Return the error for a cluster where no actor could start."""
    free = ray.available_resources()
    unit = "GPU" if asked.get("num_gpus") else "CPU"
    return UsageError(
        f"no Ray actor has started within {wait:g} s: each needs {asked[f'num_{unit.lower()}s']:g} "
        f"{unit}, and the cluster has {free.get(unit, 0):g} free. Wait until other jobs have "
        "ended, or add machines"
    )


def started(ray: Any, make: Callable[[], Any], count: int, asked: dict[str, float]) -> list[Any]:
    """Return actors that run, at least one and at most `count`. Those that find no slot while
    another job holds it are given up, so that no work waits for them.

    Raises UsageError where none starts, and what an actor raises while it is made.
    """
    actors = [make() for _ in range(count)]
    pings = {actor.ready.remote(): actor for actor in actors}
    running: list[Any] = []
    waiting = list(pings)
    until = time.monotonic() + WAIT
    try:
        while waiting and (left := until - time.monotonic()) > 0:
            done, waiting = ray.wait(waiting, timeout=left)
            for ping in done:
                running += _running(ray, ping, pings[ping])
            if running:
                until = min(until, time.monotonic() + LATER)
        if not running:
            raise no_slot(ray, asked, WAIT)
    except BaseException:
        ended(ray, actors)
        raise
    ended(ray, [actor for actor in actors if not any(actor is one for one in running)])
    return running


def _running(ray: Any, ping: Any, actor: Any) -> list[Any]:
    try:
        ray.get(ping)
    except Exception as error:
        if (raised := unwrapped(ray, error)) is not None:
            raise raised from None
        return []
    return [actor]


def ended(ray: Any, actors: Sequence[Any]) -> None:
    """End actors."""
    for actor in actors:
        ray.kill(actor)
