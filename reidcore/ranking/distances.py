"""Templates of pictures, and distances between templates in tiles. One path for vector and
pairwise matchers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reidcore.contracts.component import Matching
from reidcore.contracts.parts import Matcher, Template
from reidcore.contracts.pictures import Rows
from reidcore.data.pictures import PictureLoader
from reidcore.distributed.processes import ALONE, Processes
from reidcore.model.model import Model
from reidcore.model.training_pairs import Pairs, choose_pictures, sort_pairs
from reidcore.ranking.templates import count, make_templates, moved, take
from reidcore.support.device_memory import at_once, fits
from reidcore.support.seeds import generator


def tile_shape(queries: int, gallery: int, pair_bytes: int, memory: float) -> tuple[int, int]:
    """(rows, columns) of a tile whose pairs fit into `memory` GiB, as square as the sides allow."""
    pairs = max(1, int(memory * 2**30) // max(1, pair_bytes))
    columns = min(gallery, max(1, int(pairs**0.5)))
    rows = min(queries, max(1, pairs // max(1, columns)))
    columns = min(gallery, max(1, pairs // max(1, rows)))
    return max(1, rows), max(1, columns)


_PAIRS = 1 << 22, 1 << 26
"""Pairs of a tile at most. On a CPU their distances stay in cache while they are made, and take
memory that glibc keeps, which above 32 MiB it gives back and asks for anew."""


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
    where to compute, by default where `a` is, and where the result is; templates that are
    elsewhere, such as mapped from disk, are moved there tile by tile.
    """
    rows, columns = count(a), count(b)
    device = next(iter(a.values())).device if device is None else device
    memory = min(memory, at_once(_PAIRS, device) * max(1, matching.pair_bytes) / 2**30)
    height, width = tile_shape(rows, columns, matching.pair_bytes, memory)
    training = matcher.training
    matcher.eval()
    try:
        if height >= rows and width >= columns:
            try:
                return matcher.distance(moved(a, device), moved(b, device)).float()
            except torch.OutOfMemoryError:
                if rows * columns <= 1:
                    raise
            torch.cuda.empty_cache()
            height, width = _halved(height, width)
        result = torch.empty(rows, columns, dtype=torch.float32, device=device)
        _fill(matcher, a, b, result, height, width)
    finally:
        matcher.train(training)
    return result


def _halved(height: int, width: int) -> tuple[int, int]:
    """A tile whose larger side is halved."""
    return (height, -(-width // 2)) if width >= height else (-(-height // 2), width)


def _fill(
    matcher: Matcher, a: Template, b: Template, result: Tensor, height: int, width: int
) -> None:
    device, left = result.device, 0
    if fits(sum(value.nbytes for value in a.values()), device):
        a = moved(a, device)
    while left < result.shape[1]:
        columns = slice(left, left + width)
        try:
            # Moved once for all tiles of these columns: of the gallery there is more.
            theirs = moved(take(b, columns), device)
            for top in range(0, result.shape[0], height):
                rows = slice(top, top + height)
                result[rows, columns] = matcher.distance(moved(take(a, rows), device), theirs)
            left += width
            continue
        except torch.OutOfMemoryError:
            if height == width == 1:
                raise
        # Outside of `except`, which holds what the matcher has allocated. Tiles of other columns
        # stay as they are.
        torch.cuda.empty_cache()
        height, width = _halved(height, width)


def training_pairs(
    model: Model,
    names: Sequence[str],
    loader: PictureLoader,
    rows: Rows,
    views: Sequence[str],
    size: int,
    memory: float,
    seed: int,
    processes: Processes = ALONE,
) -> dict[str, Pairs]:
    """{matcher: distances of some training pairs}, for scales that are fitted on them."""
    if not len(rows) or not names:
        return {}
    rows = rows.take(choose_pictures(rows, generator(seed, "training pairs")))
    templates = make_templates(model, names, loader, rows, views, size, processes)
    return {
        name: sort_pairs(
            score(model.matchers[name], model.plan.matching(name), template, template, memory), rows
        )
        for name, template in templates.items()
    }
