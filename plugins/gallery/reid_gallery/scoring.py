"""Distances of queries to the rows of a tile, as a ranking of the run gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import lance
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from reid_gallery.scan import Parts, Score, tensors
from reid_gallery.schema import Column, Origin
from reidcore.errors import DataError
from reidcore.tools import Search, Templates, compute_distances, make_fusion

PIECE = 512
"""Rows that become float32 and are multiplied together, so that they stay in a core's cache."""
Range = tuple[Tensor, Tensor]
"""Each query's smallest and largest distance by a matcher, float32 [Q, 1] each."""


class LostMaps(DataError):
    """A row has no maps: the gallery is damaged, or was changed between two looks at it."""


@attrs.frozen(eq=False)
class MapRows:
    """Finds the wide templates of rows by their ids."""

    dataset: lance.LanceDataset
    ids: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, dataset: lance.LanceDataset) -> MapRows:
        """Return those of a table of maps."""
        found = dataset.to_table(columns=["id"], with_row_id=True)
        ids = found.column("id").to_numpy()
        order = np.argsort(ids, kind="stable")
        return cls(dataset, ids[order], found.column("_rowid").to_numpy()[order])

    def take(self, ids: np.ndarray, columns: Sequence[Column]) -> pa.Table:
        """Return the columns of the rows with these ids, in their order. Raises LostMaps for one
        that is missing."""
        place = np.searchsorted(self.ids, ids)
        there = place < len(self.ids)
        there[there] = self.ids[place[there]] == ids[there]
        lost = ids[~there]
        if len(lost):
            raise LostMaps(
                f"the gallery is damaged: {self.dataset.uri} lacks the maps of the row with id "
                f"{lost[0]}; `reid gallery upgrade` extracts all anew"
            )
        return taken(self.dataset, self.rows[place], [column.name for column in columns])


def taken(dataset: lance.LanceDataset, rows: np.ndarray, columns: list[str]) -> pa.Table:
    """Return rows of a table by Lance's addresses, in their order, each as often as it is named."""
    unique, back = np.unique(rows, return_inverse=True)
    found = dataset._take_rows(pa.array(unique.astype(np.uint64)), columns=columns)
    return found.take(pa.array(back))


@attrs.frozen(eq=False)
class Scorer:
    """Scores rows by a ranking without its shortlist and postprocessors, or by one matcher."""

    search: Search
    origin: Origin
    table: Any
    maps: MapRows | None
    query: Templates

    def of(self, place: int) -> Scorer:
        """Return the scorer of one of the queries."""
        parts = {
            name: {key: value[place : place + 1] for key, value in template.items()}
            for name, template in self.query.parts.items()
        }
        rows = self.query.rows[place : place + 1]
        return attrs.evolve(self, query=Templates(rows, parts, self.query.made_by))

    @property
    def _names(self) -> dict[str, float]:
        return dict(self.table.weights)

    def columns(self, wide: bool = False) -> list[Column]:
        """Return the columns that are read."""
        return self.origin.of(self._names, wide)

    def score(self) -> Score:
        """Return what scores tiles."""
        if self._is_dot():
            return self._dots()
        if self.table.scale == "row_minmax":
            raise ValueError("needs the ranges of all rows: use `ranged`")
        fusion = self._fusion(self.table)
        return Score(lambda batch: fusion.sum(lambda share: self._own(share, batch)))

    def ranged(self, ranges: Mapping[str, Range]) -> Score:
        """Return what scores tiles where scale = "row_minmax". ranges: of all rows, by matcher."""
        fusion = self._fusion(self.table)

        def distances(batch: pa.RecordBatch) -> Tensor:
            total = torch.zeros(())
            for share in fusion.shares:
                low, high = ranges[share.name]
                span = torch.where(high > low, high - low, 1)
                total = total + (self._own(share, batch) - low) / span * share.weight
            return total

        return Score(distances)

    def ranges(self, batch: pa.RecordBatch) -> dict[str, Range]:
        """Return the ranges of distances to the rows of a tile."""
        found = {}
        for share in self._fusion(self.table).shares:
            own = self._own(share, batch)
            found[share.name] = own.amin(1, keepdim=True), own.amax(1, keepdim=True)
        return found

    def _fusion(self, table: Any) -> Any:
        return make_fusion(table, self.search.model, self.search.model.pairs)

    def _own(self, share: Any, batch: pa.RecordBatch) -> Tensor:
        """One matcher's own distances, float32 [Q, T] on the CPU."""
        parts = self.parts(batch, batch.column("id").to_numpy(), [share.name])
        device = self.search.model.device
        return compute_distances(
            share.matcher,
            share.matching,
            self.query.parts[share.name],
            parts[share.name],
            device=device,
        ).cpu()

    def parts(
        self, rows: pa.RecordBatch | pa.Table, ids: np.ndarray, matchers: Sequence[str]
    ) -> Parts:
        """Return templates of rows as their matchers take them."""
        names = frozenset(matchers)
        narrow, wide = self.origin.of(names, False), self.origin.of(names, True)
        found = tensors(rows, narrow)
        if wide:
            assert self.maps is not None
            found |= tensors(self.maps.take(ids, wide), wide)
        dtypes = {(one.matcher, one.key): getattr(torch, one.dtype) for one in self.origin.columns}
        return {
            matcher: {key: value.to(dtypes[matcher, key]) for key, value in template.items()}
            for matcher, template in found.items()
        }

    def _is_dot(self) -> bool:
        """Whether the distances are (1 - the product of vectors of length 1) / 2."""
        columns = [*self.columns(False), *self.columns(True)]
        return len(columns) == 1 and columns[0].unit and self.table.scale == "none"

    def _dots(self) -> Score:
        (column,) = self.columns()
        matcher: Any = self.search.model.matchers[column.matcher]
        with torch.no_grad():
            own = matcher.descriptor(self.query.parts[column.matcher])
            query = torch.nn.functional.normalize(own.float(), dim=1).cpu()
        weight = self._names[column.matcher]
        query.neg_()

        def distances(batch: pa.RecordBatch) -> Tensor:
            vectors = tensors(batch, [column])[column.matcher][column.key]
            products = torch.empty(len(query), len(vectors))
            whole = torch.empty(min(PIECE, len(vectors)), query.shape[1])
            for start in range(0, len(vectors), PIECE):
                some = vectors[start : start + PIECE]
                own = whole[: len(some)].copy_(some)
                torch.mm(query, own.T, out=products[:, start : start + PIECE])
            return products.add_(1).mul_(weight / 2).clamp_(0, weight)

        return Score(distances, parallel=True)
