"""What protocols of several cameras say of gallery pictures of the query's own camera."""

from __future__ import annotations

import attrs

from reidcore.contracts.settings import setting
from reidcore.protocols.base import Protocol, SamePlace


@attrs.frozen
class SameCameraProtocol(Protocol):
    """Base of protocols in which the run file says what is left out."""

    same_camera: SamePlace | None = setting(
        "Of the query's own camera, drop its identity's pictures (Market-1501's rule), drop all "
        "pictures, or keep all; as `same_camera` in [eval] if not set.",
        default=None,
    )

    def same_place(self, same_camera: SamePlace) -> SamePlace:
        return self.same_camera or same_camera

    @property
    def same_camera_key(self) -> str:
        return "eval.same_camera" if self.same_camera is None else "protocol.same_camera"
