"""The search: weights learn from training batches, the architecture from validation batches."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid_msinet.categories import Categories
from reid_msinet.genotypes import OPERATIONS, genotype_text
from reid_msinet.memory import ClassMemory
from reid_msinet.settings_search import Search
from reidcore.errors import UsageError
from reidcore.modules import Batch, Rows, Run

GENOTYPE_FILE = "genotype.json"
ALPHA_FILE = "alpha.csv"


def split_pictures(
    pids: np.ndarray, split: Categories, halves: str = "first", seed: int = 0
) -> np.ndarray:
    """Return True for each picture [N] that trains, False where it validates. All of an identity
    train that only trains, and of a shared one with m pictures floor(m / 2): the first ones in this
    order, every second one ("interleaved"), or drawn ones ("random"), always the same of a seed."""
    generator = torch.Generator().manual_seed(seed)
    trains = pids < split.train_only
    for pid in range(split.train_only, split.train):
        own = np.flatnonzero(pids == pid)
        half = len(own) // 2
        if halves == "interleaved":
            chosen = own[1::2]
        elif halves == "random":
            chosen = own[torch.randperm(len(own), generator=generator).numpy()[:half]]
        else:
            chosen = own[:half]
        trains[chosen] = True
    return trains


def split_rows(
    rows: Rows, split: Categories, halves: str = "first", seed: int = 0
) -> tuple[Rows, Rows]:
    """Training and validation pictures, each with labels from 0."""
    trains = split_pictures(rows.pid, split, halves, seed)
    every = range(rows.identities)
    return (
        rows.where(trains).relabelled(every[: split.train]),
        rows.where(~trains).relabelled(every[split.train_only :]),
    )


def entropy(weights: Sequence[float]) -> float:
    """The entropy of a slot's weights in nats, from 0 (decided) to ln 4."""
    return -sum(weight * math.log(weight) for weight in weights if weight > 0)


class Classifier(nn.Module):
    """Cross-entropy of one linear layer behind a batch norm, for both sides (figure 5a). Has no
    memory to update."""

    def __init__(self, classes: int, length: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(length)
        self.linear = nn.Linear(length, classes, bias=False)
        nn.init.normal_(self.linear.weight, std=0.001)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.linear(self.norm(x)), labels)

    def update(self, x: Tensor, labels: Tensor) -> None: ...


SideLoss = Classifier | ClassMemory


class Trace:
    """The weights of every slot after each epoch, which a resumed run goes on with."""

    def __init__(self) -> None:
        self.epochs: list[list[list[float]]] = []

    def add(self, alpha: Tensor) -> None:
        self.epochs.append(alpha.detach().softmax(1).tolist())

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = list(state["epochs"])

    def table(self) -> str:
        """CSV: epoch, slot, the weight of each operation, and their entropy in nats."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", "slot", *OPERATIONS, "entropy"])
        for epoch, slots in enumerate(self.epochs, 1):
            for slot, weights in enumerate(slots, 1):
                numbers = [f"{number:.6g}" for number in (*weights, entropy(weights))]
                writer.writerow([epoch, slot, *numbers])
        return text.getvalue()


class Alternation:
    """Steps of the weights and of alpha, in the order that the setting `order` says."""

    def __init__(self, config: Search, run: Run, alpha: Tensor, losses: tuple[SideLoss, SideLoss]):
        self.config = config
        self.run = run
        self.train_loss, self.validation_loss = losses
        self.weights = [run.optimizer()]
        own = list(self.train_loss.parameters())
        if own:
            self.weights.append(run.optimizer(own))
        self.alpha = torch.optim.Adam(
            [alpha],
            lr=config.alpha_lr,
            betas=config.alpha_betas,
            weight_decay=config.alpha_weight_decay,
        )

    def begin(self, epoch: int) -> None:
        """Sets alpha's learning rate; that of the weights is the run's business."""
        passed = sum(epoch >= at for at in self.config.alpha_steps)
        for group in self.alpha.param_groups:
            group["lr"] = self.config.alpha_lr * 0.1**passed

    def loss(self, loss: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss and the vectors that it was computed of."""
        x = self.run.model(batch.images)[self.config.feature]
        return loss(x, batch.pid), x

    def iterate(self, train: Batch, validation: Batch, first: bool) -> dict[str, Tensor]:
        """One iteration on two batches; `first` of an epoch. Returns the losses to log."""
        if self.config.order == "code":
            return self._as_in_code(train, validation, first)
        train_loss, x = self.loss(self.train_loss, train)
        self.run.update(train_loss, *self.weights)
        self.train_loss.update(x, train.pid)
        validation_loss, x = self.loss(self.validation_loss, validation)
        # The weights' gradients of this pass are thrown away by their next update.
        self.run.update(validation_loss, self.alpha)
        self.validation_loss.update(x, validation.pid)
        return {"loss": train_loss, "validation": validation_loss}

    def _as_in_code(self, train: Batch, validation: Batch, first: bool) -> dict[str, Tensor]:
        losses = {}
        for optimizer in self.weights:
            optimizer.zero_grad(set_to_none=True)
        if not first:
            losses["validation"], x = self.loss(self.validation_loss, validation)
            self.run.update(losses["validation"], self.alpha)
            self.validation_loss.update(x, validation.pid)
        losses["loss"], x = self.loss(self.train_loss, train)
        # Without `run.update`, which would clear what the validation loss has left.
        self.run.backward(losses["loss"])
        for optimizer in self.weights:
            optimizer.step()
        self.train_loss.update(x, train.pid)
        return losses


def endless(run: Run, rows: Rows, epoch: int) -> Iterator[Batch]:
    """Batches of the rows, over and over, from streams 1, 2, ... of the epoch."""
    for stream in count(1):
        yield from run.batches(rows, epoch, stream)


def alternate(config: Search, run: Run, train: Rows, validation: Rows) -> None:
    """The search on two lists of pictures with labels from 0 each. An epoch is one pass over the
    first."""
    network = run.model.backbone.network
    alpha = network.alpha.requires_grad_()
    losses = _make_losses(config, run, train, validation)
    both = nn.ModuleList(losses).to(alpha)
    alternation = Alternation(config, run, alpha, losses)
    trace = Trace()
    optimizers = {f"weights{i}": one for i, one in enumerate(alternation.weights)}
    for epoch in run.epochs(losses=both, alpha=alternation.alpha, trace=trace, **optimizers):
        if epoch == 0 and config.loss == "memory" and config.memory_init == "centroid":
            for loss, rows in zip(losses, (train, validation), strict=True):
                assert isinstance(loss, ClassMemory)
                loss.start_from(
                    (features[config.feature], batch.pid) for features, batch in run.extract(rows)
                )
        alternation.begin(epoch)
        pairs = zip(run.batches(train, epoch), endless(run, validation, epoch), strict=False)
        for number, (batch, other) in enumerate(pairs):
            run.log(**alternation.iterate(batch, other, first=number == 0))
        trace.add(alpha)
        shown = "  ".join(f"{entropy(weights):.2f}" for weights in trace.epochs[-1])
        run.say(f"genotype {network.genotype()}  entropy {shown}")
        run.write(ALPHA_FILE, trace.table())
    run.write(GENOTYPE_FILE, genotype_text(network.genotype()))
    alpha.requires_grad_(False)


def _make_losses(
    config: Search, run: Run, train: Rows, validation: Rows
) -> tuple[SideLoss, SideLoss]:
    features, _ = next(iter(run.extract(run.train.take([0]))))
    length = features[config.feature].shape[1]
    if config.loss == "softmax":
        classifier = Classifier(train.identities, length)
        return classifier, classifier
    options = (config.temperature, config.momentum, config.normalize)
    return (
        ClassMemory(train.identities, length, *options),
        ClassMemory(validation.identities, length, *options),
    )


def search(config: Search, run: Run) -> None:
    """Searches the operations of a supernet (Gu et al. 2023, section 3.1), and leaves in the run
    folder the genotype and a table of all slots' weights after each epoch.

    Raises UsageError if the run's backbone is no supernet, or `order = "code"` meets gradient
    clipping, which the authors' code has not.
    """
    if not hasattr(getattr(run.model.backbone, "network", None), "alpha"):
        raise UsageError("procedure msinet.search needs the backbone msinet.supernet")
    optim = run.table["optim"] or {}
    if config.order == "code" and optim.get("clip_norm"):
        raise UsageError(
            "[procedure] order = 'code' clips no gradients; remove optim.clip_norm or use "
            "order = 'paper'"
        )
    split = config.categories(run.train.identities)
    train, validation = split_rows(run.train, split, config.halves, run.seed)
    alternate(config, run, train, validation)
