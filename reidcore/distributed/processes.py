"""The processes that share a job, as torchrun starts them; one alone without it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from reidcore.errors import ReidError, UsageError

T = TypeVar("T")
DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
"""Types of numbers that can be sent; a type is sent as its place here."""
PATIENCE = timedelta(days=1)
"""How long a process waits for the others, which may evaluate for hours. That one has ended is
noticed at once."""


@attrs.frozen
class Processes:
    """The processes that share a job: how many there are, and this one's number among them.

    Tensors go from process to process over the network, by gloo, or between GPUs in training by
    NCCL where torch has it. Every method but `share` must be called by all processes, in the same
    order. They raise ReidError where another process cannot be reached, such as one that has ended.
    """

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """True in the one process that writes files and tells the user what happens."""
        return self.number == 0

    def share(self, jobs: Iterable[T]) -> Iterator[tuple[int, T]]:
        """Yield (place, job) of this process's jobs, every `count`-th one, so that all processes
        together do each job once."""
        for place, job in enumerate(jobs):
            if place % self.count == self.number:
                yield place, job

    def everyone(self, value: Tensor) -> list[Tensor]:
        """Return `value` of every process, in their order; shapes may differ (all-gather)."""
        return [self.of(number, value) for number in range(self.count)]

    def stacked(self, value: Tensor) -> Tensor:
        """Return `value` of every process, in their order, as [count, *value.shape]; shapes and
        dtypes must agree (all-gather)."""
        made = value.new_empty(self.count, *value.shape)
        if value.numel():
            with _answered():
                # As bytes, because not every type of number can be sent.
                dist.all_gather_into_tensor(_bytes(made), _bytes(value.contiguous()))
        return made

    def add(self, value: Tensor) -> None:
        """Add up `value` over all processes, in place; shapes and dtypes must agree
        (all-reduce)."""
        if self.count > 1 and value.numel():
            with _answered():
                dist.all_reduce(value)

    def complete(self, whole: Tensor, blocks: Sequence[slice]) -> None:
        """Fill in the blocks of rows of `whole` that the other processes have computed, which are
        those that `share(blocks)` gives them."""
        if self.count == 1:
            return
        for number in range(self.count):
            theirs = blocks[number :: self.count]
            if theirs:
                value = self.of(number, torch.cat([whole[rows] for rows in theirs]))
                for rows, part in zip(
                    theirs, value.split([len(whole[rows]) for rows in theirs]), strict=True
                ):
                    whole[rows] = part

    def of(self, number: int, value: Tensor) -> Tensor:
        """Return `value` of the process of this number (broadcast), on the device of the `value`
        that is passed here. In that process it is `value` itself."""
        if self.count == 1:
            return value
        facts = [DTYPES.index(value.dtype), value.ndim, *value.shape, *[0] * (8 - value.ndim)]
        sizes = torch.tensor(facts)
        with _answered():
            dist.broadcast(sizes, number)
        kind, axes, *shape = sizes.tolist()
        here = value.detach().cpu().contiguous()
        if number != self.number:
            here = torch.empty(shape[:axes], dtype=DTYPES[kind])
        if here.numel():
            with _answered():
                dist.broadcast(_bytes(here), number)
        return value if number == self.number else here.to(value.device)

    def wait(self) -> None:
        """Wait until all processes have come here (barrier)."""
        self.add(torch.zeros(1))


def _bytes(value: Tensor) -> Tensor:
    return value.view(-1).view(torch.uint8)


@contextmanager
def _answered() -> Iterator[None]:
    """Turn torch's error into one that names the cause, where another process does not answer."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ReidError(
            "cannot exchange numbers with the other processes of this job, perhaps because one of "
            f"them has ended; see what it said ({str(error).partition(chr(10))[0][:200]})"
        ) from error


ALONE = Processes()
"""One process that shares its job with no other."""


@contextmanager
def together() -> Iterator[Processes]:
    """Connect the processes that torchrun has started, for a `with` block, which all of them end
    together. Afterwards each ends by `reidcore.cli.main.leave`."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count == "1":
        yield ALONE
        return
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"WORLD_SIZE is {count}, but the processes cannot find each other: {error}. Start them "
            "with torchrun, or unset WORLD_SIZE"
        ) from error
    processes = Processes(dist.get_rank(), dist.get_world_size())
    yield processes
    processes.wait()  # torchrun ends all if one ends badly, so the first one's files come first
    # The group is not destroyed: with torch 2.6 that waits for ever now and then.
