"""Interfaces for postprocessors (Ranking), samplers (Ask) and procedures (Run).

The core implements them; a plugin calls their methods and makes none itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn

from reidcore.contracts.component import Row
from reidcore.contracts.pictures import Batch, Meta, Rows


class Ranking(Protocol):
    """The ranking whose distances a postprocessor changes; it gives the matcher's own distances.

    A side is "query" or "gallery", with Q and G pictures. Everything that a ranking holds and
    returns is on one device, that of the distances: the model's, or the CPU where they do not fit
    on the model's. Where several processes share an evaluation, each must call the same methods in
    the same order.

    Attributes:
        query: Cameras, times and modalities of the queries.
        gallery: Cameras, times and modalities of the gallery pictures.
        symmetric: True if the distance of two pictures is the same whichever is the query.
    """

    query: Meta
    gallery: Meta
    symmetric: bool

    def scored(self, start: int, stop: int) -> Tensor | None:
        """Return which pairs of some queries and gallery pictures have a distance.

        Where the ranking has a shortlist, the pictures that it leaves out have none. What stands in
        their place says nothing: it is no evidence of anything, and whatever a postprocessor makes
        of it, these pictures are ranked behind the others.

        Args:
            start: First query.
            stop: End of the queries, which is not among them.

        Returns:
            bool [stop - start, G]; None where all pairs have one.

        Example, the mean distance of every query::

            mask = ranking.scored(0, len(distances))
            mask = torch.ones_like(distances, dtype=torch.bool) if mask is None else mask
            mean = distances.where(mask, 0).sum(1) / mask.sum(1)
        """

    def between(self, a: str, b: str, start: int, stop: int) -> Tensor:
        """Return some rows of the matcher's distances from one side to another.

        Args:
            a: Side of the rows.
            b: Side of the columns; it may be the same.
            start: First row.
            stop: End of the rows, which is not among them.

        Returns:
            float32 [stop - start, number of pictures on side b].
        """

    def within(self, side: str, entries: int) -> Iterator[tuple[int, int, Tensor]]:
        """Yield the matcher's distances among the pictures of one side, block by block.

        Where distances are `symmetric`, a pair of pictures comes once, but twice in blocks that
        begin on the diagonal. Where several processes share an evaluation, each gets other blocks.

        Args:
            side: The side.
            entries: Most numbers of a block, roughly.

        Yields:
            First row, first column, and the block, float32 [rows, columns].
        """

    def everyone(self, value: Tensor) -> list[Tensor]:
        """Return the values that all processes of this evaluation pass, in the same order in each.

        Args:
            value: This process's value; shapes may differ between processes.

        Returns:
            One value for each process; a single process gets its own back.
        """

    def of_gallery(self, key: str, make: Callable[[], Any]) -> Any:
        """Return a value that depends on the gallery alone; it is made once for all searches of it.

        Args:
            key: Name of the value.
            make: Function that makes it at the first call.
        """

    def pairs(self, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        """Return the matcher's distances of listed pairs of pictures.

        Args:
            a: Side of the first pictures.
            i: int64 [K], their numbers.
            b: Side of the second pictures.
            j: int64 [K], their numbers.

        Returns:
            float32 [K].
        """

    def expanded(self, neighbours: Tensor) -> Tensor:
        """Return the distances of expanded queries to the gallery.

        Every query's template is merged with those of some gallery pictures.

        Args:
            neighbours: int64 [Q, K], numbers of gallery pictures for each query.

        Returns:
            float32 [Q, G].
        """


class Ask(Protocol):
    """The model as a sampler may ask it about training pictures, in eval mode without gradients."""

    def features(self, name: str, indices: Sequence[int]) -> Tensor:
        """Return a feature of some training pictures.

        Args:
            name: Full name `instance.output`.
            indices: Numbers of N rows.

        Returns:
            The feature, [N, ...].
        """

    def distances(self, matcher: str, a: Sequence[int], b: Sequence[int]) -> Tensor:
        """Return a matcher's distances between training pictures.

        Args:
            matcher: Name of the matcher.
            a: Numbers of N rows, the query side.
            b: Numbers of M rows.

        Returns:
            float32 [N, M].
        """


@attrs.frozen
class RankedPicture:
    """A gallery picture of a ranked list.

    Attributes:
        row: The picture with its labels.
        distance: Of the query, after the ranking's postprocessors; smaller is closer.
        match: Whether it shows the query's identity.

    Example:
        >>> from reidcore.api import Row
        >>> from reidcore.modules import RankedPicture
        >>> RankedPicture(Row("/a.jpg", pid="7"), distance=0.25, match=True).row.pid
        '7'
    """

    row: Row
    distance: float
    match: bool


@attrs.frozen
class RankedList:
    """The nearest gallery pictures of a query, in order; what does not count is left out.

    Attributes:
        query: The query with its labels.
        nearest: At most ten pictures, the nearest first.

    Example, the share of queries whose nearest picture is a match:
        >>> from reidcore.api import Row
        >>> from reidcore.modules import RankedList, RankedPicture
        >>> found = RankedPicture(Row("/a.jpg", pid="7"), distance=0.25, match=True)
        >>> ranked = [RankedList(Row("/b.jpg", pid="7"), nearest=(found,))]
        >>> firsts = [one.nearest[0].match for one in ranked if one.nearest]
        >>> sum(firsts) / len(firsts)
        1.0
    """

    query: Row
    nearest: tuple[RankedPicture, ...]


class Run(Protocol):
    """A run as its procedure sees it; the core's plain training uses nothing else.

    Where several processes share a run, each calls the procedure, and all must come to the same
    calls in the same order. A batch of `batches` is the whole batch in each process. A process
    reads only the pixels whose features `model(images)` is to compute there; the features of the
    others are gathered. So losses and labels need no thought, but gradients come from `update` or
    `backward`, never from `loss.backward()`.

    Attributes:
        folder: The run folder.
        table: The run file with all defaults filled in.
        device: Device of the model.
        seed: Seed of the run.
        model: The assembled model. `model(images)` returns features by full name;
            `model.loss(features, batch)` returns the sum of the losses and numbers to log;
            `model.before_training(extract)`, `model.after_step(features, batch)` and
            `model.after_epoch(means)` call those of the losses; `model.backbone` is the backbone.
        train: The training pictures.
        dry: True in the dry run of `reid check`, which shows it to observers: `folder` is then a
            temporary one, which is removed, and scores and means are made up.
        ranked: Ranked lists of a few queries in the last evaluation, for observers: of the first
            test set by the first ranking at its end. Empty before, in a dry run and where nobody
            observes; of several processes each has those of its queries.
    """

    folder: Path
    table: Mapping[str, Any]
    device: torch.device
    seed: int
    model: Any
    train: Rows
    dry: bool
    ranked: Sequence[RankedList]

    def batches(self, rows: Rows, epoch: int, stream: int = 0) -> Iterator[Batch]:
        """Yield one epoch of augmented batches in the sampler's order.

        Order and augmentation follow from the run's seed, epoch and stream alone.

        Args:
            rows: The pictures to draw from.
            epoch: Number of the epoch.
            stream: Number that tells several series of batches in one epoch apart.
        """

    def extract(self, rows: Rows | None = None) -> Iterator[tuple[Mapping[str, Tensor], Batch]]:
        """Yield features and pictures in eval mode, as `Extract` does.

        Args:
            rows: Pictures in the wanted order; None for the whole training set.
        """

    def optimizer(self, parameters: Iterable[nn.Parameter] | None = None) -> torch.optim.Optimizer:
        """Return the run file's optimizer; its learning rate follows the run file's schedule.

        Args:
            parameters: The parameters to train; None for the whole model, with the learning-rate
                scales of its roles.
        """

    def update(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Clear gradients, call `backward`, clip gradients and step each optimizer once.

        Args:
            loss: The loss of a batch, a scalar.
            optimizers: The optimizers to step.
        """

    def backward(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        """Add the gradients of a loss, as all processes have them together.

        Args:
            loss: A scalar.
            optimizers: Optimizers whose parameters get gradients, besides those of the model and of
                `optimizer()`.
        """

    def epochs(self, **state: Any) -> Iterator[int]:
        """Yield the numbers of epochs, from where the last save stopped.

        Args:
            state: Objects with a `state_dict`, which are saved with the model after each epoch and
                restored when the run is resumed.
        """

    def log(self, /, **numbers: float | Tensor) -> None:
        """Add numbers to the current epoch's means."""

    def means(self) -> dict[str, float]:
        """Return the unweighted means of what was logged in the current epoch."""

    def say(self, text: str) -> None:
        """Show the user a line that stays."""

    def evaluate(self) -> dict[str, Any] | None:
        """Return the scores on every test set now; None if the run has none."""

    def write(self, name: str, data: str | bytes) -> Path:
        """Write a file into the run folder, complete or not at all.

        Args:
            name: Name of the file.
            data: Its content.

        Returns:
            Path of the file.
        """
