"""Paired comparison of two rankings on the same queries: a bootstrap over identities. Torch-free.

Queries of one person are alike, so identities are drawn, not queries: the cluster bootstrap
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from reidcore.errors import UsageError, nearest
from reidcore.runfolder.comparison import ComparisonRow, Difference
from reidcore.runfolder.folder import QUERIES
from reidcore.runfolder.query_files import QueryTable, read_queries
from reidcore.runfolder.results import Place, repeats_of
from reidcore.support.wording import few, shortened

DRAWS = 10_000
"""Bootstrap samples."""
_AT_ONCE = 500
"""Samples that are drawn together."""
PAIRED = {"mAP": "ap", "rank-1": "found"}
"""Scores that are paired, and the columns of a `QueryTable` they are means of."""


def bootstrap(
    difference: NDArray[np.float64], identity: Sequence[str], draws: int = DRAWS
) -> Difference:
    """Return the mean of Q queries' differences with its interval and p.

    difference: float64 [Q]. identity: of each query; queries of one are drawn together. p is
    2 (1 + n) / (1 + draws), at most 1, with n the samples on the rarer side of 0, so that it is
    never below 2 / (1 + draws). Samples are drawn from one seed, so that the result is always the
    same. Raises UsageError for queries of one identity alone, which tell nothing of others.

    >>> import numpy as np
    >>> found = bootstrap(np.array([0.1, 0.2, 0.3, 0.2]), ["a", "a", "b", "c"])
    >>> round(found.mean, 3), found.low > 0, found.p < 0.05
    (0.2, True, True)
    """
    _, cluster = np.unique(np.asarray(identity), return_inverse=True)
    sums = np.bincount(cluster, difference)
    if len(sums) < 2:
        raise UsageError("all queries are of one identity: a paired comparison needs at least 2")
    sizes = np.bincount(cluster).astype(float)
    random = np.random.default_rng(0)
    means = np.empty(draws)
    for start in range(0, draws, _AT_ONCE):
        count = min(_AT_ONCE, draws - start)
        drawn = random.integers(len(sums), size=(count, len(sums)))
        means[start : start + count] = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    rarer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (1 + rarer) / (1 + draws))
    return Difference(float(difference.mean()), low, high, p)


def with_differences(rows: Sequence[ComparisonRow], against: str = "") -> list[ComparisonRow]:
    """Return the rows, each with how it differs from the first one of its test set.

    against: "RANKING/STAGE" of the row to compare with, "" for any. Of a folder of repeats, a
    query's scores are the means over the repeats. Raises UsageError where no row is of that ranking
    and stage, or where a run has no scores of single queries, or other queries, and DataError where
    they are damaged.
    """
    tables: dict[Path, Mapping[Place, QueryTable]] = {}
    first = _first(rows, against)
    found = []
    for row in rows:
        base = first[row.place[0]]
        for one in (row, base):
            if one.results.folder not in tables:
                tables[one.results.folder] = _of_folder(one.results.folder)
        mine, other = (_at(tables, one) for one in (row, base))
        if (mine.queries, mine.identity) != (other.queries, other.identity):
            raise UsageError(
                f"{row.run} and {base.run} were not evaluated on the same queries of test set "
                f"{row.place[0]!r}, so they cannot be paired"
            )
        scores = {
            name: bootstrap(getattr(mine, field) - getattr(other, field), mine.identity)
            for name, field in PAIRED.items()
        }
        found.append(attrs.evolve(row, differences=scores if row is not base else {}))
    return found


def _first(rows: Sequence[ComparisonRow], against: str) -> dict[str, ComparisonRow]:
    """{test set: the row that the others are compared with}."""
    found: dict[str, ComparisonRow] = {}
    for row in rows:
        if against in ("", "/".join(row.place[1:])):
            found.setdefault(row.place[0], row)
    for row in rows:
        if row.place[0] not in found:
            known = list(dict.fromkeys("/".join(one.place[1:]) for one in rows))
            raise UsageError(
                f"--against {shortened(against, 60)!r} is no ranking and stage of test set "
                f"{row.place[0]!r}{nearest(against, known)}; there are {few(known, 12)}"
            )
    return found


def _at(tables: Mapping[Path, Mapping[Place, QueryTable]], row: ComparisonRow) -> QueryTable:
    found = tables[row.results.folder].get(row.place)
    if found is None:
        place = " / ".join(row.place)
        raise UsageError(f"{row.results.folder / QUERIES} has no scores of {place}")
    return found


def _of_folder(folder: Path) -> Mapping[Place, QueryTable]:
    repeats = [_read(one) for one in repeats_of(folder) or [folder]]
    return {
        place: _mean([one[place] for one in repeats if place in one], folder)
        for place in repeats[0]
    }


def _read(folder: Path) -> Mapping[Place, QueryTable]:
    path = folder / QUERIES
    if not path.exists():
        raise UsageError(
            f"{folder} has no {QUERIES}, the scores of single queries that --paired needs; "
            f"`reid eval {folder} --queries {path}` writes it"
        )
    return read_queries(path)


def _mean(tables: Sequence[QueryTable], folder: Path) -> QueryTable:
    first = tables[0]
    if any((one.queries, one.identity) != (first.queries, first.identity) for one in tables):
        raise UsageError(f"the repeats in {folder} were not evaluated on the same queries")
    ap, found = (
        np.mean([getattr(one, name) for one in tables], axis=0) for name in ("ap", "found")
    )
    return attrs.evolve(first, ap=ap, found=found)
