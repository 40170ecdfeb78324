"""What postprocessors, samplers and procedures may ask of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reidcore.contracts.pictures import Batch, Meta, Rows


class Ranking(Protocol):
    """What a postprocessor may ask. Sides are "query" and "gallery". Everything is on one device,
    that of the distances, which is the CPU where they do not fit on the model's."""

    query: Meta
    gallery: Meta
    symmetric: bool
    """Whether two pictures' distance does not depend on which of them is the query."""

    def between(self, a: str, b: str, start: int, stop: int) -> Tensor:
        """Rows start..stop of the matcher's own distances between two sides, float32
        [stop - start, len(b)]."""

    def within(self, side: str, entries: int) -> Iterator[tuple[int, int, Tensor]]:
        """All of the matcher's own distances within a side, as (start, first, block): float32 of
        the rows `start` and following and the columns `first` and following, about `entries`
        numbers at most. Where distances are `symmetric`, a pair of pictures comes once, apart from
        blocks that begin on the diagonal. Several processes get a share each."""

    def everyone(self, value: Tensor) -> list[Tensor]:
        """`value` of every process that shares this evaluation; one alone gets its own."""

    def of_gallery(self, key: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, which follows from the gallery's distances alone; made once for as
        long as this gallery is searched."""

    def pairs(self, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        """The matcher's own distances of the listed pairs (i[k], j[k]), float32 [K]."""

    def expanded(self, neighbours: Tensor) -> Tensor:
        """Query expansion: every query's template merged with those of its gallery pictures
        `neighbours` int64 [Q, K], scored against the gallery again; float32 [Q, G]."""


class Ask(Protocol):
    """What a sampler may ask about the training pictures, in eval mode without gradients."""

    def features(self, name: str, indices: Sequence[int]) -> Tensor:
        """The feature `name` (`instance.output`) of the rows at `indices`, [len(indices), ...]."""

    def distances(self, matcher: str, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """The matcher's distances between the rows at `a` and at `b`, float32 [len(a), len(b)]."""


class Run(Protocol):
    """What a procedure is written against; the plain training of the core uses nothing else.

    folder: the run folder. table: the resolved run file. device, seed: of the run. model: the
    assembled model; `model(images) -> features`, `model.loss(features, batch) -> (scalar, terms)`,
    `model.before_training(extract)`, `model.after_step(features, batch)`,
    `model.after_epoch(means)`, and `model.backbone`. train: the training pictures.

    Where several processes share a run, each runs the procedure. A batch of `batches` is the whole
    batch in each of them; of its pixels a process reads only those that `model(images)` is to
    compute there, and gathers the features of the others, so that losses, labels and moments need
    no thought. Every process must come to the same calls in the same order.
    """

    folder: Path
    table: Mapping[str, Any]
    device: torch.device
    seed: int
    model: Any
    train: Rows

    def batches(self, rows: Rows, epoch: int, stream: int = 0) -> Iterator[Batch]:
        """One epoch of augmented batches of `rows` in the sampler's order. Order and augmentation
        follow from seed, epoch and stream alone."""

    def extract(self, rows: Rows | None = None) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
        """See `Extract`."""

    def optimizer(self, parameters: Iterable[nn.Parameter] | None = None) -> torch.optim.Optimizer:
        """The run file's optimizer over `parameters`, by default the whole model with the learning
        rate scales of its roles; its learning rate follows the run file's schedule."""

    def update(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Clears gradients, `backward`, gradient clipping and one step of each optimizer."""

    def backward(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Adds the loss's gradients, as all processes have them together, which `loss.backward()`
        would not, to those of the model, of `optimizer()`'s parameters and of what these
        optimizers step."""

    def epochs(self, **state: Any) -> Iterator[int]:
        """Counts epochs from where the last save stopped. Everything in `state` with a
        `state_dict` is saved with the model after each epoch and restored on resume."""

    def log(self, /, **numbers: float | Tensor) -> None:
        """Adds numbers to the current epoch's means."""

    def means(self) -> dict[str, float]:
        """The unweighted means of what was logged in the current epoch."""

    def say(self, text: str) -> None:
        """Shows the user a line that stays."""

    def evaluate(self) -> dict[str, Any] | None:
        """Scores on every test set now; None if the run has none."""

    def write(self, name: str, data: str | bytes) -> Path:
        """Writes a file into the run folder atomically."""
