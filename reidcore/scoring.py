"""Templates of pictures, and distances between templates in tiles. One path for vector and
pairwise matchers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from reidcore.api import Matching
from reidcore.calibration import Pairs, Scale, choose_pictures, fit, row_minmax, sort_pairs
from reidcore.errors import DataError, PluginError
from reidcore.model import Model
from reidcore.modules import Batch, Images, Matcher, Meta, Rows, Template
from reidcore.pictures import PictureLoader
from reidcore.seeds import generator
from reidcore.tables import FITTED, RankingTable


def view_of(images: Images, view: str) -> Images:
    """A test view: plain, flip (mirrored left to right), zoom (the middle 7/8 of height and width,
    enlarged bilinearly to the whole) or zoom_flip (zoom, mirrored)."""
    pixels = images.pixels
    if view.startswith("zoom"):
        height, width = pixels.shape[-2:]
        tall, wide = height * 7 // 8, width * 7 // 8
        top, left = (height - tall) // 2, (width - wide) // 2
        middle = pixels[..., top : top + tall, left : left + wide]
        pixels = F.interpolate(middle, (height, width), mode="bilinear", align_corners=False)
    if view.endswith("flip"):
        pixels = pixels.flip(-1)
    return Images(pixels, images.modality, images.camera)


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
def template_batches(
    model: Model,
    names: Sequence[str],
    loader: PictureLoader,
    rows: Rows,
    views: Sequence[str] = ("plain",),
    size: int = 64,
) -> Iterator[dict[str, Template]]:
    """{matcher: template} of `size` rows after `size` rows, views merged, on the model's device."""
    matchers = {name: model.matchers[name] for name in names}
    training = model.training
    for batch in loader.plain(rows, size):
        images = batch.images.to(model.device)
        seen: dict[str, list[Template]] = {name: [] for name in names}
        model.eval()
        try:
            for view in views:
                features = model(view_of(images, view))
                for name, matcher in matchers.items():
                    seen[name].append(matcher.template(features))
            merged = {name: matcher.merge(seen[name]) for name, matcher in matchers.items()}
        finally:
            model.train(training)
        yield merged


def make_templates(
    model: Model,
    names: Sequence[str],
    loader: PictureLoader,
    rows: Rows,
    views: Sequence[str] = ("plain",),
    size: int = 64,
) -> dict[str, Template]:
    """{matcher: template} of all rows, views merged, on the model's device."""
    found = list(template_batches(model, names, loader, rows, views, size))
    return {name: concatenate([one[name] for one in found]) for name in names}


def concatenate(templates: Sequence[Template]) -> Template:
    """Templates joined along the images' axis."""
    return {key: torch.cat([one[key] for one in templates]) for key in templates[0]}


def count(template: Template) -> int:
    """Number of images."""
    return next(iter(template.values())).shape[0]


def take(template: Template, index: slice | Tensor) -> Template:
    """The template of some of the images."""
    return {
        key: value[index.to(value.device) if isinstance(index, Tensor) else index]
        for key, value in template.items()
    }


def tile_shape(queries: int, gallery: int, pair_bytes: int, memory: float) -> tuple[int, int]:
    """(rows, columns) of a tile whose pairs fit into `memory` GiB, as square as the sides allow."""
    pairs = max(1, int(memory * 2**30) // max(1, pair_bytes))
    columns = min(gallery, max(1, int(pairs**0.5)))
    rows = min(queries, max(1, pairs // max(1, columns)))
    columns = min(gallery, max(1, pairs // max(1, rows)))
    return max(1, rows), max(1, columns)


@torch.no_grad()
def score(
    matcher: Matcher,
    matching: Matching,
    a: Template,
    b: Template,
    memory: float = 0.5,
    device: torch.device | None = None,
) -> Tensor:
    """All distances, float32 [len(a), len(b)], computed in tiles; `a` is the query side.

    memory: GiB for one tile's pairs. Where a tile does not fit on the device it is halved. device:
    where to compute, by default where `a` is; templates that are elsewhere, such as mapped from
    disk, are moved there tile by tile.
    """
    rows, columns = count(a), count(b)
    device = next(iter(a.values())).device if device is None else device
    result = torch.empty(rows, columns, dtype=torch.float32, device=device)
    height, width = tile_shape(rows, columns, matching.pair_bytes, memory)
    training = matcher.training
    matcher.eval()
    try:
        _fill(matcher, a, b, result, height, width)
    finally:
        matcher.train(training)
    return result


def _moved(template: Template, device: torch.device) -> Template:
    return {key: value.to(device, non_blocking=True) for key, value in template.items()}


def _fill(
    matcher: Matcher, a: Template, b: Template, result: Tensor, height: int, width: int
) -> None:
    top = 0
    while top < result.shape[0]:
        left = 0
        while left < result.shape[1]:
            tile = slice(top, top + height), slice(left, left + width)
            try:
                result[tile] = matcher.distance(
                    _moved(take(a, tile[0]), result.device), _moved(take(b, tile[1]), result.device)
                )
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


@attrs.frozen(eq=False)
class Share:
    """One matcher's share in a ranking: its weight, and what is done to its distances."""

    name: str
    matcher: Matcher
    matching: Matching
    weight: float = 1.0
    scale: Scale | None = None


class MatcherRanking:
    """What a postprocessor may ask (`reidcore.modules.Ranking`), from stored templates.

    Distances are the weighted sum of the shares' scaled ones. templates: {side: {matcher:
    template}}. by_row: every row of query x gallery distances is stretched to [0, 1], so that
    distances between other sides would not compare with it and are refused.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        query: Meta,
        gallery: Meta,
        templates: Mapping[str, Mapping[str, Template]],
        memory: float = 0.5,
        by_row: bool = False,
    ):
        self.query = query
        self.gallery = gallery
        self._shares = tuple(shares)
        self._templates = templates
        self._memory = memory
        self._by_row = by_row

    def _refuse(self, asked: str) -> None:
        if self._by_row:
            raise PluginError(
                f"a postprocessor asked for {asked}, which scale = 'row_minmax' does not allow; "
                "its check() lacks given.need_matcher_distances()"
            )

    def _sum(self, measure: Callable[[Share], Tensor]) -> Tensor:
        total: Tensor | None = None
        for share in self._shares:
            distances = measure(share)
            if self._by_row:
                distances = row_minmax(distances)
            elif share.scale is not None:
                distances = share.scale(distances)
            if share.weight != 1:
                distances = distances * share.weight
            total = distances if total is None else total.add_(distances)
        assert total is not None
        return total

    def _score(self, share: Share, a: Template, b: Template) -> Tensor:
        device = self.query.camera.device
        return score(share.matcher, share.matching, a, b, self._memory, device)

    def between(self, a: str, b: str, start: int, stop: int) -> Tensor:
        if (a, b) != ("query", "gallery"):
            self._refuse(f"distances between {a} and {b}")
        rows = slice(start, stop)
        return self._sum(
            lambda share: self._score(
                share, take(self._templates[a][share.name], rows), self._templates[b][share.name]
            )
        )

    @torch.no_grad()
    def pairs(self, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        self._refuse("listed pairs")
        return self._sum(lambda share: self._pairs(share, a, i, b, j))

    def _pairs(self, share: Share, a: str, i: Tensor, b: str, j: Tensor) -> Tensor:
        left_side, right_side = self._templates[a][share.name], self._templates[b][share.name]
        result = torch.empty(len(i), dtype=torch.float32, device=i.device)
        # One row of the pairwise form per distinct left side: listed pairs come in such groups.
        lefts, counts = i.unique(return_counts=True)
        groups = i.argsort(stable=True).split(counts.tolist())
        for left, where in zip(lefts, groups, strict=True):
            row, columns = take(left_side, left[None]), take(right_side, j[where])
            result[where] = self._score(share, row, columns)[0]
        return result

    @torch.no_grad()
    def expanded(self, neighbours: Tensor) -> Tensor:
        return self._sum(lambda share: self._expanded(share, neighbours))

    def _expanded(self, share: Share, neighbours: Tensor) -> Tensor:
        own, others = (self._templates[side][share.name] for side in ("query", "gallery"))
        views = [own, *(take(others, neighbours[:, k]) for k in range(neighbours.shape[1]))]
        return self._score(share, share.matcher.merge(views), others)


def ranking_of(
    model: Model,
    ranking: RankingTable,
    query: Meta,
    gallery: Meta,
    templates: Mapping[str, Mapping[str, Template]],
    memory: float,
    pairs: Mapping[str, Pairs],
) -> MatcherRanking:
    """The ranking context of two sides. `pairs` holds the matchers' distances of training pairs.

    Raises DataError for a scale that has to be fitted where they are missing.
    """
    shares = [
        Share(
            name, model.matchers[name], model.plan.matching(name), weight,
            _fitted(ranking, name, pairs),
        )
        for name, weight in ranking.weights.items()
    ]  # fmt: skip
    by_row = ranking.scale == "row_minmax"
    return MatcherRanking(shares, query, gallery, templates, memory, by_row)


def _fitted(ranking: RankingTable, matcher: str, pairs: Mapping[str, Pairs]) -> Scale | None:
    if ranking.scale not in FITTED:
        return None
    place = f"ranking {ranking.name!r}: matcher {matcher!r}"
    if matcher not in pairs:
        raise DataError(
            f"{place}: scale = {ranking.scale!r} is fitted on training pairs, but the run has kept "
            "none: it was trained without data.train, or these are weights-best.safetensors of a "
            "run whose own rankings need none"
        )
    try:
        return fit(ranking.scale, pairs[matcher])
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def training_pairs(
    model: Model,
    names: Sequence[str],
    loader: PictureLoader,
    rows: Rows,
    views: Sequence[str],
    size: int,
    memory: float,
    seed: int,
) -> dict[str, Pairs]:
    """{matcher: distances of some training pairs}, for scales that are fitted on them."""
    if not len(rows) or not names:
        return {}
    rows = rows.take(choose_pictures(rows, generator(seed, "training pairs")))
    templates = make_templates(model, names, loader, rows, views, size)
    return {
        name: sort_pairs(
            score(model.matchers[name], model.plan.matching(name), template, template, memory), rows
        )
        for name, template in templates.items()
    }
