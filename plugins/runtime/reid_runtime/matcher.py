"""Distances of templates, and ranked lists."""

from __future__ import annotations

import os

import numpy as np

from reid_runtime.embedder import Templates
from reid_runtime.folder import Export, ExportError


class Matcher:
    """The distance of an export's ranking: of one matcher or several, with weights and scales.

    threads: 0 for all cores. memory: GiB for the pairs that are computed at once. `manifest` is
    export.json, whose `thresholds` say how near strangers come; `top` is the size of the ranking's
    shortlist, None without one. Raises ExportError as `Embedder` does.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int = 0, memory: float = 0.25):
        export = Export(folder)
        self.manifest, self.memory = export.manifest, memory
        graphs = export.manifest["graphs"]
        self._sessions = {
            name: export.session(name, threads) for name in graphs if name != "extractor"
        }
        self.top: int | None = graphs["shortlist"]["top"] if "shortlist" in graphs else None

    def __call__(self, a: Templates, b: Templates, graph: str = "matcher") -> np.ndarray:
        """Return float32 distances [Q, G], smaller is closer; `a` is the query side.

        graph: "shortlist" gives the distances by which a shortlist is chosen.
        """
        said, session = self.manifest["graphs"][graph], self._sessions[graph]
        rows, columns = (len(next(iter(side.values()))) for side in (a, b))
        found = np.empty((rows, columns), np.float32)
        pairs = max(1, int(self.memory * 2**30 / said["pair_bytes"]))
        width = columns if said["whole_gallery"] else max(1, min(columns, int(pairs**0.5)))
        height = max(1, pairs // max(1, width))
        names = [one.name for one in session.get_inputs()]
        missing = [name for name in names if name[2:] not in (a if name[0] == "a" else b)]
        if missing:
            raise ExportError(f"the templates lack {missing[0][2:]}: another export made them")
        for left in range(0, columns, max(1, width)):
            for top in range(0, rows, height):
                here = slice(top, top + height), slice(left, left + width)
                sides = {"a": (a, here[0]), "b": (b, here[1])}
                given = {name: sides[name[0]][0][name[2:]][sides[name[0]][1]] for name in names}
                (found[here],) = session.run(None, given)
        return found


def rank(
    query: Templates, gallery: Templates, matcher: Matcher, top: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest gallery pictures of every query: places int64 [Q, K] in the gallery,
    nearest first, and their distances float32 [Q, K]. Equally near ones keep the gallery's order.

    K is `top`, or less where the gallery or the ranking's shortlist has fewer.
    """
    if matcher.top is None:
        return _nearest(matcher(query, gallery), top)
    listed, _ = _nearest(matcher(query, gallery, "shortlist"), matcher.top)
    distances = np.empty(listed.shape, np.float32)
    for row, places in enumerate(listed):
        own = {name: value[row : row + 1] for name, value in query.items()}
        distances[row] = matcher(own, {name: value[places] for name, value in gallery.items()})[0]
    order, distances = _nearest(distances, top)
    return np.take_along_axis(listed, order, 1), distances


def _nearest(distances: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(distances, axis=1, kind="stable")[:, :top]
    return order, np.take_along_axis(distances, order, 1)
