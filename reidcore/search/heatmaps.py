"""Scores whose Grad-CAM explains a match: a matcher's closeness, a vector's, an identity's.

Each is a scalar that depends on named maps; `cams` says where in the maps it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reidcore.contracts.parts import Matcher
from reidcore.ranking.templates import take


def cams(score: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return {map: Grad-CAM [B, h, w]} of a scalar, for those of the maps [B, C, h, w] that it
    depends on."""
    if not values or not score.requires_grad:
        return {}
    gradients = torch.autograd.grad(
        score, list(values.values()), retain_graph=True, allow_unused=True
    )
    return {
        name: grad_cam(value, gradient)
        for (name, value), gradient in zip(values.items(), gradients, strict=True)
        if gradient is not None
    }


def closeness(matcher: Matcher, features: Mapping[str, Tensor]) -> Tensor:
    """Return minus the matcher's distance between the first picture, the query, and the second."""
    template = matcher.merge([matcher.template(features)])
    pair = take(template, slice(0, 1)), take(template, slice(1, 2))
    return -matcher.distance(*pair).squeeze()


def similarity(vectors: Tensor) -> Tensor:
    """Return the cosine of the first and the second of vectors [2, D]; 0 where one is zero."""
    first, second = F.normalize(vectors, dim=1)
    return first @ second


def identity_score(scores: Tensor, identity: int | None = None) -> Tensor:
    """Return the sum over B pictures of the score of one identity, or of each picture's highest.
    Pictures do not share a gradient, so each keeps its own. scores: [B, identities]."""
    if identity is None:
        return scores.amax(1).sum()
    return scores[:, identity].sum()


def grad_cam(values: Tensor, gradient: Tensor) -> Tensor:
    """Return Grad-CAM of a map: how much each place raises a number that depends on it.

    It is the sum of the channels, each weighted by the mean of its gradient over all places, and
    cut off below 0 (Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2).

    Args:
        values: The map, float [B, C, h, w].
        gradient: Gradient of the number with respect to the map, [B, C, h, w].

    Returns:
        float [B, h, w], at least 0.

    Example:
        >>> import torch
        >>> from reidcore.modules import grad_cam
        >>> maps = torch.rand(1, 8, 4, 2, requires_grad=True)
        >>> number = maps[:, :, 0].sum()  # depends on the top row alone
        >>> (gradient,) = torch.autograd.grad(number, maps)
        >>> grad_cam(maps, gradient).shape
        torch.Size([1, 4, 2])
    """
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * values).sum(1).clamp(min=0)
