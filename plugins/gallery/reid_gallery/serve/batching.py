"""Requests that wait are worked on together, in one thread; how many may wait is bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import attrs

from reid_gallery.serve.problems import Problem
from reidcore.errors import ReidError

Work = Callable[[list[Any], Any], Sequence[Any]]
"""Gives a result for each item, in their order. It is told what the items have in common."""


class Places:
    """Counts the pictures of requests that are not answered yet. most: how many there may be; one
    request is let in whatever it has."""

    def __init__(self, most: int):
        self._most = most
        self.taken = 0

    @contextmanager
    def take(self, pictures: int) -> Iterator[None]:
        """Have places for pictures in the `with` block. Raises Problem where there are too few."""
        if self.taken and self.taken + pictures > self._most:
            raise Problem(503, "too many requests wait; try again", {"Retry-After": "1"})
        self.taken += pictures
        try:
            yield
        finally:
            self.taken -= pictures


@attrs.frozen(eq=False)
class _Job:
    """The items of one request. kind: only jobs of one kind are done together."""

    items: list[Any]
    kind: Hashable
    done: asyncio.Future[list[Any]]


class Batcher:
    """Does the work of several requests together, in a thread of its own.

    name: of the thread. work: what is done. together: items that are worked on at once at most,
    but for a request that has more.
    """

    def __init__(self, name: str, work: Work, together: int):
        self._work, self._together = work, together
        self._jobs: deque[_Job] = deque()
        self._some = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, name)
        self._task = asyncio.get_running_loop().create_task(self._run())
        self.seen: Callable[[int], None] = lambda items: None

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return sum(len(job.items) for job in self._jobs)

    async def done(self, items: Sequence[Any], kind: Hashable = None) -> list[Any]:
        """Return the results of a request's items. kind: what they have in common with those that
        may be done with them. Raises what the work raises for them."""
        job = _Job(list(items), kind, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._some.set()
        found: list[Any] = await job.done
        return found

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            jobs = self._next()
            if not self._jobs:
                self._some.clear()
            if jobs:
                await self._do(jobs)

    def _next(self) -> list[_Job]:
        """Take the jobs that are done next: the oldest, and later ones of its kind that fit."""
        jobs: list[_Job] = []
        kept: deque[_Job] = deque()
        count = 0
        for job in self._jobs:
            if job.done.cancelled():  # whoever asked has gone
                continue
            if not jobs or (job.kind == jobs[0].kind and count + len(job.items) <= self._together):
                jobs.append(job)
                count += len(job.items)
            else:
                kept.append(job)
        self._jobs = kept
        return jobs

    async def _do(self, jobs: Sequence[_Job]) -> None:
        items = [one for job in jobs for one in job.items]
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self.thread, self._checked, items, jobs[0].kind
            )
        except Exception as error:
            if len(jobs) > 1:  # only the request whose item fails is to fail
                await self._do(jobs[: len(jobs) // 2])
                await self._do(jobs[len(jobs) // 2 :])
            elif not jobs[0].done.cancelled():
                jobs[0].done.set_exception(error)
            return
        self.seen(len(items))
        start = 0
        for job in jobs:
            stop = start + len(job.items)
            if not job.done.cancelled():
                job.done.set_result(list(found[start:stop]))
            start = stop

    def _checked(self, items: list[Any], kind: Any) -> Sequence[Any]:
        found = self._work(items, kind)
        if len(found) != len(items):  # else one would be given another's result
            raise ReidError(f"{len(found)} results were made of {len(items)} pictures")
        return found

    async def close(self) -> None:
        """End the thread; who waits is told."""
        self._task.cancel()
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(
                    Problem(503, "the service is being stopped", {"Retry-After": "5"})
                )
        self.thread.shutdown(wait=True)
