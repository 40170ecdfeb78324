"""Lance's index of approximate nearest neighbours, for galleries beyond some ten million pictures.

It proposes candidates; their distances are computed exactly, as a scan does.
"""

from __future__ import annotations

from functools import partial
from math import ceil, isqrt

import lance
import numpy as np
import pyarrow as pa

from reid_gallery.filters import Filter
from reid_gallery.scan import Best, Nearest, merged
from reid_gallery.schema import Column, Origin
from reid_gallery.scoring import Scorer, taken
from reid_gallery.searching import Scan, View, scan
from reidcore.errors import UsageError

LEAST = 256
"""Pictures below which an index has nothing to learn from."""
NAME = "reid_ann"
FEW = 100_000
"""Rows that meet a filter which are compared faster than an index is asked for them."""
MORE = 4
"""Candidates for each that is asked for."""
SHARE = 0.2
"""Share of the gallery that is looked through, where none is given."""
PROBES = 20
"""Cells of the index that are looked through at least."""


def build_index(dataset: lance.LanceDataset, origin: Origin) -> None:
    """Build the index of the first vectors: IVF with product quantization, by cosine where the
    matcher ignores their length, else by Euclidean distance. Raises UsageError where it cannot be
    built."""
    vectors = [one.matcher for one in origin.columns if not one.wide and len(one.shape) == 1]
    column = _column(origin, (vectors or [origin.columns[0].matcher])[0])
    rows, size = dataset.count_rows(), column.shape[0]
    if rows < LEAST:
        raise UsageError(f"the gallery has {rows} pictures; an index takes at least {LEAST}")
    parts = next(part for part in (8, 4, 2, 1) if size % part == 0)
    dataset.create_index(
        column.name,
        "IVF_PQ",
        name=NAME,
        metric="cosine" if column.unit else "L2",
        replace=True,
        num_partitions=max(1, isqrt(rows)),
        num_sub_vectors=size // parts,
    )


def has_index(dataset: lance.LanceDataset) -> bool:
    """Return whether there is one."""
    return any(index.name == NAME for index in dataset.describe_indices())


def approximate(share: float = SHARE) -> Scan:
    """Return what finds nearly the nearest rows in place of `reid_gallery.searching.scan`: those
    of each query, with exact distances; where few rows meet the filter, exactly the nearest.

    share: how much of the gallery is looked through, above 0 and up to 1; more finds more of them,
    and takes longer. Raises UsageError for another share, and for a ranking that the index is not
    of."""
    if not 0 < share <= 1:
        raise UsageError(f"a share of the gallery is above 0 and up to 1, not {share:g}")
    return partial(_approximate, share=share)


def _approximate(view: View, scorer: Scorer, count: int, chosen: Filter, *, share: float) -> Best:
    """What `approximate` returns, of one share."""
    if not has_index(view.dataset):
        raise UsageError(
            "the gallery has no index of approximate neighbours; build it with "
            "`reid gallery compact --ann`"
        )
    weights = dict(scorer.table.weights)
    if len(weights) != 1:
        raise UsageError(
            f"the ranking fuses {' and '.join(weights)}; approximate neighbours are those of one "
            "matcher's vectors. Name another ranking, or one with a shortlist"
        )
    column = _column(view.origin, next(iter(weights)))
    if chosen.sql and view.reader.count(view.dataset, chosen) <= FEW:
        return scan(view, scorer, count, chosen)
    vectors = np.asarray(scorer.query.parts[column.matcher][column.key].float())
    probes = max(PROBES, ceil(share * isqrt(view.dataset.count_rows())))
    found = [
        _one(view, scorer.of(place), vectors[place], count, chosen.sql or None, probes)
        for place in range(len(vectors))
    ]
    width = max((one.id.shape[1] for one in found), default=0)
    return Best(
        *(
            np.concatenate([_wide(getattr(one, name), width, empty) for one in found])
            for name, empty in (("distance", np.inf), ("id", -1), ("row", -1))
        )
    )


def _column(origin: Origin, matcher: str) -> Column:
    columns = [one for one in origin.columns if one.matcher == matcher]
    if len(columns) != 1 or columns[0].wide or len(columns[0].shape) != 1:
        raise UsageError(
            f"the templates of matcher {matcher!r} are no single vectors, which approximate "
            "neighbours need"
        )
    return columns[0]


def _one(
    view: View,
    scorer: Scorer,
    vector: np.ndarray,
    count: int,
    condition: str | None,
    probes: int,
) -> Best:
    """The answer to one query, which the scorer is of."""
    (column,) = scorer.columns()
    nearest = {
        "column": column.name, "q": vector.astype(column.stored), "k": MORE * count,
        "nprobes": probes,
    }  # fmt: skip
    # Without "_distance" Lance warns, at every query.
    proposed = view.dataset.to_table(
        columns=["_distance"], nearest=nearest, filter=condition, prefilter=True, with_row_id=True
    )
    rows = proposed.column("_rowid").to_numpy().astype(np.int64)
    rows.sort()
    table = taken(view.dataset, rows, ["id", column.name])
    batch = pa.RecordBatch.from_struct_array(table.to_struct_array().combine_chunks())
    kept = Nearest(1, count)
    if len(rows):
        kept.add(scorer.score().distances(batch), table.column("id").to_numpy(), rows)
    return merged([Best.none(1), kept.best()], count)


def _wide(values: np.ndarray, width: int, empty: float) -> np.ndarray:
    missing = width - values.shape[1]
    return np.pad(values, ((0, 0), (0, missing)), constant_values=empty)
