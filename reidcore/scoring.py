"""Templates of pictures, and distances between templates in tiles. One path for vector and
pairwise matchers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from reidcore.api import Matching
from reidcore.model import Model
from reidcore.modules import Batch, Images, Matcher, Meta, Rows, Template
from reidcore.pictures import PictureLoader, meta_of


def view_of(images: Images, view: str) -> Images:
    """A test view: plain, or mirrored left to right."""
    if view == "plain":
        return images
    return Images(images.pixels.flip(-1), images.modality, images.camera)


@torch.no_grad()
def extract(
    model: Model, loader: PictureLoader, rows: Rows, size: int
) -> Iterator[tuple[dict[str, Tensor], Batch]]:
    """(features, batch) in row order, eval mode, test transform; the mode is restored after each
    batch, so the caller may train in between."""
    device = model.device
    for batch in loader.plain(rows, size):
        batch = Batch(batch.images.to(device), batch.pid.to(device))
        training = model.training
        model.eval()
        try:
            features = model(batch.images)
        finally:
            model.train(training)
        yield features, batch


@torch.no_grad()
def make_templates(
    model: Model,
    names: Sequence[str],
    loader: PictureLoader,
    rows: Rows,
    views: Sequence[str] = ("plain",),
    size: int = 64,
) -> dict[str, Template]:
    """{matcher: template} of all rows, views merged, on the model's device."""
    device = model.device
    training = model.training
    model.eval()
    matchers = {name: model.matchers[name] for name in names}
    parts: dict[str, list[Template]] = {name: [] for name in names}
    try:
        for batch in loader.plain(rows, size):
            images = batch.images.to(device)
            seen: dict[str, list[Template]] = {name: [] for name in names}
            for view in views:
                features = model(view_of(images, view))
                for name, matcher in matchers.items():
                    seen[name].append(matcher.template(features))
            for name, matcher in matchers.items():
                parts[name].append(matcher.merge(seen[name]))
    finally:
        model.train(training)
    return {name: concatenate(found) for name, found in parts.items()}


def concatenate(templates: Sequence[Template]) -> Template:
    """Templates joined along the images' axis."""
    return {key: torch.cat([one[key] for one in templates]) for key in templates[0]}


def count(template: Template) -> int:
    """Number of images."""
    return next(iter(template.values())).shape[0]


def take(template: Template, index: slice | Tensor) -> Template:
    """The template of some of the images."""
    return {key: value[index] for key, value in template.items()}


def tile_shape(queries: int, gallery: int, pair_bytes: int, memory: float) -> tuple[int, int]:
    """(rows, columns) of a tile whose pairs fit into `memory` GiB, as square as the sides allow."""
    pairs = max(1, int(memory * 2**30) // max(1, pair_bytes))
    columns = min(gallery, max(1, int(pairs**0.5)))
    rows = min(queries, max(1, pairs // max(1, columns)))
    columns = min(gallery, max(1, pairs // max(1, rows)))
    return max(1, rows), max(1, columns)


@torch.no_grad()
def score(
    matcher: Matcher, matching: Matching, a: Template, b: Template, memory: float = 0.5
) -> Tensor:
    """All distances, float32 [len(a), len(b)], computed in tiles; `a` is the query side.

    memory: GiB for one tile's pairs. Where a tile does not fit on the device it is halved.
    """
    rows, columns = count(a), count(b)
    device = next(iter(a.values())).device
    result = torch.empty(rows, columns, dtype=torch.float32, device=device)
    height, width = tile_shape(rows, columns, matching.pair_bytes, memory)
    training = matcher.training
    matcher.eval()
    try:
        _fill(matcher, a, b, result, height, width)
    finally:
        matcher.train(training)
    return result


def _fill(
    matcher: Matcher, a: Template, b: Template, result: Tensor, height: int, width: int
) -> None:
    top = 0
    while top < result.shape[0]:
        left = 0
        while left < result.shape[1]:
            tile = slice(top, top + height), slice(left, left + width)
            try:
                result[tile] = matcher.distance(take(a, tile[0]), take(b, tile[1]))
            except torch.OutOfMemoryError:
                if height == width == 1:
                    raise
                torch.cuda.empty_cache()
                # Halving the larger side keeps tiles that are done and starts this row again.
                height, width = (
                    (height, -(-width // 2)) if width >= height else (-(-height // 2), width)
                )
                left = 0
                continue
            left += width
        top += height


class MatcherRanking:
    """What a postprocessor may ask (`reidcore.modules.Ranking`), from stored templates."""

    def __init__(
        self,
        matcher: Matcher,
        matching: Matching,
        query: Meta,
        gallery: Meta,
        templates: dict[str, Template],
        memory: float = 0.5,
    ):
        self.query = query
        self.gallery = gallery
        self._matcher = matcher
        self._matching = matching
        self._templates = templates
        self._memory = memory

    def between(self, a: str, b: str, start: int, stop: int) -> Tensor:
        rows = take(self._templates[a], slice(start, stop))
        return score(self._matcher, self._matching, rows, self._templates[b], self._memory)

    @torch.no_grad()
    def pairs(self, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        result = torch.empty(len(i), dtype=torch.float32, device=i.device)
        # One row of the pairwise form per distinct left side: listed pairs come in such groups.
        for left in i.unique():
            where = (i == left).nonzero()[:, 0]
            row = take(self._templates[a], left[None])
            columns = take(self._templates[b], j[where])
            result[where] = score(self._matcher, self._matching, row, columns, self._memory)[0]
        return result

    @torch.no_grad()
    def expanded(self, neighbours: Tensor) -> Tensor:
        own, others = self._templates["query"], self._templates["gallery"]
        views = [own, *(take(others, neighbours[:, k]) for k in range(neighbours.shape[1]))]
        merged = self._matcher.merge(views)
        return score(self._matcher, self._matching, merged, others, self._memory)


def ranking_of(
    model: Model, name: str, query: Rows, gallery: Rows, templates: dict[str, Template],
    memory: float,
) -> MatcherRanking:  # fmt: skip
    """The ranking context of two sides' rows, on the model's device."""
    matching = model.plan.matching(name)
    device = model.device
    return MatcherRanking(
        model.matchers[name], matching, meta_of(query).to(device), meta_of(gallery).to(device),
        templates, memory,
    )  # fmt: skip
