"""Compares an export with the run it was made of."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import attrs
import numpy as np

from reid_export.graphs import Arrays, Graphs
from reid_export.pictures import Pictures, tested_rows
from reidcore.errors import ReidError
from reidcore.tools import Reporter, Search

BATCHES = 1, 3, 32
TOLERANCE = {"float32": 1e-3, "float16": 0.1, "int8": 1.0}
"""The largest difference, as a share of the largest number, of each precision."""
TOP = 10


@attrs.frozen
class Difference:
    """The largest difference of an array, and the largest number in it."""

    largest: float
    of: float

    @property
    def share(self) -> float:
        """The difference as a share of the number."""
        return self.largest / max(self.of, 1e-12)

    def __str__(self) -> str:
        return f"{self.largest:.2g} of {self.of:.3g}"


def compare(
    options: Namespace,
    search: Search,
    ranking: Any,
    graphs: Graphs,
    pictures: Pictures,
    precision: str,
    shown: Reporter,
) -> dict[str, Any]:
    """Compare the graphs' numbers, and ranked lists where a test set is at hand, with the run's;
    return what the manifest says of it.

    Raises ReidError where a difference is above the tolerance, or a number is not finite.
    """
    allowed = options.tolerance or TOLERANCE[precision]
    shown.working("comparing templates")
    ours = search.templates(list(pictures.rows))
    reference = _arrays(ours.parts)
    worst: dict[str, Difference] = {}
    # Few pictures come again, so that the largest batch is full.
    places = np.arange(max(len(pictures), *BATCHES)) % len(pictures)
    filled = Pictures(tuple(pictures.rows[place] for place in places), pictures.source)
    for batch in BATCHES:
        found = graphs.templates(filled, batch)
        for name, value in found.items():
            one = _difference(name, value, reference[name][places])
            worst[name] = _worse(worst.get(name), one)
    found = {name: value[: len(pictures)] for name, value in found.items()}
    # A picture with itself would show how roots of cancelled sums round, and little else.
    sides = [slice(0, None, 2), slice(1, None, 2)]
    a, b = (search.templates(list(pictures.rows[side])) for side in sides)
    x, y = ({name: value[side] for name, value in found.items()} for side in sides)
    distances, own = search.distances(a, b, ranking.name).numpy(), graphs.distances(x, y)
    if ranking.shortlist is not None:
        # What a shortlist leaves out has no distance.
        listed = distances.argsort(1, kind="stable")[:, : ranking.shortlist.top]
        distances, own = (np.take_along_axis(one, listed, 1) for one in (distances, own))
    worst["distances"] = _difference("distances", own, distances)
    sizes = ", ".join(map(str, BATCHES[:-1])) + f" and {BATCHES[-1]}"
    each = ", ".join(f"{name} {one}" for name, one in worst.items())
    shown.say(f"{len(pictures)} {pictures.source}, in batches of {sizes}")
    shown.say(f"largest differences: {each}")
    for name, one in worst.items():
        if one.share > allowed:
            raise ReidError(
                f"the export differs from the run: {name} by {one}, more than {allowed:g} of it. "
                "Nothing was written; a larger --tolerance allows it"
            )
    said: dict[str, Any] = {
        "pictures": len(pictures),
        "source": pictures.source,
        "batches": list(BATCHES),
        "tolerance": allowed,
        "largest_differences": {
            name: {"difference": one.largest, "of": one.of} for name, one in worst.items()
        },
    }
    if not options.no_lists:
        said["lists"] = _lists(search, ranking.name, graphs, shown)
    return said


def _lists(search: Search, ranking: str, graphs: Graphs, shown: Reporter) -> dict[str, Any] | None:
    """Compare the nearest ten of every query of the test set; None where it is not at hand."""
    rows = tested_rows(search.folder)
    queries = tuple(row for row in rows if row.split == "query") or tuple(rows)
    gallery = tuple(row for row in rows if row.split == "gallery") or tuple(rows)
    if not rows:
        return None
    shown.working("comparing ranked lists")
    a, b = (search.templates(list(side)) for side in (queries, gallery))
    expected = search.distances(a, b, ranking).numpy().argsort(1, kind="stable")[:, :TOP]
    x, y = (graphs.templates(Pictures(side, ""), BATCHES[-1]) for side in (queries, gallery))
    found = graphs.nearest(x, y, TOP)
    width = min(found.shape[1], expected.shape[1])
    equal = int((found[:, :width] == expected[:, :width]).all(1).sum())
    shown.say(
        f"lists of the nearest {width} of {len(queries)} queries among {len(gallery)} pictures: "
        f"{equal} equal ({100 * equal / len(queries):.1f} %)"
    )
    return {"queries": len(queries), "gallery": len(gallery), "top": width, "equal": equal}


def _arrays(parts: Any) -> Arrays:
    return {
        f"{matcher}.{key}": value.float().numpy()
        for matcher, template in parts.items()
        for key, value in template.items()
    }


def _difference(name: str, found: np.ndarray, expected: np.ndarray) -> Difference:
    if not np.isfinite(found).all():
        raise ReidError(f"the export gives {name} that are not finite; nothing was written")
    found = found.astype(np.float64)
    return Difference(float(np.abs(found - expected).max()), float(np.abs(expected).max()))


def _worse(one: Difference | None, other: Difference) -> Difference:
    return other if one is None or other.largest > one.largest else one
