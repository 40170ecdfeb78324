"""Protocols that search for the query's identity in other cameras; the splits list both sides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.settings import setting
from reidcore.protocols.base import CMC, SIDES, Task, Trial, numbers
from reidcore.protocols.same_camera import SameCameraProtocol


@attrs.frozen
class CrossCamera(SameCameraProtocol):
    """Search of the split gallery for the split query's identities in other cameras (Zheng et al.
    2015, section 5)."""

    name: ClassVar[str] = "cross_camera"

    def splits(self, have: Collection[str]) -> tuple[str, ...]:
        return SIDES

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        return [Task("", (Trial(numbers(rows, "query"), numbers(rows, "gallery")),))]


@attrs.frozen
class SingleGalleryShot(CrossCamera):
    """The same with CMC in galleries of one drawn picture of each identity (CUHK03's older
    metric)."""

    name: ClassVar[str] = "single_gallery_shot"
    cmc: ClassVar[CMC] = "single_shot"

    repeats: int = setting("Galleries that are drawn for each query.", default=10, at_least=1)
    seed: int = setting("Of NumPy's generator (MT19937) that draws.", default=0, at_least=0)
