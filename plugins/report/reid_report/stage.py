"""Findings about the distances of one stage of a ranking: plain NumPy data, torch-free."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np

WRONG = 0
"""A gallery picture of somebody else than the query."""
MATCH = 1
"""One of the query's identity."""
IGNORED = -1
"""One that is left out of the query's list."""


@attrs.frozen(eq=False)
class Histogram:
    """Counts of distances in bins of one width, which is a power of two.

    Bin i holds distances d with (first + i) * width <= d < (first + i + 1) * width. match, wrong:
    int64 [B], pairs of one identity and of strangers, without those that are ignored.
    """

    width: float
    first: int
    match: np.ndarray
    wrong: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """float64 [B + 1]."""
        return (self.first + np.arange(len(self.match) + 1)) * self.width


@attrs.frozen(eq=False)
class Stage:
    """A trial's queries at one stage of a ranking. Pictures are numbers of rows of the test set.

    query: int64 [Q]. rank: int64 [Q], of the first match in the kept list, 0 where there is none.
    ap: float64 [Q], 0 there. near, near_distance, near_kind: [Q, K], gallery pictures by distance:
    the nearest that count, and the first few of those that are ignored among them; -1 where there
    are no more. near_hidden: int64 [Q], how many more are ignored among them. match, wrong: int64
    [Q], the nearest picture of the query's identity and of another one that count, -1 without one;
    match_distance, wrong_distance: theirs, infinite there. accepts: {false accept rate: (threshold,
    true accept rate)}. cameras: {(query's camera, gallery's): (mAP, queries with a match)}. trials:
    how many there are; this is the first.
    """

    query: np.ndarray
    rank: np.ndarray
    ap: np.ndarray
    near: np.ndarray
    near_distance: np.ndarray
    near_kind: np.ndarray
    near_hidden: np.ndarray
    match: np.ndarray
    match_distance: np.ndarray
    wrong: np.ndarray
    wrong_distance: np.ndarray
    histogram: Histogram
    accepts: Mapping[float, tuple[float, float]]
    cameras: Mapping[tuple[str, str], tuple[float, int]]
    trials: int = 1
