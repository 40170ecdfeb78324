"""Exact search: the rows of each fragment in tiles, and the nearest of all.

A distance depends on nothing but its tile, and a tile on nothing but its fragment, so that an
answer is the same to the last bit whoever computes it, with however many threads; equally near
rows are in the order of their ids.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import attrs
import lance
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from reid_gallery.schema import Column
from reidcore.errors import DataError

TILE = 4096
"""Rows of a tile at most, of which some fit a processor's cache; fewer where they are long."""
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
    """Keeps the `count` nearest rows of each query while tiles come, from several threads."""

    def __init__(self, queries: int, count: int):
        self.queries, self.count = queries, count
        self._lock = threading.Lock()
        self._limit = torch.full((queries, 1), torch.inf)
        none = np.empty(0, np.int64)
        # Query, distance, id and row of each that may be among the nearest.
        self._some = [(none, none.astype(np.float32), none, none)]
        self._waiting = 0

    def add(self, distances: Tensor, ids: np.ndarray, rows: np.ndarray) -> None:
        """Take the next rows' distances, float32 [Q, T] on the CPU."""
        tile = distances.shape[1]
        limit = self._limit
        if tile > self.count and bool(limit.isinf().any()):
            # The k-th of this tile bounds the k-th of all; equal ones are kept, for their ids.
            limit = torch.minimum(limit, distances.kthvalue(self.count, dim=1, keepdim=True).values)
        near = np.flatnonzero((distances <= limit).numpy())
        if not len(near):
            return
        query, place = np.divmod(near, tile)
        found = query, distances.numpy()[query, place], ids[place], rows[place]
        with self._lock:
            self._some.append(found)
            self._waiting += len(near)
            # Sorting costs more than a few needless candidates.
            if self._waiting >= self.queries * self.count:
                self._settle()

    def _settle(self) -> None:
        """Keep the nearest alone, ordered by query, distance and id."""
        query, distance, ids, rows = map(np.concatenate, zip(*self._some, strict=True))
        order = np.lexsort((ids, distance, query))
        query = query[order]
        start = np.searchsorted(query, np.arange(self.queries + 1))
        kept = np.arange(len(query)) - start[query] < self.count
        order = order[kept]
        self._some = [(query[kept], distance[order], ids[order], rows[order])]
        self._waiting = 0
        full = np.flatnonzero(np.diff(start) >= self.count)
        limit = np.full((self.queries, 1), np.inf, np.float32)
        ends = np.searchsorted(query[kept], full) + self.count - 1
        limit[full, 0] = self._some[0][1][ends]
        self._limit = torch.from_numpy(limit)

    def best(self) -> Best:
        """Return the nearest so far."""
        with self._lock:
            self._settle()
            query, distance, ids, rows = self._some[0]
        start = np.searchsorted(query, np.arange(self.queries + 1))
        width = int(np.diff(start).max(initial=0))
        place = np.arange(len(query)) - start[query]

        def table(values: np.ndarray, none: float) -> np.ndarray:
            found = np.full((self.queries, width), none, values.dtype)
            found[query, place] = values
            return found

        return Best(table(distance, np.inf), table(ids, -1), table(rows, -1))


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


@attrs.frozen(eq=False)
class Score:
    """Scores tiles.

    distances: gives those of the queries to the rows of a tile, float32 [Q, T] on the CPU.
    parallel: several threads may call it at once, each of which computes with one.
    """

    distances: Callable[[pa.RecordBatch], Tensor]
    parallel: bool = False


def search_tiles(batches: Iterable[pa.RecordBatch], nearest: Nearest, score: Score) -> None:
    """Give the distances of all tiles to `nearest`, where the score allows it several at a time
    and while the next one is read."""

    def add(batch: pa.RecordBatch) -> None:
        rows = batch.column("_rowid").to_numpy().astype(np.int64)
        nearest.add(score.distances(batch), batch.column("id").to_numpy(), rows)

    if not score.parallel:
        for batch in batches:
            add(batch)
        return
    threads = torch.get_num_threads()
    waiting: deque[Future[None]] = deque()
    try:
        with ThreadPoolExecutor(threads, "scan", torch.set_num_threads, (1,)) as pool:
            for batch in batches:
                waiting.append(pool.submit(add, batch))
                if len(waiting) > threads:  # so that memory holds few tiles
                    waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)  # of threads that begin later: a pool's set it for them
