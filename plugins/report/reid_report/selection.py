"""Chooses the queries that the page shows, and finds what another ranking changed. Torch-free."""

from __future__ import annotations

import attrs
import numpy as np

from reid_report.stage import Stage


@attrs.frozen(eq=False)
class Change:
    """The same queries in two rankings; places are those of queries in both stages.

    before, after: int64 [N], ranks of the first match of queries that have one. place: int64 [N].
    gained, lost: places of queries whose first match rose or fell, the largest factor first.
    """

    before: np.ndarray
    after: np.ndarray
    place: np.ndarray
    gained: np.ndarray
    lost: np.ndarray
    ap_gained: int
    ap_lost: int

    @property
    def same(self) -> int:
        """The number of queries whose first match kept its rank."""
        return len(self.place) - len(self.gained) - len(self.lost)


def change(before: Stage, after: Stage) -> Change:
    """Return how the ranks of first matches changed. Raises ValueError for other queries."""
    if not np.array_equal(before.query, after.query):
        raise ValueError("the stages are of different queries")
    place = np.flatnonzero((before.rank > 0) & (after.rank > 0))
    old, new = before.rank[place], after.rank[place]
    factor = np.log(old) - np.log(new)
    order = np.argsort(-factor, kind="stable")
    rose = order[factor[order] > 0]
    fell = order[::-1][factor[order[::-1]] < 0]
    risen = after.ap[place] - before.ap[place]
    return Change(
        old,
        new,
        place,
        place[rose],
        place[fell],
        int((risen > 1e-9).sum()),
        int((risen < -1e-9).sum()),
    )


def spread(stage: Stage, count: int) -> np.ndarray:
    """Places of up to `count` queries that have a match, evenly over the test set's order."""
    valid = np.flatnonzero(stage.rank > 0)
    if len(valid) <= count:
        return valid
    return valid[np.linspace(0, len(valid) - 1, count).round().astype(int)]


def hardest(stage: Stage, count: int) -> np.ndarray:
    """Places of up to `count` queries whose first match comes last, of equal ones the lowest
    average precision first; queries whose first picture matches are no failures."""
    failed = np.flatnonzero(stage.rank > 1)
    order = np.lexsort((failed, stage.ap[failed], -stage.rank[failed]))
    return failed[order[:count]]


def most_confident(stage: Stage, count: int) -> np.ndarray:
    """Places of up to `count` queries whose first picture is wrong, the nearest such first."""
    failed = np.flatnonzero(stage.rank > 1)
    return failed[np.argsort(stage.wrong_distance[failed], kind="stable")[:count]]
