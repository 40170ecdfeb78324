"""Evaluation protocols: which pictures are queries and gallery, and what counts for a query.

They are the core's data, not plugins: published numbers must mean one thing. A protocol says, of
the rows of a test set, which tasks there are and the queries and gallery of each trial (`tasks`),
which pictures are left out of a query's list (`same_place`, `place`), and how CMC counts (`cmc`).
docs/evaluation.md defines them all. Torch-free; `reidcore.test_sets` is the torch half.
"""

from __future__ import annotations

from collections.abc import Mapping

from reidcore.protocols.base import POOL, SIDES, Protocol, SamePlace, Task, Trial
from reidcore.protocols.cross_camera import CrossCamera, SingleGalleryShot
from reidcore.protocols.cross_modality import CrossModality, RegDBProtocol
from reidcore.protocols.sysu import SYSUProtocol
from reidcore.protocols.vehicleid import VehicleIDProtocol

__all__ = [
    "POOL",
    "PROTOCOLS",
    "SIDES",
    "CrossCamera",
    "Protocol",
    "SamePlace",
    "SingleGalleryShot",
    "Task",
    "Trial",
    "scored_name",
]

PROTOCOLS: Mapping[str, type[Protocol]] = {
    one.name: one
    for one in (
        CrossCamera, SingleGalleryShot, VehicleIDProtocol, SYSUProtocol, RegDBProtocol,
        CrossModality,
    )
}  # fmt: skip


def scored_name(test: str, task: Task) -> str:
    """The name that a task's scores stand under."""
    return f"{test}/{task.name}" if task.name else test
