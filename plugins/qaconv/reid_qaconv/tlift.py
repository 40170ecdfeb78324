"""Temporal lifting (Liao and Shao, ECCV 2020, section 4)."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_qaconv.settings_tlift import TLift as Settings
from reidcore.errors import DataError, PluginError
from reidcore.modules import Context, Meta, Ranking

ENTRIES = 2**22
"""Numbers in the largest block of a working array."""
KERNEL = 2**18
"""Numbers in a block of the temporal kernel, which is read once for every pivot: 1 MiB."""
GROUP = 16
"""Columns of which only the largest is looked at first."""
ROUNDING = 1e-5
"""How far distances may leave [0, 1]."""


class TLift:
    """Distances 1 - (p + alpha) * s of the similarities s = 1 - distance and their temporal
    probabilities p. In [0, 1] if alpha is 0, else at least -alpha.

    Memory besides `distances`: as much again, and some blocks of `entries` numbers. Raises
    DataError for pictures without camera or time and PluginError for distances outside [0, 1].
    """

    def __init__(self, config: Settings, entries: int = ENTRIES):
        self.config = config
        self.entries = entries

    @torch.no_grad()
    def __call__(self, distances: Tensor, ranking: Ranking) -> Tensor:
        if not distances.numel():
            return distances
        _require_places(ranking)
        _require_unit(distances)
        scores = distances.neg_().add_(1)
        return self.lift(scores, ranking.query, ranking.gallery).neg_().add_(1)

    def lift(self, scores: Tensor, query: Meta, gallery: Meta) -> Tensor:
        """(p + alpha) * s, written into the similarities `scores` [Q, G]."""
        nearby = nearby_queries(query, self.config.tau, self.entries)
        cameras, counts = gallery.camera.unique(return_counts=True)
        order, sizes = gallery.camera.argsort(stable=True), counts.tolist()
        ordered = scores.index_select(1, order)
        times = gallery.time[order].split(sizes)
        for camera, own, when in zip(cameras, ordered.split(sizes, 1), times, strict=True):
            skipped = torch.zeros_like(query.camera, dtype=torch.bool)
            if self.config.skip_same_camera:
                skipped |= query.camera == camera
            if self.config.skip_high_cameras:
                skipped |= query.camera > cameras[-1]
            for rows, columns, probability in self._probabilities(own, when, nearby):
                probability.masked_fill_(skipped[rows, None], 0)
                own[rows, columns].mul_(probability.add_(self.config.alpha))
        return torch.index_select(ordered, 1, order.argsort(), out=scores)

    def _probabilities(
        self, scores: Tensor, times: Tensor, nearby: Nearby
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Blocks of p [Q, C] for the pictures of one gallery camera, taken at `times` [C]. What
        follows from `scores` is known before the first block."""
        best, columns = leading(scores, self.config.k)
        for rows in nearby.blocks(best.shape[1], self.entries):
            members, present = nearby.members(rows)
            values = best[members].masked_fill_(~present[:, :, None], -torch.inf).flatten(1)
            least = values.topk(min(self.config.k, values.shape[1])).values[:, -1:]
            chosen = (values >= least) & (values > -torch.inf)
            pivots, counts = columns[members].flatten(1)[chosen], chosen.sum(1)
            for part, votes in self._votes(pivots, counts, times, scores.dtype):
                yield rows, part, votes

    def _votes(
        self, pivots: Tensor, counts: Tensor, times: Tensor, precision: torch.dtype
    ) -> Iterator[tuple[slice, Tensor]]:
        """Means over pivots of exp(-(t - t_pivot)^2 / sigma^2), [R, C], in blocks of columns.

        pivots: indices into `times` [C], `counts` [R] of them for each query.
        """
        used = torch.zeros_like(times, dtype=torch.bool).index_fill_(0, pivots, True)
        pivots = (used.cumsum(0) - 1)[pivots]
        starts, centres = counts.cumsum(0) - counts, times[used][:, None]
        for columns in _slices(len(times), min(KERNEL, self.entries) // len(centres)):
            # Subtracted in float64, because float32 has no second left in a time since 1970.
            apart = (times[columns] - centres).to(precision).div_(self.config.sigma)
            # Nothing gets below exp(-81), because exp is slow where it underflows.
            kernel = apart.clamp_(-9, 9).square_().neg_().exp_()
            yield columns, F.embedding_bag(pivots, kernel, starts, mode="mean")


@attrs.frozen(eq=False)
class Nearby:
    """For every query those of its camera that are less than tau away in time, itself included.

    order: [Q], the queries by camera and time, in which all of them stand next to each other.
    first, count: [Q], of each query, the place of the first of them in `order` and their number.
    """

    order: Tensor
    first: Tensor
    count: Tensor

    def blocks(self, width: int, entries: int) -> Iterator[slice]:
        """Slices of queries with at most `entries` numbers, `width` for each nearby query."""
        return _slices(len(self.order), entries // (int(self.count.max()) * width))

    def members(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Nearby queries [R, W], W the largest number of them, and which entries are there."""
        first, count = self.first[rows, None], self.count[rows, None]
        place = torch.arange(int(count.max()), device=count.device)
        return self.order[(first + place).clamp(max=len(self.order) - 1)], place < count


def nearby_queries(query: Meta, tau: float, entries: int) -> Nearby:
    order = query.time.argsort()
    order = order[query.camera[order].argsort(stable=True)]
    camera, time = query.camera[order], query.time[order]
    first, count = torch.empty_like(order), torch.empty_like(order)
    for rows in _slices(len(order), entries // len(order)):
        near = (time - query.time[rows, None]).abs() < tau
        near &= camera == query.camera[rows, None]
        first[rows], count[rows] = near.byte().argmax(1), near.sum(1)
    return Nearby(order, first, count)


def leading(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and columns, [Q, W] each, of at least the `count` largest of each row and all that
    are equal to one of them. Rows with fewer than W are filled up with -inf."""
    groups = scores.shape[1] // GROUP
    # As many groups reach the last of their largest maxima, so at least as many entries do.
    sample = scores
    if groups > count:
        sample = scores[:, : groups * GROUP].unflatten(1, (GROUP, groups)).amax(1)
    floor = sample.topk(min(count, sample.shape[1])).values[:, -1:]
    row, column = (scores >= floor).nonzero(as_tuple=True)
    found = row.bincount(minlength=len(scores))
    place = torch.arange(len(row), device=row.device) - (found.cumsum(0) - found)[row]
    values = scores.new_full((len(scores), int(found.max())), -torch.inf)
    columns = torch.zeros_like(values, dtype=torch.int64)
    values[row, place], columns[row, place] = scores[row, column], column
    return values, columns


def _slices(length: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def _require_places(ranking: Ranking) -> None:
    for side, meta in (("query", ranking.query), ("gallery", ranking.gallery)):
        for column, missing in (("time", ~meta.time.isfinite()), ("camera", meta.camera < 0)):
            if missing.any():
                raise DataError(
                    f"needs the {column} of every picture, but {int(missing.sum())} of "
                    f"{len(meta)} {side} pictures have none"
                )


def _require_unit(distances: Tensor) -> None:
    low, high = (float(value) for value in distances.aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise PluginError(
            f"needs distances in [0, 1], but what comes before it gives {low:g} to {high:g}, "
            "against its promise"
        )


def build_tlift(config: Settings, context: Context) -> TLift:
    return TLift(config)
