"""Numbers of cameras and modalities. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.rows import camera_numbers, modality_names


@attrs.frozen
class Numbering:
    """The numbers that parts see in place of the names of cameras and modalities.

    cameras: {name: number}, -1 for "". modalities: names in the order of their numbers from 0.
    """

    cameras: dict[str, int] = attrs.field(factory=dict)
    modalities: tuple[str, ...] = ()

    @classmethod
    def of_training(cls, record: Mapping[str, Any]) -> Numbering:
        """That of a run's training data, from what its run record says of them; empty without a
        record."""
        return cls(dict(record.get("camera_numbers", {})), tuple(record.get("modalities", ())))

    def extended(self, rows: Sequence[Row], modalities: Sequence[str] | None = None) -> Numbering:
        """The same with further numbers for what is new in `rows`.

        modalities: those of the rows, where more is known of them than the rows state.
        """
        names = modality_names(rows) if modalities is None else modalities
        new = tuple(name for name in names if name not in self.modalities)
        return Numbering(self._with_cameras(rows), self.modalities + new)

    def _with_cameras(self, rows: Sequence[Row]) -> dict[str, int]:
        found, known = camera_numbers(rows), dict(self.cameras)
        clash = any(found[name] in known.values() for name in found.keys() - known.keys())
        for name, number in found.items():
            if name not in known:
                free = max(known.values(), default=-1) + 1
                known[name] = free if clash and name else number
        return known
