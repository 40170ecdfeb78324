"""Temporal lifting (Liao and Shao, ECCV 2020, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_qaconv.settings_tlift import TLift as Settings
from reidcore.errors import DataError, PluginError
from reidcore.modules import Context, Meta, Ranking

CACHED = 2**20
"""Numbers in a block of a working array on a CPU: 4 MiB."""
LAUNCHED = 2**23
"""Numbers in one on a GPU: 32 MiB, and eight times as many in the largest."""
GROUPS = 64
"""Groups of columns of which, in short rows, only those with the largest maxima are sorted out."""
ROUNDING = 1e-5
"""Distance by which rounding may leave [0, 1]."""


class TLift:
    """Distances 1 - (p + alpha) * s of the similarities s = 1 - distance, sharpened if so set, and
    their temporal probabilities p. In [0, 1] if alpha is 0, else at least -alpha. Pairs that a
    shortlist leaves out are no pivots.

    Memory besides `distances`: for each query and gallery camera its k best pictures, and some
    blocks of `entries` numbers. Raises DataError for pictures without camera or time and
    PluginError for distances outside [0, 1].
    """

    def __init__(self, config: Settings, entries: int = 0):
        self.config = config
        self.entries = entries

    @torch.no_grad()
    def __call__(self, distances: Tensor, ranking: Ranking) -> Tensor:
        if not distances.numel():
            return distances
        require_places(ranking)
        require_unit(distances)
        sharpness, prior = self.config.sharpness, self.config.prior
        offset = math.log(prior / (1 - prior))
        plain = sharpness == 1 and not offset
        similar = turned if plain else partial(_sharpened, sharpness=sharpness, offset=offset)
        return self._run(distances, ranking.query, ranking.gallery, similar, turned, ranking.scored)

    def lift(self, scores: Tensor, query: Meta, gallery: Meta) -> Tensor:
        """(p + alpha) * s, written into the similarities `scores` [Q, G]."""

        def same(block: Tensor) -> Tensor:
            return block

        return self._run(scores, query, gallery, same, same)

    def _run(
        self,
        values: Tensor,
        query: Meta,
        gallery: Meta,
        similar: Callable[[Tensor], Tensor],
        back: Callable[[Tensor], Tensor],
        scored: Callable[[int, int], Tensor | None] = lambda start, stop: None,
    ) -> Tensor:
        """`lift` in place; `similar` makes a block of values similarities, `back` lifted
        similarities values; `scored` is `Ranking.scored`.

        Columns are brought into the order of cameras and back in place, block by block.
        """
        entries = self.entries or (CACHED if values.device.type == "cpu" else LAUNCHED)
        cameras, counts = gallery.camera.unique(return_counts=True)
        order, sizes = gallery.camera.argsort(stable=True), counts.tolist()
        rows = list(_slices(len(values), entries // values.shape[1]))
        buffer = values.new_empty(rows[0].stop, values.shape[1])
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in sizes]
        for part in rows:
            block = torch.index_select(values[part], 1, order, out=buffer[: part.stop - part.start])
            known = scored(part.start, part.stop)
            pivots = similar(block)
            if known is not None:
                pivots = pivots.masked_fill(~known[:, order], -torch.inf)
            for best, own in zip(found, pivots.split(sizes, 1), strict=True):
                best.append(leading(own, self.config.k))
            values[part] = block
        nearby = nearby_queries(query, self.config.tau)
        lifted = zip(
            cameras, values.split(sizes, 1), gallery.time[order].split(sizes), found, strict=True
        )
        for camera, own, when, best in lifted:
            skipped = torch.zeros_like(query.camera, dtype=torch.bool)
            if self.config.skip_same_camera:
                skipped |= query.camera == camera
            if self.config.skip_high_cameras:
                skipped |= query.camera > cameras[-1]
            for part, columns, probability in self._probabilities(
                *_stacked(best), when, nearby, values.dtype, entries
            ):
                probability.masked_fill_(skipped[part, None], 0)
                own[part, columns].mul_(probability.add_(self.config.alpha))
        there = order.argsort()
        for part in rows:
            block = torch.index_select(values[part], 1, there, out=buffer[: part.stop - part.start])
            values[part] = back(block)
        return values

    def _probabilities(
        self,
        best: Tensor,
        columns: Tensor,
        times: Tensor,
        nearby: Nearby,
        precision: torch.dtype,
        entries: int,
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Blocks of p [Q, C] for the pictures of one gallery camera, taken at `times` [C]; `best`
        and `columns` [Q, W] are the queries' leading similarities and their pictures."""
        for rows in nearby.blocks(best.shape[1], entries * 8):
            members, present = nearby.members(rows)
            values = best[members].masked_fill_(~present[:, :, None], -torch.inf).flatten(1)
            least = values.topk(min(self.config.k, values.shape[1])).values[:, -1:]
            chosen = (values >= least) & (values > -torch.inf)
            pivots, counts = columns[members].flatten(1)[chosen], chosen.sum(1)
            for part, votes in self._votes(pivots, counts, times, precision, entries):
                yield rows, part, votes

    def _votes(
        self,
        pivots: Tensor,
        counts: Tensor,
        times: Tensor,
        precision: torch.dtype,
        entries: int,
    ) -> Iterator[tuple[slice, Tensor]]:
        """Means over pivots of exp(-(t - t_pivot)^2 / sigma^2), [R, C], in blocks of columns.

        pivots: indices into `times` [C], `counts` [R] of them for each query; 0 without any.
        """
        if not len(pivots):
            yield slice(None), times.new_zeros(len(counts), len(times), dtype=precision)
            return
        used = torch.zeros_like(times, dtype=torch.bool).index_fill_(0, pivots, True)
        pivots = (used.cumsum(0) - 1)[pivots]
        starts = counts.cumsum(0) - counts
        # In two parts, because float32 has no second left in a time since 1970.
        scaled = (times - times.amin()) / self.config.sigma
        coarse = scaled.to(precision)
        fine = (scaled - coarse).to(precision)
        centres, rest = coarse[used, None], fine[used, None]
        for columns in _slices(len(times), entries // (4 * max(len(centres), len(counts)))):
            apart = (coarse[columns] - centres).add_(fine[columns]).sub_(rest)
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


def nearby_queries(query: Meta, tau: float) -> Nearby:
    order = query.time.argsort()
    order = order[query.camera[order].argsort(stable=True)]
    camera, time = query.camera[order], query.time[order]
    own = torch.arange(len(order), device=order.device)
    place = torch.empty_like(order).index_copy_(0, order, own)
    ends = []
    for step in (-1, 1):
        # The farthest place that is near, by halving: what is nearer in `order` is near too.
        end, stride = own.clone(), 1 << max(1, len(order)).bit_length()
        while stride:
            there = (end + step * stride).clamp(0, len(order) - 1)
            near = ((time[there] - time).abs() < tau) & (camera[there] == camera)
            end, stride = there.where(near, end), stride // 2
        ends.append(end[place])
    return Nearby(order, ends[0], ends[1] - ends[0] + 1)


def leading(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and columns, [R, W] each, of the `count` largest of each row and all that are equal
    to the last of them, in any order. Rows with fewer than W are filled up with -inf, of which no
    more are taken than that."""
    columns = scores.shape[1]
    if columns <= count:
        return scores.topk(columns)
    # topk goes through long rows once, but orders short ones element by element.
    if 2 * count < GROUPS <= columns < GROUPS * count:
        values, index = _of_groups(scores, count + 1)
    else:
        values, index = scores.topk(count + 1)
    tied = (values[:, count - 1] == values[:, count]) & (values[:, count] > -torch.inf)
    values, index = values[:, :count], index[:, :count]
    return _with_ties(scores, values, index, tied) if tied.any() else (values, index)


def _of_groups(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(count)`, from the groups of columns with as many of the largest maxima: whatever
    exceeds the last of these maxima is in one of them."""
    size = scores.shape[1] // GROUPS
    groups, rest = scores[:, : size * GROUPS], scores[:, size * GROUPS :]
    groups = groups.unflatten(1, (size, GROUPS))
    chosen = groups.amax(1).topk(count).indices
    inside = groups.gather(2, chosen[:, None].expand(-1, size, -1)).flatten(1)
    values, place = torch.cat([inside, rest], 1).topk(count)
    index = chosen.gather(1, place % count) + place // count * GROUPS
    return values, index.where(place < size * count, place + size * (GROUPS - count))


def _with_ties(
    scores: Tensor, values: Tensor, index: Tensor, tied: Tensor
) -> tuple[Tensor, Tensor]:
    """The leading entries, with all that are equal to the last of them in rows that are `tied`."""
    rows = tied.nonzero()[:, 0]
    row, column = (scores[rows] >= values[rows, -1:]).nonzero(as_tuple=True)
    found = row.bincount(minlength=len(rows))
    place = torch.arange(len(row), device=row.device) - (found.cumsum(0) - found)[row]
    wide = int(found.max()) - values.shape[1]
    values, index = F.pad(values, (0, wide), value=-torch.inf), F.pad(index, (0, wide))
    values[rows[row], place], index[rows[row], place] = scores[rows[row], column], column
    return values, index


def _stacked(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The rows of all parts, those of narrower parts filled up with -inf."""
    width = max(values.shape[1] for values, _ in parts)
    values, index = zip(*parts, strict=True)
    return (
        torch.cat([F.pad(one, (0, width - one.shape[1]), value=-torch.inf) for one in values]),
        torch.cat([F.pad(one, (0, width - one.shape[1])) for one in index]),
    )


def turned(values: Tensor) -> Tensor:
    """1 - values, in place."""
    return torch.sub(values.new_ones(()), values, out=values)


def _sharpened(distances: Tensor, sharpness: float, offset: float) -> Tensor:
    """Similarities sigmoid(sharpness * logit(1 - distance) + offset), in place; small ones keep
    their digits."""
    return distances.clamp_(0, 1).logit_().mul_(-sharpness).add_(offset).sigmoid_()


def _slices(length: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def require_places(ranking: Ranking) -> None:
    """Refuse pictures without camera or time."""
    for side, meta in (("query", ranking.query), ("gallery", ranking.gallery)):
        for column, missing in (("time", ~meta.time.isfinite()), ("camera", meta.camera < 0)):
            if missing.any():
                raise DataError(
                    f"needs the {column} of every picture, but {int(missing.sum())} of "
                    f"{len(meta)} {side} pictures have none"
                )


def require_unit(distances: Tensor) -> None:
    """Refuse distances outside [0, 1]."""
    low, high = (float(value) for value in distances.aminmax())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise PluginError(
            f"needs distances in [0, 1], but what comes before it gives {low:g} to {high:g}, "
            "against its promise"
        )


def build_tlift(config: Settings, context: Context) -> TLift:
    return TLift(config)
