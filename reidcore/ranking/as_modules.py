"""A ranking as two torch modules of tensors alone, of which graphs can be made.

What `Comparer` does with rows, batches and tiles, they do with one batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reidcore.contracts.parts import Template
from reidcore.contracts.pictures import Images
from reidcore.data.decoding import IMAGENET_PIXELS
from reidcore.errors import UsageError
from reidcore.model.model import Model
from reidcore.ranking.comparer import make_fusion
from reidcore.ranking.fusion import Fusion, Share
from reidcore.ranking.templates import view_of
from reidcore.runfiles.tables import Normalize, RankingTable


class TemplateModule(nn.Module):
    """Pictures to the templates of matchers: normalised, in all test views, views merged.

    Attributes:
        names: "MATCHER.KEY" of the tensors of templates, in the order in which they are given.
        image: (height, width) of the pictures in pixels.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: Model, matchers: Sequence[str]):
        super().__init__()
        plan = model.plan
        self.model = model
        self.matchers = tuple(matchers)
        self.specs = {
            f"{name}.{key}": spec
            for name in matchers
            for key, spec in plan.matching(name).template.items()
        }
        self.names = tuple(self.specs)
        self.views = tuple(plan.runfile.eval.views)
        self.image = plan.runfile.data.image
        by = _statistics(plan.runfile.data.normalize)
        for name, values in (("mean", by.mean), ("deviation", by.deviation)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, pictures: Tensor, modality: Tensor, camera: Tensor) -> dict[str, Tensor]:
        """Return {name: tensor [B, ...]}, in the dtype in which templates are stored.

        pictures: uint8 [B, H, W, 3], red, green and blue, resized. modality: int64 [B], the place
        in the run's modalities. camera: int64 [B], its number, -1 if unknown.
        """
        scaled = pictures.permute(0, 3, 1, 2).float() / 255
        weight = next(self.model.parameters(), self.mean)
        pixels = ((scaled - self.mean) / self.deviation).to(weight.dtype)
        images = Images(pixels, modality, camera)
        matchers = self.model.matchers
        viewed: dict[str, list[Template]] = {name: [] for name in self.matchers}
        for view in self.views:
            features = self.model(view_of(images, view))
            for name in self.matchers:
                viewed[name].append(matchers[name].template(features))
        merged = {name: matchers[name].merge(viewed[name]) for name in self.matchers}
        return {name: _of(merged, name) for name in self.names}


class DistanceModule(nn.Module):
    """Templates of two sides to the distances of a ranking, with its weights and scales.

    Attributes:
        names: "MATCHER.KEY" of the tensors of templates that it reads.
        whole_gallery: whether a distance depends on all others of its row, as by `row_minmax`, so
            that the gallery must not be divided.
    """

    def __init__(self, model: Model, fusion: Fusion):
        super().__init__()
        self.fusion = fusion
        self.parts = nn.ModuleList([share.matcher for share in fusion.shares])
        self.names = tuple(
            f"{share.name}.{key}" for share in fusion.shares for key in share.matching.template
        )
        self.whole_gallery = fusion.by_row

    def forward(self, a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        """Return float32 [Q, G] of templates by name, [Q, ...] of the queries and [G, ...]."""

        def own(share: Share) -> Tensor:
            sides = (
                {key: side[f"{share.name}.{key}"] for key in share.matching.template}
                for side in (a, b)
            )
            return share.matcher.distance(*sides).float()

        return self.fusion.sum(own)


def ranking_modules(
    model: Model, ranking: RankingTable
) -> tuple[TemplateModule, DistanceModule, DistanceModule | None]:
    """Return a ranking of a trained run as modules: pictures to templates, templates to distances,
    and templates to the distances by which its shortlist is chosen, if it has one.

    Postprocessors are no part of them. They share the model's parts.

    Raises:
        reidcore.errors.DataError: for a scale that cannot be fitted.

    Example:
        >>> from reidcore.tools import load, ranking_modules
        >>> run = load("runs/demo", device="cpu")  # doctest: +SKIP
        >>> templates, distances, _ = ranking_modules(run.model, run.plan.rankings[0])
        ... # doctest: +SKIP
    """
    if ranking not in model.plan.rankings:
        raise UsageError(f"ranking {ranking.name!r} is none of the model's plan")
    fusion = make_fusion(ranking, model, model.pairs)
    coarse = None
    if fusion.shortlist is not None:
        coarse = DistanceModule(model, Fusion([fusion.shortlist.share]))
    return TemplateModule(model, ranking.matchers), DistanceModule(model, fusion), coarse


def _of(merged: dict[str, Template], name: str) -> Tensor:
    matcher, _, key = name.partition(".")
    return merged[matcher][key]


def _statistics(by: str | Normalize) -> Normalize:
    if isinstance(by, Normalize):
        return by
    if by == "imagenet":
        return IMAGENET_PIXELS
    return Normalize(mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0))
