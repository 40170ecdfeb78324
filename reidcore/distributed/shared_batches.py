"""Training batches that several processes share: each process computes the features of some of the
pictures, and losses see those of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reidcore.contracts.pictures import Images
from reidcore.distributed.processes import Processes
from reidcore.distributed.shared_norms import SynchronisedNorms
from reidcore.support.seeds import seeded

BUCKET = 2**24
"""How many numbers of gradients are sent at once."""


@attrs.frozen(eq=False)
class Division:
    """The division of a batch of B pictures among processes.

    parts: for each process the places in the batch that it computes, ascending; together all.
    """

    processes: Processes
    parts: Sequence[np.ndarray]

    @property
    def own(self) -> np.ndarray:
        return self.parts[self.processes.number]

    def whole(self, own: Tensor) -> Tensor:
        """Return all processes' parts as [B, ...] in the batch's order; `own` is this one's.

        Its gradient is `count` times that of a batch computed at once, because every process has
        all of the loss, and `average_gradients` divides by their number.
        """
        gathered: Tensor = _Gather.apply(own, self) if own.requires_grad else self.gathered(own)
        return gathered

    def gathered(self, own: Tensor) -> Tensor:
        """Return `whole(own)` without gradient."""
        longest = max(map(len, self.parts))
        if len(own) < longest:  # what is sent has one shape
            own = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])])
        rows = self.processes.stacked(own.detach()).flatten(0, 1)
        start = np.concatenate([longest * n + np.arange(len(p)) for n, p in enumerate(self.parts)])
        order = start[np.argsort(np.concatenate(self.parts))]
        if len(order) == len(rows) and (order == np.arange(len(rows))).all():
            return rows
        return rows[torch.from_numpy(order).to(rows.device)]


def divided(modality: np.ndarray, processes: Processes) -> Division | None:
    """Divide a batch whose pictures have the modalities [B]. Return None where there are too few
    pictures: then every process computes all of them.

    Of each modality every process takes a stretch of the batch, so that pictures of an identity,
    which stand together, mostly stay together, and no process lacks a modality.
    """
    parts: list[list[np.ndarray]] = [[] for _ in range(processes.count)]
    for one in np.unique(modality):
        places = np.flatnonzero(modality == one)
        if len(places) < processes.count:
            return None
        for part, piece in zip(parts, np.array_split(places, processes.count), strict=True):
            part.append(piece)
    return Division(processes, [np.sort(np.concatenate(part)) for part in parts])


class _Gather(torch.autograd.Function):
    """`Division.whole`. Nothing is sent back: every process computes the loss of all features."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, division: Division) -> Tensor:
        ctx.division = division
        return division.gathered(own)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = torch.from_numpy(ctx.division.own).to(gradient.device)
        return gradient[own] * ctx.division.processes.count, None


class RemoteImages(Images):
    """Pictures of which other processes compute the features. Here `pixels` are read when they are
    asked for."""

    __slots__ = ("_fetch",)
    _fetch: Callable[[], Tensor]

    def __init__(self, modality: Tensor, camera: Tensor, fetch: Callable[[], Tensor]):
        for name, value in (("modality", modality), ("camera", camera), ("_fetch", fetch)):
            object.__setattr__(self, name, value)

    @property
    def pixels(self) -> Tensor:
        return self._fetch()

    def __len__(self) -> int:
        return len(self.modality)


class SharedImages(RemoteImages):
    """The pictures of a training batch, of which this process computes `own`.

    key: what random numbers of the forward pass follow from, besides the process.
    """

    __slots__ = ("_key", "_passes", "division", "own")
    own: Images
    division: Division
    _key: tuple[int, ...]
    _passes: list[int]

    def __init__(
        self,
        own: Images,
        division: Division,
        modality: Tensor,
        camera: Tensor,
        fetch: Callable[[], Tensor],
        key: tuple[int, ...],
    ):
        super().__init__(modality, camera, fetch)
        for name, value in (("own", own), ("division", division), ("_key", key), ("_passes", [0])):
            object.__setattr__(self, name, value)

    def placed(self, place: Callable[[Images], Images], device: torch.device) -> SharedImages:
        """Return the same with `own` as `place` returns them, and the rest on the device."""
        modality, camera = (x.to(device, non_blocking=True) for x in (self.modality, self.camera))
        return SharedImages(
            place(self.own), self.division, modality, camera, self._fetch, self._key
        )

    @contextmanager
    def forward_pass(self) -> Iterator[Images]:
        """Give this process's own pictures to a `with` block, in which norms are synchronised and
        random numbers are the process's own: those of the losses must stay the same everywhere."""
        self._passes[0] += 1
        number = self.division.processes.number
        with (
            seeded("forward", *self._key, self._passes[0], number),
            SynchronisedNorms(self.division.processes),
        ):
            yield self.own


class Lazy(Mapping[str, Tensor]):
    """A mapping {name: make(name)}, whose values are made when they are first asked for."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Tensor]):
        self._names, self._make = list(names), make
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._made:
            if name not in self._names:
                raise KeyError(name)
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def average_gradients(leaves: Iterable[Tensor], processes: Processes) -> None:
    """Replace the gradients of the leaves by their means over all processes. A leaf without a
    gradient in one process counts as zero there; one without any keeps none."""
    if processes.count == 1:
        return
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    found = torch.tensor([leaf.grad is not None for leaf in asked], dtype=torch.int32)
    processes.add(found)
    gradients = []
    for leaf, holders in zip(asked, found.tolist(), strict=True):
        if holders:
            if leaf.grad is None:
                leaf.grad = torch.zeros_like(leaf)
            gradients.append(leaf.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        processes.add(flat)
        flat /= processes.count
        for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(mean.view(gradient.shape))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the gradients in lists, each of one dtype and device and of some BUCKET numbers."""
    open_: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        bucket = open_.setdefault((gradient.dtype, gradient.device), [])
        bucket.append(gradient)
        if sum(one.numel() for one in bucket) >= BUCKET:
            yield open_.pop((gradient.dtype, gradient.device))
    yield from open_.values()
