"""A loss is tried before a run has it: on random vectors, of a batch as the run's sampler makes it.

Whether a class of the library is a loss of features and identities, and keeps nothing from one
batch to the next, cannot be read from its signature, and other versions have other classes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from reid_metric_learning.classes import in_words
from reid_metric_learning.loss import MetricLoss
from reid_metric_learning.settings import MetricLossSettings
from reidcore.api import BatchShape, Given, WiringError
from reidcore.modules import Batch, Images

MOST = 4
"""Identities, and pictures of each, of the batch at most."""


def _labels(shape: BatchShape, identities: int) -> Tensor:
    """Identities of a small batch of the sampler's kind, int64 [B]; of unequal numbers where it
    promises none."""
    if shape.ids is None or shape.per_id is None:
        return torch.tensor([0, 0, 0, 1, 1, min(2, identities - 1)])
    ids, per_id = min(shape.ids, identities, MOST), min(shape.per_id, MOST)
    return torch.arange(ids).repeat_interleave(per_id)


def _value(loss: MetricLoss, x: Tensor, pid: Tensor) -> Tensor:
    """The loss of vectors [B, D], with the same random numbers in each call."""
    torch.manual_seed(0)
    none = torch.zeros_like(pid)
    images = Images(x.new_zeros(len(pid), 3, 1, 1), none, none)
    return loss({loss.feature: x}, Batch(images, pid))[0]


def _fits(mined: tuple[Tensor, ...] | None, pid: Tensor) -> bool:
    """Return True if a miner's positives share an identity, and its negatives do not."""
    if mined is None:
        return True
    a1, p, a2, n = mined if len(mined) == 4 else (*mined[:2], mined[0], mined[2])
    return bool((pid[a1] == pid[p]).all() and (pid[a2] != pid[n]).all())


def try_loss(config: MetricLossSettings, given: Given) -> None:
    """WiringError unless the loss can be made and works as losses have to (docs/contracts.md)."""
    pid = _labels(given.batch, given.identities)
    length = given.vector(config.feature)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # The classes' number is not the run's: a trial must not take the memory of a million.
        loss = MetricLoss(config, min(given.identities, MOST), length)
        with torch.no_grad():
            for parameter in loss.parameters():
                # As after a step: some losses normalise their weights when they are made.
                parameter.add_(0.1 * torch.randn_like(parameter))
        fresh = copy.deepcopy(loss)
        first, second = (torch.randn(len(pid), length, requires_grad=True) for _ in range(2))
        before = copy.deepcopy(loss.state_dict())
        what = f"is {config.loss!r}" + (f" with the miner {config.miner!r}" if config.miner else "")
        try:
            fits = _fits(loss.mined(first, pid), pid)
            value = _value(loss, first, pid)
            again, anew = _value(loss, second, pid), _value(fresh, second, pid)
        except Exception as error:  # the library refuses in many ways
            raise WiringError(
                "loss",
                f"{what}, which does not work on a batch of vectors and identities as data.batch "
                f"makes them: {in_words(error)}",
            ) from error
    given.need(
        fits, "miner", f"is {config.miner!r}, which does not go by the identities of a batch's rows"
    )
    after = loss.state_dict()
    given.need(
        all(torch.equal(before[key], after[key]) for key in before),
        "loss",
        f"{what}, which changes its own weights while it computes; a loss may not, because a "
        "resumed run could end otherwise",
    )
    given.need(
        torch.equal(again, anew),
        "loss",
        f"{what}, which keeps something of every batch for the next one and saves it nowhere, so "
        "that a run could not be resumed",
    )
    given.need(
        bool(value.isfinite()), "loss", f"{what}, which gives {value.item()} on random vectors"
    )
