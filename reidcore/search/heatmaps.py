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
    """Return how much each place of a map raises a score.

    It is the channels' sum, each weighted by its gradient's mean over all places, cut off below 0
    (Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2).

    Args:
        values: float [B, C, h, w], the map of B pictures.
        gradient: float [B, C, h, w], the gradient of the score with respect to `values`.

    Returns:
        float [B, h, w], at least 0.

    Example:
        >>> values = torch.tensor([[[[1.0, 3.0]]]], requires_grad=True)
        >>> score = (2 * values).sum()
        >>> gradient = torch.autograd.grad(score, values)[0]
        >>> grad_cam(values, gradient).tolist()
        [[[2.0, 6.0]]]
    """
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * values).sum(1).clamp(min=0)
