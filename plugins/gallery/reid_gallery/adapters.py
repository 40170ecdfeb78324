"""What a vector database does for a gallery: it finds candidates, which are scored exactly here."""

from __future__ import annotations

from typing import Protocol

import attrs
import numpy as np

from reid_gallery.filters import Filter
from reid_gallery.scan import Best, tensors
from reid_gallery.scoring import Scorer
from reid_gallery.searching import View
from reidcore.errors import UsageError


class VectorStore(Protocol):
    """A database of one vector for each row, float32 [N, D]; `column` is the gallery's column."""

    column: str

    def ids(self) -> np.ndarray: ...  # int64 [N]: what it holds, in any order
    def put(self, ids: np.ndarray, vectors: np.ndarray) -> None: ...
    def remove(self, ids: np.ndarray) -> None: ...
    def nearest(self, vectors: np.ndarray, count: int) -> np.ndarray: ...  # ids [Q, K], -1 for none


@attrs.frozen(eq=False)
class StoreScan:
    """Searches with a database: `gallery.scan = StoreScan(store)`. It is asked for `factor` times
    as many rows as are wanted, of which the exact distances and a search's conditions choose."""

    store: VectorStore
    factor: int = 4

    def update(self, view: View) -> None:
        """Put into the database what the gallery has, and take out what it has not."""
        column = next(one for one in view.origin.columns if one.name == self.store.column)
        held, own = self.store.ids(), view.dataset.to_table(columns=["id"]).column(0).to_numpy()
        if len(gone := np.setdiff1d(held, own)):
            self.store.remove(gone)
        for batch in view.dataset.to_batches(columns=["id", column.name], batch_size=4096):
            new = ~np.isin(ids := batch.column("id").to_numpy(), held)
            vectors = tensors(batch, [column])[column.matcher][column.key].float().numpy()
            self.store.put(ids[new], vectors[new])

    def __call__(self, view: View, scorer: Scorer, count: int, chosen: Filter) -> Best:
        (column, *more) = [*scorer.columns(), *scorer.columns(wide=True)]
        if more or column.name != self.store.column or scorer.table.scale == "row_minmax":
            raise UsageError(f"the database has {self.store.column}, which does not rank alone")
        query = scorer.query.parts[column.matcher][column.key].float().numpy()
        listed, score = self.store.nearest(query, count * self.factor), scorer.score().distances
        where = f"id IN ({', '.join(map(str, np.unique(listed)))}) AND ({chosen.sql or 'true'})"
        rows = view.dataset.to_table(["id", column.name], where, with_row_id=True)
        ids, own = (rows.column(name).to_numpy().astype(np.int64) for name in ("id", "_rowid"))
        found = score(rows.combine_chunks()) if len(rows) else np.empty((len(query), 0))
        distance = np.where([np.isin(ids, some) for some in listed], found, np.inf)
        order = np.lexsort((np.broadcast_to(ids, distance.shape), distance))[:, :count]
        distance = np.take_along_axis(distance, order, 1).astype(np.float32)
        return Best(distance, *(np.where(np.isinf(distance), -1, one[order]) for one in (ids, own)))
