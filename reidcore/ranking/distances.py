"""Distances between templates, computed in tiles; one path for vector and pairwise matchers."""

from __future__ import annotations

import torch
from torch import Tensor

from reidcore.contracts.component import Matching
from reidcore.contracts.parts import Matcher, Template
from reidcore.ranking.fusion import Share
from reidcore.ranking.resources import Resources
from reidcore.ranking.sides import Sides
from reidcore.ranking.templates import count, moved, take
from reidcore.support.device_memory import at_once, fits


def tile_shape(queries: int, gallery: int, pair_bytes: int, memory: float) -> tuple[int, int]:
    """Return the rows and columns of a tile whose pairs fit into `memory` GiB, as square as the
    sides allow."""
    pairs = max(1, int(memory * 2**30) // max(1, pair_bytes))
    columns = min(gallery, max(1, int(pairs**0.5)))
    rows = min(queries, max(1, pairs // max(1, columns)))
    columns = min(gallery, max(1, pairs // max(1, rows)))
    return max(1, rows), max(1, columns)


_TILE_PAIRS = 1 << 22, 1 << 26
"""Pairs of a tile at most. On a CPU their distances stay in cache while they are made, and take
memory that glibc keeps, which above 32 MiB it gives back and asks for anew."""
_GATHERED = 1 << 22, 1 << 28
"""Bytes of templates that are picked at once, on a CPU so few that they are still in its cache when
the matcher reads them; what is picked at once is memory that is new to the process."""


@torch.no_grad()
def compute_distances(
    matcher: Matcher,
    matching: Matching,
    a: Template,
    b: Template,
    memory: float = 0.5,
    device: torch.device | None = None,
) -> Tensor:
    """Return the matcher's distances of all pictures of `a`, the query side, to all of `b`, float32
    [len(a), len(b)].

    memory: GiB for the pairs of one tile; a tile that does not fit on the device is halved. device:
    where to compute and where the result is, by default where `a` is; templates that are elsewhere,
    such as mapped from disk, are moved there tile by tile.
    """
    rows, columns = count(a), count(b)
    device = next(iter(a.values())).device if device is None else device
    memory = min(memory, at_once(_TILE_PAIRS, device) * max(1, matching.pair_bytes) / 2**30)
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
    """Return the tile with its larger side halved."""
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


class MatcherDistances:
    """Computes the own distances of single matchers; they lie on the device of the sides."""

    def __init__(self, sides: Sides, resources: Resources):
        self.sides = sides
        self.memory = resources.memory
        self.device = sides.device if resources.device is None else resources.device

    def between(self, share: Share, a: Template, b: Template) -> Tensor:
        """Return distances float32 [len(a), len(b)]; `a` is the query side."""
        found = compute_distances(share.matcher, share.matching, a, b, self.memory, self.device)
        return found.to(self.sides.device)

    def to_listed(self, share: Share, one: Template, others: Template, index: Tensor) -> Tensor:
        """Return the distances of one picture to the others at `index` int64 [N], float32 [N]."""
        size = sum(value[0].numel() * value.element_size() for value in others.values())
        parts = index.split(max(1, at_once(_GATHERED, self.device) // size))
        return torch.cat([self.between(share, one, take(others, part))[0] for part in parts])
