"""Pictures as `ipad.mutual` stores them, at random."""

from __future__ import annotations

import torch
from torch import Tensor

from reid_ipad.mutual import Mutual, build_mutual
from reid_ipad.settings_matchers import Mutual as Settings
from reidcore.api import Feature, Given
from reidcore.modules import Context, Template

Side = tuple[Tensor, Tensor]


def side(count: int, filters: int, length: int, seed: int) -> Side:
    """float32 kernels of Frobenius length 1 and vectors, of both signs."""
    draw = torch.Generator().manual_seed(seed)
    kernels = torch.randn(count, filters, length, generator=draw)
    kernels /= kernels.flatten(1).norm(dim=1)[:, None, None]
    return kernels, torch.randn(count, length, generator=draw)


def build(length: int, filters: int, views=("plain",), **settings) -> Mutual:
    features = {"x.vector": Feature.vector(length), "x.kernel": Feature.tensor(filters, length)}
    config = Settings(feature="x.vector", kernel="x.kernel", **settings)
    given = Given((8, 8), features=features, views=views)
    return build_mutual(config, Context(given, "pairs")).eval()


def stored(matcher: Mutual, *views: Side) -> Template:
    return matcher.merge([dict(zip(("kernel", "vector"), view, strict=True)) for view in views])
