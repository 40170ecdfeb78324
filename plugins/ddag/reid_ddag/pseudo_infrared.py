"""Reader that shows some cameras of a visible data set as if they saw infrared. Torch-free.

A stand-in for pictures that cannot be had: it loses colour and keeps shape, as near infrared does,
but cloth is not seen by another light. It tells whether a method's parts help across such a gap,
not what they reach on true infrared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from reidcore.api import Facts, Row, read_manifest, setting
from reidcore.errors import DataError, nearest

MODALITIES = ("visible", "infrared")


@attrs.frozen
class PseudoInfrared:
    """Settings of `ddag.pseudo_infrared`; root is a manifest of colour pictures."""

    cameras: list[str] = setting(
        "the cameras whose pictures are shown as infrared; 3 and 6 by default, as in SYSU-MM01",
        default=["3", "6"],
    )
    noise: float = setting(
        "standard deviation of the noise, in grey values", default=6.0, at_least=0, at_most=100
    )
    blur: float = setting(
        "radius of the Gaussian blur in pixels", default=0.7, at_least=0, at_most=20
    )
    seed: int = setting("another number draws other channels, tones and noise", default=0)

    def facts(self) -> Facts:
        """Without the manifest modalities and columns are known; many identities are assumed, so
        that no batch is refused which the manifest may well fill."""
        return Facts(1000, modalities=MODALITIES, columns=frozenset({"camera", "modality"}))

    def rows(self, root: Path) -> list[Row]:
        """Return the manifest's rows, each with its modality.

        Of an infrared camera, the grey value is that of one colour channel, drawn for every
        identity and camera, under a tone curve drawn for every camera, blurred, with noise.
        Raises DataError for cameras that the manifest lacks and for one that names modalities.
        """
        from reid_ddag.infrared_picture import InfraredPicture

        rows = read_manifest(Path(root))
        known = list(dict.fromkeys(row.camera for row in rows))
        for camera in self.cameras:
            if camera not in known:
                raise DataError(
                    f"{root} has no pictures of camera {camera!r}{nearest(camera, known)}; its "
                    f"cameras are {', '.join(filter(None, known)) or 'unknown'}"
                )
        if any(row.modality for row in rows):
            raise DataError(
                f"{root} has a column modality; ddag.pseudo_infrared makes infrared of pictures "
                "that are all of one"
            )

        def shown(row: Row) -> dict[str, Any]:
            if row.camera not in self.cameras:
                return {"modality": MODALITIES[0]}
            opener = InfraredPicture(
                row.path, row.pid, row.camera, self.noise, self.blur, self.seed
            )
            return {"modality": MODALITIES[1], "opener": opener}

        return [attrs.evolve(row, **shown(row)) for row in rows]
