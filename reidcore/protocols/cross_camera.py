"""Protocols that search for the query's identity in other cameras; the splits list both sides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.settings import setting
from reidcore.protocols.base import CMC, SIDES, Protocol, SamePlace, Task, Trial, numbers

EVAL_KEY = "eval.same_camera"
"""Key that holds for all test sets."""

OWN_KEY = "protocol.same_camera"
"""Key of one test set's protocol."""

SAME_CAMERA = (
    "Of the query's own camera, drop its identity's pictures (Market-1501's rule), drop all "
    "pictures, or keep all; as `same_camera` in [eval] if not set."
)
"""Description of the setting."""


@attrs.frozen
class CrossCamera(Protocol):
    """Search of the split gallery for the split query's identities in other cameras (Zheng et al.
    2015, section 5)."""

    name: ClassVar[str] = "cross_camera"

    same_camera: SamePlace | None = setting(SAME_CAMERA, default=None)

    def splits(self, have: Collection[str]) -> tuple[str, ...]:
        return SIDES

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        return [Task("", (Trial(numbers(rows, "query"), numbers(rows, "gallery")),))]

    def same_place(self, same_camera: SamePlace) -> SamePlace:
        return self.same_camera or same_camera

    @property
    def same_camera_key(self) -> str:
        return EVAL_KEY if self.same_camera is None else OWN_KEY


@attrs.frozen
class SingleGalleryShot(CrossCamera):
    """The same with CMC in galleries of one drawn picture of each identity (CUHK03's older
    metric)."""

    name: ClassVar[str] = "single_gallery_shot"
    cmc: ClassVar[CMC] = "single_shot"

    repeats: int = setting("Galleries that are drawn for each query.", default=10, at_least=1)
    seed: int = setting("Of NumPy's generator (MT19937) that draws.", default=0, at_least=0)
