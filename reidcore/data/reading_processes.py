"""Processes that read pictures in place of threads.

Threads share one interpreter's lock, which they, the step and each other's small operations wait
for. Forked processes have locks of their own, see the loader and its rows without a copy, and give
back pixels in shared memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

# Registers how tensors are passed between processes.
import torch.multiprocessing
from torch import Tensor

from reidcore.errors import ReidError, UsageError

Read = Callable[..., Tensor]
_read: Read | None = None
"""In a reading process, the function that it runs."""


class ReadingProcesses:
    """`count` processes that run `read` with the arguments they are sent.

    They are forked here and now, so they see everything as it is now; none of them may touch a GPU.
    Raises UsageError where processes cannot be forked.
    """

    def __init__(self, count: int, read: Read):
        if "fork" not in multiprocessing.get_all_start_methods():
            raise UsageError(
                '[data]: worker_kind is "process", but this system cannot fork processes; '
                'use "thread"'
            )
        context = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(count, context, _begin, (read, os.getpid()))
        self._pool.submit(os.getpid).result()  # forks all of them, before reading threads exist

    def __call__(self, *given: Any) -> Tensor:
        """Return, or raise, what `read(*given)` does in one of the processes."""
        try:
            return self._pool.submit(_answer, given).result()
        except BrokenProcessPool:
            raise ReidError(
                "a process that reads pictures has ended, perhaps because memory, or /dev/shm, is "
                'full; data.workers sets how many there are, and data.worker_kind = "thread" needs '
                "neither"
            ) from None

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _begin(read: Read, parent: int) -> None:
    global _read
    _read = read
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and closes the pool
    threading.Thread(target=_outlive_nobody, args=(parent,), daemon=True).start()


def _outlive_nobody(parent: int) -> None:
    """End this process once its parent is gone, which could not do it if it was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _answer(given: Sequence[Any]) -> Tensor:
    assert _read is not None
    return _read(*given)
