"""Scales that make different matchers' distances comparable, fitted on training pairs.

Every fitted scale is strictly increasing, so but for rounding it never changes the ranking by one
matcher alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from reidcore.contracts.exporting import is_exporting
from reidcore.errors import DataError
from reidcore.model.training_pairs import Pairs

Scale = Callable[[Tensor], Tensor]

STEADY = 0.01
"""Share of a curve without flat parts in a fitted probability, so that pairs stay apart also where
the probability hardly changes."""


def fit(kind: str, pairs: Pairs) -> Scale:
    """Return the scale of this kind, `Tensor -> Tensor` of any shape in float32.

    constant divides by the mean distance of strangers. logistic and isotonic give the probability,
    in [0, 1], that a pair are strangers, if both kinds of pairs were equally frequent.
    Raises DataError where the training pairs do not allow it.
    """
    if not len(pairs.different) or (kind != "constant" and not len(pairs.same)):
        lack = "different identities" if not len(pairs.different) else "one identity"
        raise DataError(f"scale {kind!r}: the training pictures have no pair of {lack} to fit on")
    if kind == "constant":
        mean = max(pairs.different.double().mean().item(), torch.finfo(torch.float32).tiny)
        return lambda distances: distances / mean
    return _logistic(pairs) if kind == "logistic" else _isotonic(pairs)


def _logistic(pairs: Pairs) -> Scale:
    """Platt's sigmoid (Platt 1999) by Newton's method (Lin et al. 2007, algorithm 1), with both
    kinds of pairs weighing the same and Platt's targets, which keep the slope finite where the
    pairs are separable."""
    same, different = pairs.same.double(), pairs.different.double()
    centre, spread = _centre_and_spread(pairs)
    x = (torch.cat([same, different]) - centre) / spread
    weight = torch.cat([torch.full_like(part, 0.5 / len(part)) for part in (same, different)])
    target = torch.cat(
        [
            torch.full_like(same, 1 / (len(same) + 2)),
            torch.full_like(different, (len(different) + 1) / (len(different) + 2)),
        ]
    )
    slope, shift = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)

    def cost(slope: Tensor, shift: Tensor) -> Tensor:
        z = slope * x + shift
        return (weight * (torch.nn.functional.softplus(z) - target * z)).sum()

    for _ in range(100):
        p = torch.sigmoid(slope * x + shift)
        error, curve = weight * (p - target), weight * p * (1 - p)
        gradient = torch.stack([(error * x).sum(), error.sum()])
        mixed = (curve * x).sum()
        hessian = torch.stack(
            [torch.stack([(curve * x * x).sum(), mixed]), torch.stack([mixed, curve.sum()])]
        ) + 1e-12 * torch.eye(2, dtype=torch.float64)
        if gradient.abs().max() < 1e-12:
            break
        step = torch.linalg.solve(hessian, gradient)
        length = 1.0
        while length > 1e-10 and cost(slope - length * step[0], shift - length * step[1]) > cost(
            slope, shift
        ):
            length /= 2
        slope, shift = slope - length * step[0], shift - length * step[1]
    # A matcher whose matches are the farther ones must not have its ranking turned round.
    a, b = max(slope.item(), 0.0), shift.item()
    return _steadied(lambda z: torch.sigmoid(a * z + b), centre, spread)


def _centre_and_spread(pairs: Pairs) -> tuple[float, float]:
    """Return mean and deviation of all distances, both kinds of pairs weighing the same."""
    kinds = [part.double() for part in (pairs.same, pairs.different)]
    centre = sum(part.mean().item() for part in kinds) / 2
    variance = sum((part - centre).square().mean().item() for part in kinds) / 2
    return centre, max(variance**0.5, 1e-12)


def _steadied(probability: Scale, centre: float, spread: float) -> Scale:
    """Return the scale of a nowhere decreasing probability of z = (d - centre) / spread, mixed with
    (1 + z / (1 + |z|)) / 2, which increases everywhere."""

    def scale(distances: Tensor) -> Tensor:
        z = (distances.double() - centre) / spread
        steady = (1 + z / (1 + z.abs())) / 2
        return ((1 - STEADY) * probability(z) + STEADY * steady).float()

    return scale


def _isotonic(pairs: Pairs) -> Scale:
    """Isotonic regression by pooling adjacent violators (Zadrozny and Elkan 2002), linear between
    the pools' mean distances."""
    centre, spread = _centre_and_spread(pairs)
    same, different = (
        (part.double().numpy() - centre) / spread for part in (pairs.same, pairs.different)
    )
    x, place = np.unique(np.concatenate([same, different]), return_inverse=True)
    mass = np.zeros((2, len(x)))  # of matches, of strangers
    for row, part, places in ((0, same, place[: len(same)]), (1, different, place[len(same) :])):
        np.add.at(mass[row], places, 0.5 / len(part))
    pools: list[list[float]] = []  # [weight, weight of strangers, weighted distance]
    for distance, matches, strangers in zip(x, *mass, strict=True):
        weight = matches + strangers
        pools.append([weight, strangers, weight * distance])
        while len(pools) > 1 and pools[-2][1] * pools[-1][0] >= pools[-1][1] * pools[-2][0]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    at = torch.tensor([d / w for w, _, d in pools], dtype=torch.float64)
    share = torch.tensor([s / w for w, s, _ in pools], dtype=torch.float64)
    return _steadied(lambda z: _interpolated(z, at, share), centre, spread)


def _interpolated(z: Tensor, at: Tensor, share: Tensor) -> Tensor:
    """Interpolate linearly between the knots (at, share), level beyond the first and the last."""
    at, share = at.to(z.device), share.to(z.device)
    last = len(at) - 1
    right = (_places(at, z) if is_exporting() else torch.searchsorted(at, z)).clamp(
        min(1, last), last
    )
    left = (right - 1).clamp(min=0)
    width = (at[right] - at[left]).clamp(min=1e-300)
    return share[left] + (share[right] - share[left]) * ((z - at[left]) / width).clamp(0, 1)


def _places(at: Tensor, z: Tensor) -> Tensor:
    """Return `torch.searchsorted(at, z)` in operations that every graph format has."""
    found = torch.zeros_like(z, dtype=torch.int64)
    step = 1 << (len(at).bit_length() - 1)
    while step:
        further = (found + step).clamp(max=len(at))
        below = at[further - 1] < z
        found = torch.where(below & (found + step <= len(at)), further, found)
        step //= 2
    return found


def row_minmax(distances: Tensor) -> Tensor:
    """Return [Q, G] with every row stretched to [0, 1]; a constant row becomes 0."""
    low = distances.amin(1, keepdim=True)
    span = distances.amax(1, keepdim=True) - low
    return (distances - low) / torch.where(span > 0, span, 1)
