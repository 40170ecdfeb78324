"""VehicleID's protocol (Liu et al. 2016): one random picture of each vehicle is the gallery."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import ClassVar

import attrs

from reidcore.contracts.component import Row
from reidcore.contracts.settings import setting
from reidcore.errors import UsageError
from reidcore.protocols.base import Protocol, Task, Trial

DRAW = "vehicleid-1"
"""Name and version of `digest`; its draws are part of published scores, so it may not change."""


def digest(seed: int, trial: int, pid: str, file: str) -> bytes:
    """Return SHA-256 of `vehicleid-1 SEED TRIAL PID FILE` in UTF-8, by which pictures are drawn.

    Args:
        seed: Setting of the protocol.
        trial: Number of the trial, from 0.
        pid: Identity.
        file: Name of the picture without its folder.
    """
    return sha256(f"{DRAW} {seed} {trial} {pid} {file}".encode()).digest()


@attrs.frozen
class VehicleIDProtocol(Protocol):
    """Draw of one picture of each identity as the gallery; the rest of the split test are queries.

    In a trial, the gallery has of each identity the picture whose digest is least; of files of one
    name, in several folders, the first path. So a draw is the same whatever other vehicles are in
    the list, in any order of lines, on any machine.
    """

    name: ClassVar[str] = "vehicleid"

    trials: int = setting("Draws, whose scores are averaged.", default=10, at_least=1)
    seed: int = setting("Another number draws other galleries.", default=0, at_least=0)

    @property
    def draw(self) -> str:
        return DRAW

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        pictures: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            pictures.setdefault(row.pid, []).append(number)
        if all(len(found) == 1 for found in pictures.values()):
            raise UsageError(
                f"protocol vehicleid: none of the {len(pictures)} identities has a second picture, "
                "so that there is no query"
            )

        def trial(number: int) -> Trial:
            def key(index: int) -> tuple[bytes, str]:
                row = rows[index]
                return digest(self.seed, number, row.pid, os.path.basename(row.path)), row.path

            gallery = {min(found, key=key) for found in pictures.values()}
            queries = tuple(index for index in range(len(rows)) if index not in gallery)
            return Trial(queries, tuple(sorted(gallery)))

        return [Task("", tuple(map(trial, range(self.trials))))]
