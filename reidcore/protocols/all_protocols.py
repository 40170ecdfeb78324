"""All evaluation protocols, by the name that run files call them. Torch-free.

They belong to the core, and plugins add none: published numbers must mean one thing.
docs/evaluation.md defines them all; `reidcore.evaluation` scores test sets by them.
"""

from __future__ import annotations

from collections.abc import Mapping

from reidcore.protocols.base import Protocol
from reidcore.protocols.cross_camera import CrossCamera, SingleGalleryShot
from reidcore.protocols.cross_modality import CrossModality, RegDBProtocol
from reidcore.protocols.open_set import OpenSet
from reidcore.protocols.sysu import SYSUProtocol
from reidcore.protocols.vehicleid import VehicleIDProtocol

PROTOCOLS: Mapping[str, type[Protocol]] = {
    one.name: one
    for one in (
        CrossCamera,
        SingleGalleryShot,
        VehicleIDProtocol,
        SYSUProtocol,
        RegDBProtocol,
        CrossModality,
        OpenSet,
    )
}
"""Class of each protocol by its name."""
