"""Optimizers and learning rates, as the run file's table [optim] says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from reidcore.errors import UsageError
from reidcore.model.model import Model, value_of_role
from reidcore.runfiles.tables import Optim


def rate_factor(optim: Optim, epoch: int, epochs: int) -> float:
    """Return the factor of the learning rate in an epoch, counted from 0."""
    factor = 1.0
    if optim.steps is not None:
        factor *= optim.steps.by ** sum(epoch >= at for at in optim.steps.at)
    if optim.cosine is not None:
        wave = 0.5 * (1 + math.cos(math.pi * epoch / max(1, epochs)))
        factor *= optim.cosine.to + (1 - optim.cosine.to) * wave
    if optim.warmup is not None and epoch < optim.warmup.epochs - 1:
        share = epoch / (optim.warmup.epochs - 1)
        factor *= optim.warmup.start + (1 - optim.warmup.start) * share
    return factor


def set_rates(
    optimizers: Iterable[torch.optim.Optimizer], optim: Optim, epoch: int, epochs: int
) -> None:
    """Set the learning rates of an epoch, counted from 0."""
    factor = rate_factor(optim, epoch, epochs)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


def make_optimizer(optim: Optim, trained: Model | Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return an optimizer of a model, with the learning rate scales of its roles, or of parameters.
    Each parameter group keeps its first rate as `base_lr`.

    Raises UsageError where there is nothing to train.
    """
    groups: list[dict[str, Any]] = []
    if isinstance(trained, Model):
        for role, module in trained.parts():
            found = [p for p in module.parameters() if p.requires_grad]
            if found:
                groups.append(
                    {"params": found, "lr": optim.lr * value_of_role(optim.scale, role, 1.0)}
                )
    else:
        groups.append({"params": list(trained), "lr": optim.lr})
    if not any(group["params"] for group in groups):
        raise UsageError("[optim]: nothing to train, the model has no trainable parameters")
    made: torch.optim.Optimizer
    # One kernel for all weights; on a CPU the plain loop, whose rounding runs have always had.
    fused = all(p.is_cuda for group in groups for p in group["params"]) or None
    if optim.kind == "sgd":
        made = torch.optim.SGD(
            groups,
            lr=optim.lr,
            momentum=optim.momentum,
            nesterov=optim.nesterov,
            weight_decay=optim.weight_decay,
            fused=fused,
        )
    else:
        kind = torch.optim.Adam if optim.kind == "adam" else torch.optim.AdamW
        made = kind(
            groups, lr=optim.lr, betas=optim.betas, weight_decay=optim.weight_decay, fused=fused
        )
    for group in made.param_groups:
        group["base_lr"] = group["lr"]
    return made


def owned(optimizers: Iterable[torch.optim.Optimizer]) -> list[Tensor]:
    """Return all parameters of the optimizers."""
    return [p for one in optimizers for group in one.param_groups for p in group["params"]]


def lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded state the strides of its parameters, which files do not keep: steps over unlike
    strides are slower, and may round otherwise."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            # Not the number of steps, which has its own device, and a single weight's shape.
            if key != "step" and isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
