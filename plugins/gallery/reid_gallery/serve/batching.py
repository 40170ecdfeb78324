"""Requests that wait are embedded together: one network, one queue, which is bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs

from reid_gallery.serve.problems import Problem
from reidcore.tools import Templates

Embed = Callable[[list[Any]], Templates]


@attrs.frozen(eq=False)
class _Job:
    pictures: list[Any]
    done: asyncio.Future[Templates]


def part(templates: Templates, start: int, stop: int) -> Templates:
    """Return some of the templates."""
    parts = {
        name: {key: value[start:stop] for key, value in template.items()}
        for name, template in templates.parts.items()
    }
    return Templates(templates.rows[start:stop], parts, templates.made_by)


class Batcher:
    """Embeds the pictures of requests together, in one thread.

    embed: makes templates of pictures. together: pictures that are embedded at once at most.
    waiting: pictures that may wait.
    """

    def __init__(self, embed: Embed, together: int, waiting: int):
        self._embed, self._together, self._most = embed, together, waiting
        self._jobs: deque[_Job] = deque()
        self._some = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "embed")
        self._task = asyncio.get_running_loop().create_task(self._work())
        self.seen: Callable[[int], None] = lambda pictures: None

    @property
    def waiting(self) -> int:
        """Pictures that wait."""
        return sum(len(job.pictures) for job in self._jobs)

    async def templates(self, pictures: Sequence[Any]) -> Templates:
        """Return the templates of a request's pictures. Raises Problem where too many wait."""
        if self._jobs and self.waiting + len(pictures) > self._most:
            raise Problem(503, "too many requests wait; try again", {"Retry-After": "1"})
        job = _Job(list(pictures), asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._some.set()
        return await job.done

    async def _work(self) -> None:
        while True:
            await self._some.wait()
            jobs: list[_Job] = []
            count = 0
            while self._jobs and (
                not jobs or count + len(self._jobs[0].pictures) <= self._together
            ):
                job = self._jobs.popleft()
                if not job.done.cancelled():  # its client has hung up
                    jobs.append(job)
                    count += len(job.pictures)
            if not self._jobs:
                self._some.clear()
            if jobs:
                await self._do(jobs)

    async def _do(self, jobs: Sequence[_Job]) -> None:
        loop = asyncio.get_running_loop()
        pictures = [one for job in jobs for one in job.pictures]
        try:
            found = await loop.run_in_executor(self._thread, self._embed, pictures)
        except Exception as error:
            if len(jobs) > 1:  # only the request whose picture fails is to fail
                for job in jobs:
                    await self._do([job])
            elif not jobs[0].done.cancelled():
                jobs[0].done.set_exception(error)
            return
        self.seen(len(pictures))
        start = 0
        for job in jobs:
            stop = start + len(job.pictures)
            if not job.done.cancelled():
                job.done.set_result(part(found, start, stop))
            start = stop

    async def close(self) -> None:
        """End the thread."""
        self._task.cancel()
        for job in self._jobs:
            job.done.cancel()
        self._thread.shutdown(wait=False)
