"""The processes that share a job, as torchrun starts them; one alone without it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import attrs
import torch
import torch.distributed as dist
from torch import Tensor

from reidcore.errors import UsageError

T = TypeVar("T")


@attrs.frozen
class Processes:
    """This process's number among `count`. What the others have comes over the network as plain
    numbers (gloo), from and to any device."""

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.number == 0

    def share(self, jobs: Iterable[T]) -> Iterator[tuple[int, T]]:
        """(place, job) of every `count`-th job, so that all together do each once."""
        for place, job in enumerate(jobs):
            if place % self.count == self.number:
                yield place, job

    def everyone(self, value: Tensor) -> list[Tensor]:
        """`value` of every process, in their order; shapes may differ, dtypes must not."""
        return [self._from(number, value) for number in range(self.count)]

    def complete(self, whole: Tensor, blocks: Sequence[slice]) -> None:
        """Fills in the blocks of rows of `whole` that were the others' share."""
        if self.count == 1:
            return
        for number in range(self.count):
            theirs = blocks[number :: self.count]
            if theirs:
                value = self._from(number, torch.cat([whole[rows] for rows in theirs]))
                for rows, part in zip(
                    theirs, value.split([len(whole[rows]) for rows in theirs]), strict=True
                ):
                    whole[rows] = part

    def _from(self, number: int, value: Tensor) -> Tensor:
        """`value` of one process; the own one's is `value` itself."""
        if self.count == 1:
            return value
        sizes = torch.tensor([value.ndim, *value.shape, *[0] * (8 - value.ndim)])
        dist.broadcast(sizes, number)
        shape = sizes[1 : 1 + int(sizes[0])].tolist()
        here = value.detach().cpu().contiguous()
        there = here if number == self.number else here.new_empty(shape)
        if there.numel():
            dist.broadcast(there.view(-1).view(torch.uint8), number)
        return value if number == self.number else there.to(value.device)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


ALONE = Processes()


@contextmanager
def together() -> Iterator[Processes]:
    """The processes that torchrun has started, connected for as long as the block lasts."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count == "1":
        yield ALONE
        return
    try:
        dist.init_process_group("gloo")
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"WORLD_SIZE is {count}, but the processes cannot find each other: {error}. Start them "
            "with torchrun, or unset WORLD_SIZE"
        ) from error
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
