"""Reader of the demo data set, which is drawn on first use. Torch-free and NumPy-free."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.rows import Facts
from reidcore.contracts.settings import refuse_value, setting
from reidcore.data.manifest import read_manifest
from reidcore.errors import OutputError, ReidError
from reidcore.support.cache_folder import cache_folder
from reidcore.version import __version__

DRAWING = 2
"""Version of the drawing; another number, so that no cache keeps pictures of another drawing."""


@attrs.frozen
class Demo:
    """Settings of `core.demo`: drawn walkers, as `reidcore.builtin.drawn_people` draws them."""

    train_identities: int = setting("people to train on", default=60, at_least=2)
    test_identities: int = setting("people to search for", default=40, at_least=2)
    pictures: int = setting("pictures of each of them, over all cameras", default=14, at_least=4)
    cameras: int = setting("cameras in the network", default=4, at_least=2, at_most=99)
    infrared_cameras: int = setting(
        "how many of the cameras see near infrared only: no hues, and garments as bright as their "
        "cloth and their colour's lightness make them, half and half",
        default=0,
        at_least=0,
    )
    difficulty: float = setting(
        "how much light, pose and noise change, from 0 (clean) over 1 (usual) to 2",
        default=1.0,
        at_least=0,
        at_most=2,
    )
    seed: int = setting("another number draws another data set", default=0, at_least=0)

    @infrared_cameras.validator
    def _among_cameras(self, attribute: attrs.Attribute, value: int) -> None:
        if value > self.cameras:
            refuse_value(attribute, f"expected at most cameras = {self.cameras}, got {value}")

    def facts(self) -> Facts:
        modalities = ["visible"] * (self.infrared_cameras < self.cameras)
        modalities += ["infrared"] * (self.infrared_cameras > 0)
        return Facts(
            identities=self.train_identities,
            cameras=[str(number + 1) for number in range(self.cameras)],
            modalities=modalities,
            columns=frozenset({"camera", "time", "modality"}),
            counts={"train": self.train_identities * self.pictures},
            groups={("train",): self.train_identities, ("query", "gallery"): self.test_identities},
        )

    def default_root(self) -> Path:
        """Return the folder of these settings in $REID_CACHE, or in ~/.cache/reidcore."""
        settings = json.dumps([DRAWING, attrs.asdict(self)], sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
        return cache_folder(f"demo-{__version__}-{digest}")

    def rows(self, root: Path) -> list[Row]:
        """Return the manifest's rows; draw the data set into `root` if that does not exist."""
        root = Path(root)
        if not root.exists():
            from reidcore.builtin.drawn_people.pictures import write_demo

            try:
                write_demo(root, **attrs.asdict(self))
            except (ValueError, ReidError) as error:
                # Another process may have drawn the same pictures meanwhile.
                if root.exists():
                    return read_manifest(root / "manifest.csv")
                if isinstance(error, OutputError) and root == self.default_root():
                    error.args = (f"{error}; REID_CACHE may name another folder for them",)
                raise
        return read_manifest(root / "manifest.csv")
