"""Batch normalisation by the statistics of all processes' pictures, on any device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from reidcore.distributed.processes import Processes


class SynchronisedNorms(TorchFunctionMode):
    """A context in which batch norms take their statistics from all processes' values. Norms that
    keep their statistics are left alone.

    It replaces `F.batch_norm`, which every batch norm calls.

    All processes must come to the same norms in the same order. What `torch.utils.checkpoint`
    computes again in the backward pass is outside and would see the own values only.
    """

    def __init__(self, processes: Processes):
        super().__init__()
        self._processes = processes

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Do what `F.batch_norm` does, which has these parameters."""
        if not training:
            return F.batch_norm(
                input, running_mean, running_var, weight, bias, False, momentum, eps
            )
        mean, var, count = moments(input.detach(), self._processes)
        if count.device.type == "cpu" and count <= 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got {int(count)} in all "
                "processes together"
            )
        with torch.no_grad():
            if running_mean is not None:
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            if running_var is not None:
                unbiased = var * (count / (count - 1))
                running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        normed: Tensor = _Normed.apply(input, weight, bias, mean, var, eps, count, self._processes)
        return normed


def moments(values: Tensor, processes: Processes) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean [C], the biased variance [C] and the number [] of a channel's values, of all
    processes' `values` [B, C, ...], at least float32. Any process may have none."""
    dtype, channels = torch.promote_types(values.dtype, torch.float32), values.shape[1]
    count = values.numel() // channels
    if count:
        # What a batch norm of one process takes; on a CPU many times as fast as torch.var_mean, but
        # in 16 bits there it would round them.
        wide = values if values.is_cuda else values.to(dtype)
        mean, var = (x.to(dtype) for x in torch.batch_norm_update_stats(wide, None, None, 0.0))
    else:
        mean = var = values.new_zeros(channels, dtype=dtype)
    sent = torch.cat([mean, var, mean.new_tensor([count])])
    means, variances, counts = processes.stacked(sent).split([channels, channels, 1], 1)
    total = counts.sum()
    shares = counts / total
    mean = (shares * means).sum(0)
    # Deviations from the common mean, not a difference of squares, which would lose small ones.
    var = (shares * (variances + (means - mean).square())).sum(0)
    return mean, var, total


class _Normed(torch.autograd.Function):
    """The values less a mean, over a deviation, times a weight, plus a bias, where mean and
    variance follow from all processes' values (Ioffe and Szegedy 2015, algorithm 1)."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        eps: float,
        count: Tensor,
        processes: Processes,
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, var, count)
        ctx.eps, ctx.processes = eps, processes
        if not values.numel():
            return torch.empty_like(values)
        return F.batch_norm(values, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, var, count = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        made, for_weight, for_bias = gradient, torch.zeros_like(mean), torch.zeros_like(mean)
        if values.numel():
            # As if mean and variance were given; what follows adds their own gradients.
            made, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
                gradient, values, scale, mean, var, None, None, False, ctx.eps, [True] * 3
            )
        sums = torch.stack([for_bias, for_weight]).to(mean.dtype)
        ctx.processes.add(sums)
        if values.numel():
            # Through both: (sum of gradients + normed value * sum of their products) * factor.
            offset, slope = sums * (scale * torch.rsqrt(var + ctx.eps) / count)
            made = made - F.batch_norm(values, mean, var, slope, offset, False, 0.0, ctx.eps)
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        return (
            made,
            for_weight if needs_weight else None,
            for_bias if needs_bias else None,
            None,
            None,
            None,
            None,
            None,
        )
