"""Query-adaptive convolution: the locations of two maps matched with each other (Liao and Shao
2020, sections 3.1 and 3.2)."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Literal

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from reid_qaconv.local import unit_locations
from reid_qaconv.settings_matching import Matcher as MatcherSettings
from reidcore.api import Lines
from reidcore.modules import Context, Fused, Matcher, Template, at_least_float32, is_exporting

CACHED = 2**17
"""Responses computed at a time on a CPU: 512 KiB, about what a core's second cache holds."""
LAUNCHED = 2**26
"""Responses computed at a time on a GPU: 256 MiB."""


def best_matches(a: Tensor, b: Tensor) -> Tensor:
    """Every location's largest inner product with a location of the other picture, for all pairs.

    a: [A, L, D], the query side. b: [B, L, D], the gallery side. Returns [2, A, B, L], which
    unpacks into m_G[.., j] = max_i <b_j, a_i> and m_Q[.., i] = max_j <b_j, a_i>. Differentiable
    once in both; where several locations match equally, the first takes the gradient. The responses
    [A, B, L, L] never exist at once, and for the backward pass only the maxima's places are kept.
    With a gradient, pictures matched with themselves (b is a) take about half the time on a CPU.
    """
    if is_exporting():
        return plain_matches(a, b)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        best: Tensor = _BestMatches.apply(a, None if b is a else b)
        return best
    best = a.new_empty(2, len(a), len(b), a.shape[1])
    for responses, gallery, query in _responses(a, b, *best):
        torch.amax(responses, 3, out=gallery)
        torch.amax(responses, 2, out=query)
    return best


def plain_matches(a: Tensor, b: Tensor) -> Tensor:
    """`best_matches` without tiles, for graphs that hold for any number of pictures: the responses
    of all pairs exist at once."""
    length = a.shape[1]
    responses = b.flatten(0, 1) @ a.flatten(0, 1).T
    responses = responses.view(b.shape[0], length, a.shape[0], length)
    return torch.stack((responses.amax(3).permute(2, 0, 1), responses.amax(1).transpose(0, 1)))


@torch.no_grad()
def located_matches(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """`best_matches` without gradient, and as int32 of that shape the location of the other picture
    where each is, the first of equally good ones."""
    itself = b is a
    best = a.new_empty(2, len(a), len(b), a.shape[1])
    index = torch.empty_like(best, dtype=torch.int32)
    for responses, *parts in _responses(a, b, *best, *index, upper=itself):
        for axis, value, place in zip((3, 2), parts[:2], parts[2:], strict=True):
            found = torch.max(responses, axis)
            value.copy_(found.values)
            place.copy_(found.indices)
    return (_mirrored(best), _mirrored(index)) if itself else (best, index)


def _above(of_pairs: Tensor) -> Tensor:
    """[A, A, 1]: which pairs of [2, A, A, L] are above the diagonal."""
    return of_pairs.new_ones(of_pairs.shape[1:3], dtype=torch.bool).triu(1).unsqueeze(2)


def _other_side(of_pairs: Tensor) -> Tensor:
    """[2, A, A, L]: at (a, b) what is at (b, a), gallery and query exchanged."""
    return of_pairs.flip(0).transpose(1, 2)


def _mirrored(best: Tensor) -> Tensor:
    """[2, A, A, L], whole, from what is on and above the diagonal."""
    whole = torch.where(_above(best).transpose(0, 1), _other_side(best), best)
    return whole.contiguous()


def _folded(gradient: Tensor) -> Tensor:
    """[2, A, A, L]: what is below the diagonal added to what is above it, and 0 in its place."""
    above = _above(gradient)
    both = torch.where(above, gradient + _other_side(gradient), gradient)
    return both.masked_fill(above.transpose(0, 1), 0)


def _tile(a: Tensor, b: Tensor) -> tuple[int, int]:
    """Numbers of queries and of gallery pictures whose responses fit into CACHED or LAUNCHED."""
    pairs = max(1, (CACHED if a.device.type == "cpu" else LAUNCHED) // a.shape[1] ** 2)
    width = max(1, min(pairs, len(b)))
    return max(1, min(pairs // width, len(a))), width


def _responses(
    a: Tensor, b: Tensor, *of_pairs: Tensor, upper: bool = False
) -> Iterator[tuple[Tensor, ...]]:
    """Tiles of pairs: inner products [rows, columns, L, L], gallery location first, then query
    location, and the parts [rows, columns, ...] of the tensors `of_pairs` [A, B, ...]. upper: only
    the tiles with pairs on or above the diagonal.

    The next tile overwrites the products. What tiles share is made outside of their loop: on a CPU
    a few views take as long as a tile's maxima.
    """
    length = a.shape[1]
    height, width = _tile(a, b)
    buffer = functools.cache(lambda rows, columns: a.new_empty(rows, columns, length, length))
    queries = a.transpose(1, 2).contiguous().split(height)
    # The gallery's part is the larger one of a tile, so it is the one that stays.
    blocks = zip(b.split(width), *(part.split(width, 1) for part in of_pairs), strict=True)
    for number, (gallery, *columns) in enumerate(blocks):
        below = gallery.flatten(0, 1)
        tiles: Iterator[tuple[Tensor, ...]] = zip(
            queries, *(part.split(height) for part in columns), strict=True
        )
        if upper:
            tiles = itertools.islice(tiles, math.ceil((number * width + len(gallery)) / height))
        for query, *parts in tiles:
            responses = buffer(len(query), len(below) // length)
            torch.bmm(below.expand(len(query), -1, -1), query, out=responses.flatten(1, 2))
            yield responses, *parts


class _BestMatches(torch.autograd.Function):
    """`best_matches` with its gradient. b: None for a itself: then a pair's responses are those of
    the pair the other way round, transposed, and only one of both is looked at."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None) -> Tensor:
        best, index = located_matches(a, a if b is None else b)
        ctx.save_for_backward(a, b, index)
        return best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b, index = ctx.saved_tensors
        itself = b is None
        for_a = torch.zeros_like(a) if ctx.needs_input_grad[0] else None
        if itself:
            b, for_b, gradient = a, for_a, _folded(gradient)
        else:
            for_b = torch.zeros_like(b) if ctx.needs_input_grad[1] else None
        height, width = _tile(a, b)
        for top, left in product(range(0, len(a), height), range(0, len(b), width)):
            if itself and top >= left + width:
                continue
            rows, columns = slice(top, top + height), slice(left, left + width)
            queries, gallery = a[rows], b[columns]
            where, value = index[:, rows, columns].long(), gradient[:, rows, columns]
            # The responses' gradient: each location's value where its best match is.
            tile = a.new_zeros(*where.shape[1:], a.shape[1])
            tile.scatter_(3, where[0].unsqueeze(3), value[0].unsqueeze(3))
            tile.scatter_add_(2, where[1].unsqueeze(2), value[1].unsqueeze(2))
            tile = tile.flatten(1, 2)
            if for_a is not None:
                below = gallery.flatten(0, 1).expand(len(queries), -1, -1)
                for_a[rows] += torch.bmm(tile.transpose(1, 2), below)
            if for_b is not None:
                for_b[columns] += torch.bmm(tile, queries).sum(0).view(gallery.shape)
        return for_a, None if itself else for_b


@attrs.frozen(eq=False)
class Correspondences:
    """Best matches of one side's locations on the other side, for A x B pairs, all [A, B, H, W].

    index: int64, row-major location on the other side, the first of equally good ones. cosine: of
    the two locations. contribution: the normalised cosine times the location's weight, without the
    biases and the normalisation of logits.
    """

    index: Tensor
    cosine: Tensor
    contribution: Tensor


def pixel_centres(locations: tuple[int, int], image: tuple[int, int]) -> Tensor:
    """float64 [H * W, 2]: (x, y) in pixels of the centre of each location, row-major.

    locations: (H, W) of the map. image: (height, width) of the picture. Equal to (index + 0.5)
    times the stride where the picture's extents are multiples of it.
    """
    rows, columns = (
        (torch.arange(extent, dtype=torch.float64) + 0.5) * (pixels / extent)
        for extent, pixels in zip(locations, image, strict=True)
    )
    return torch.cartesian_prod(rows, columns).flip(1)


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """float64 [1] each: a norm's factor and summand by its running statistics."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance, weight, bias = (
        value.double() for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    factor = weight / (variance + norm.eps).sqrt()
    return factor, bias - mean * factor


class QAConv(Matcher):
    """1 - sigmoid(z / score_scale), z the logit of two maps that are matched location by location.

    z = logit_bn(fc(bn(m))): m are the `best_matches` of both maps, `bn` and `logit_bn` normalise
    over all values of all pairs of a call, and `fc` weighs first the gallery's locations, then the
    query's; with the head "shared" both by the same weights, its bias counted twice. Patches of
    `kernel` x `kernel` locations, zero beyond the border, are compared by the sum of their
    locations' cosines. `map` [B, C, H, W] is stored in the type `operands`, to which maps are
    rounded where no gradient is needed and neither the matcher nor its norms are training; there
    the scores may come from the kernel. float64 is stored as it comes.
    """

    def __init__(self, config: MatcherSettings, context: Context):
        super().__init__()
        self.feature = config.feature
        self.shape = context.map(config.feature)
        self.image = context.image
        self.kernel = config.kernel
        self.score_scale = config.score_scale
        self.operands: torch.dtype = getattr(torch, config.operands)
        self.fused = Fused(config.fused, context.name, "qaconv.matcher", "maps")
        self.drawn, self.above = config.drawn, config.drawn_above
        self.drawn_scale = config.drawn_scale if config.drawn == "contribution" else 1.0
        self.halves = 1 if config.head == "shared" else 2
        self.bn = nn.BatchNorm1d(1)
        self.fc = nn.Linear(self.halves * self.shape[1] * self.shape[2], 1)
        self.logit_bn = nn.BatchNorm1d(1)
        if config.head == "shared":
            nn.init.constant_(self.fc.weight, 1 / self.fc.in_features)

    def template(self, features: Mapping[str, Tensor]) -> Template:
        return {"map": at_least_float32(features[self.feature])}

    def merge(self, views: Sequence[Template]) -> Template:
        """The mean of the views' maps, scaled to unit vectors again if there are several."""
        merged = super().merge([{"map": at_least_float32(view["map"])} for view in views])["map"]
        if len(views) > 1:
            merged = unit_locations(merged)
        # What is float64 belongs to somebody who asks for exact numbers.
        return {"map": merged if merged.dtype == torch.float64 else merged.to(self.operands)}

    def _locations(self, template: Template) -> Tensor:
        """[N, H * W, C * kernel^2], at least float32: the patch around every location."""
        maps = template["map"]
        if maps.shape[1:] != self.shape:
            found, own = ("x".join(map(str, shape)) for shape in (maps.shape[1:], self.shape))
            raise ValueError(f"maps are {found}, but this matcher was built for {own}")
        maps = at_least_float32(maps)
        if self.kernel == 1:
            patches = maps.flatten(2)
        else:
            patches = F.unfold(maps, self.kernel, padding=self.kernel // 2)
        return patches.transpose(1, 2)

    def _rounded(self, locations: Tensor) -> Tensor:
        """Contiguous, in the values of the type `operands`: a CPU multiplies those types slowly."""
        if self.operands != torch.float32:
            locations = locations.to(self.operands).to(locations.dtype)
        return locations.contiguous()

    def _evaluates(self, a: Tensor, b: Tensor) -> bool:
        """Return True if neither the matcher nor these maps are being trained."""
        if any(module.training for module in (self, self.bn, self.logit_bn)):
            return False
        learnt = (a, b, *self.parameters())
        return not (torch.is_grad_enabled() and any(value.requires_grad for value in learnt))

    def _weights(self) -> Tensor:
        """[2, H * W]: of the gallery's and of the query's locations."""
        return self.fc.weight.view(self.halves, -1).expand(2, -1)

    def logits(self, a: Template, b: Template) -> Tensor:
        with torch.autocast(a["map"].device.type, enabled=False):
            itself = b["map"] is a["map"]
            x = self._locations(a)
            y = x if itself else self._locations(b)
            if self._evaluates(x, y):
                logits = self._fused_logits(x, y) if self.fused.applies(x) else None
                if logits is not None:
                    return logits
                x, y = self._rounded(x), self._rounded(y)
            x = x.contiguous()
            best = best_matches(x, x if itself else y.contiguous())
            gallery, query = self.bn(best.view(1, 1, -1)).view_as(best)
            weights = self._weights()
            # Shared weights come with their bias once for each side.
            bias = self.fc.bias * (2 / self.halves)
            scores = gallery @ weights[0] + query @ weights[1] + bias
            return self.logit_bn(scores.view(1, 1, -1)).view_as(scores)

    def _fused_logits(self, a: Tensor, b: Tensor) -> Tensor | None:
        """The logits of `_locations` by the kernel, unless it fails: by running statistics the
        norms and the linear layer are one weighted sum of all best matches and a constant."""
        (scale, shift), (logit_scale, logit_shift) = map(_affine, (self.bn, self.logit_bn))
        weights = self._weights().double()
        bias = self.fc.bias.double() * (2 / self.halves) + shift * weights.sum()
        weights = (weights * scale * logit_scale).float()

        def scored() -> Tensor:
            # Not before it is used: triton is not everywhere, and takes a second to import.
            from reid_qaconv.kernel import weighted_matches

            return weighted_matches(a, b, weights, self.operands)

        scores = self.fused(scored)
        if scores is None:
            return None
        return scores.add_((bias * logit_scale + logit_shift).float())

    def distance(self, a: Template, b: Template) -> Tensor:
        # 1 - sigmoid(x) without its cancellation.
        return torch.sigmoid(-self.logits(a, b) / self.score_scale)

    @torch.no_grad()
    def correspondences(self, a: Template, b: Template) -> tuple[Correspondences, Correspondences]:
        """Return the matches of the query's locations in the gallery's pictures and of the
        gallery's in the query's, by the running statistics; `a` is the query side. Both are
        [A, B, H, W]."""
        with torch.autocast(a["map"].device.type, enabled=False):
            sides = (self._rounded(self._locations(side)) for side in (a, b))
            best, index = located_matches(*sides)
            bn = self.bn
            normed = F.batch_norm(
                best.view(1, 1, -1), bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps
            ).view_as(best)
            contribution = normed * self._weights()[:, None, None]
        gallery, query = (
            Correspondences(*(value.unflatten(-1, self.shape[1:]) for value in side))
            for side in zip(index.long(), best, contribution, strict=True)
        )
        return query, gallery

    def explain(self, a: Template, b: Template) -> dict[str, Lines]:
        """Lines from every location of one picture to its match in the other: `to_gallery` and
        `to_query`. Their weight is the contribution times `drawn_scale`, or the cosine; those above
        `drawn_above` are drawn. Lists indices, cosines, contributions and pixel centres too."""
        query, gallery = self.correspondences(a, b)
        return {
            "to_gallery": self._lines(query, "gallery"),
            "to_query": self._lines(gallery, "query"),
        }

    def _lines(self, found: Correspondences, towards: Literal["gallery", "query"]) -> Lines:
        matches, cosine, contribution = (
            value.flatten().cpu() for value in (found.index, found.cosine, found.contribution)
        )
        own = torch.arange(len(matches))
        query, gallery = (own, matches) if towards == "gallery" else (matches, own)
        numbers = {
            "query_index": query,
            "gallery_index": gallery,
            "cosine": cosine,
            "contribution": contribution,
        }
        pixels = pixel_centres(self.shape[1:], self.image)
        for side, index in (("query", query), ("gallery", gallery)):
            numbers[f"{side}_pixel_x"], numbers[f"{side}_pixel_y"] = pixels[index].T
        places = pixel_centres(self.shape[1:], (1, 1))
        return Lines(
            places[query].numpy(),
            places[gallery].numpy(),
            (numbers[self.drawn] * self.drawn_scale).numpy(),
            towards=towards,
            above=self.above,
            numbers={name: column.numpy() for name, column in numbers.items()},
            meaning="cosine of the two locations"
            if self.drawn == "cosine"
            else f"contribution to the score times {self.drawn_scale:g}",
        )


def build_matcher(config: MatcherSettings, context: Context) -> QAConv:
    return QAConv(config, context)
