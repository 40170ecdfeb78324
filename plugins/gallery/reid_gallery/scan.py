"""Exact search: the rows of each fragment in tiles, and the nearest of all.

A fragment's answer depends on nothing but its rows, so that it is the same to the last bit whoever
computes it; equally near rows are in the order of their ids.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs
import lance
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from reid_gallery.schema import Column
from reidcore.errors import DataError

TILE = 16384
"""Rows of a tile at most; fewer where they are long."""
TILE_BYTES = 32 << 20

Parts = Mapping[str, dict[str, Tensor]]
"""{matcher: {key: [N, ...]}}."""


@attrs.frozen(eq=False)
class Best:
    """The nearest rows of each of Q queries, at most K.

    distance: float32 [Q, K], ascending, infinite where a query has fewer. id, row: int64 [Q, K],
    the rows' ids and Lance's addresses, -1 where there is none.
    """

    distance: np.ndarray
    id: np.ndarray
    row: np.ndarray

    @classmethod
    def none(cls, queries: int) -> Best:
        """Return that of no rows."""
        empty = np.empty((queries, 0), np.int64)
        return cls(empty.astype(np.float32), empty, empty)


def merged(found: Sequence[Best], count: int) -> Best:
    """Return the nearest of several answers to the same queries."""
    distance, ids, rows = (
        np.concatenate([getattr(one, name) for one in found], 1)
        for name in ("distance", "id", "row")
    )
    order = np.lexsort((ids, distance), axis=1)[:, :count]
    return Best(*(np.take_along_axis(one, order, 1) for one in (distance, ids, rows)))


class Nearest:
    """Keeps the `count` nearest rows of each query while tiles come."""

    def __init__(self, queries: int, count: int):
        self.queries, self.count = queries, count
        self._best = Best.none(queries)
        self._limit = torch.full((queries, 1), torch.inf)

    def add(self, distances: Tensor, ids: np.ndarray, rows: np.ndarray) -> None:
        """Take the next rows' distances, float32 [Q, T] on the CPU."""
        tile = distances.shape[1]
        limit = self._limit
        if tile > self.count:
            # The k-th of this tile bounds the k-th of all; equal ones are kept, for their ids.
            if bool(limit.isinf().any()):
                limit = torch.minimum(
                    limit, distances.kthvalue(self.count, dim=1, keepdim=True).values
                )
            near = distances <= limit
            if not bool(near.any()):
                return
            some, width = near.nonzero(as_tuple=True), int(near.sum(1).max())
            place = near.cumsum(1, dtype=torch.int32)[some].long() - 1
            chosen = torch.full((self.queries, width), -1)
            chosen[some[0], place] = some[1]
        else:
            chosen = torch.arange(tile).expand(self.queries, tile)
        absent = (chosen < 0).numpy()
        index = chosen.clamp(min=0)
        value = distances.gather(1, index).numpy().copy()
        value[absent] = np.inf
        picked = Best(
            value,
            np.where(absent, -1, ids[index.numpy()]),
            np.where(absent, -1, rows[index.numpy()]),
        )
        self._best = merged([self._best, picked], self.count)
        if self._best.distance.shape[1] == self.count:
            self._limit = torch.from_numpy(self._best.distance[:, -1:].copy())

    def best(self) -> Best:
        """Return the nearest so far."""
        return self._best


def tensors(
    batch: pa.RecordBatch | pa.Table, columns: Iterable[Column]
) -> dict[str, dict[str, Tensor]]:
    """Return the templates in some columns of rows, {matcher: {key: [N, ...]}}, as they are stored.

    Raises DataError for what another program has changed.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for column in columns:
        array = batch.column(column.name)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # of no rows
            array = pa.array([], array.type)
        if array.null_count or array.type != column.field.type:
            raise DataError(
                f"the gallery is damaged: its column {column.name} is {array.type} with "
                f"{array.null_count} empty cells, expected {column.field.type}"
            )
        values = array.flatten().to_numpy(zero_copy_only=True)
        with warnings.catch_warnings():  # torch warns of what nobody here writes into
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            tensor = torch.from_numpy(values)
        tensor = tensor.view(len(array), *column.shape)
        found.setdefault(column.matcher, {})[column.key] = tensor
    return found


def tile_rows(columns: Sequence[Column]) -> int:
    """Return the rows of a tile."""
    size = max(1, sum(column.bytes for column in columns))
    return max(1, min(TILE, TILE_BYTES // size))


def fragments_of(dataset: lance.LanceDataset) -> list[int]:
    """Return the numbers of a table's fragments in order."""
    return [fragment.fragment_id for fragment in dataset.get_fragments()]


def tiles(
    dataset: lance.LanceDataset,
    fragment: int,
    columns: Sequence[Column],
    condition: str | None,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a fragment that meet a condition, in tiles that are all full but the last:
    id, Lance's address `_rowid`, and the columns."""
    found = dataset.get_fragment(fragment)
    assert found is not None
    scanner = dataset.scanner(
        columns=["id", *(column.name for column in columns)],
        filter=condition,
        fragments=[found],
        with_row_id=True,
        batch_size=tile_rows(columns),
        scan_in_order=True,
        strict_batch_size=True,
        use_scalar_index=False,
    )
    for batch in scanner.to_batches():
        if batch.num_rows:
            yield batch


Score = Callable[[pa.RecordBatch], Tensor]
"""Gives the distances of the queries to the rows of a tile, float32 [Q, T] on the CPU."""


def search_fragment(
    dataset: lance.LanceDataset,
    fragment: int,
    columns: Sequence[Column],
    condition: str | None,
    nearest: Nearest,
    score: Score,
) -> Best:
    """Return the nearest rows of one fragment."""
    for batch in tiles(dataset, fragment, columns, condition):
        ids = batch.column("id").to_numpy()
        rows = batch.column("_rowid").to_numpy().astype(np.int64)
        nearest.add(score(batch), ids, rows)
    return nearest.best()
