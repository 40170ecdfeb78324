"""A record for trackio, on this machine or in a Hugging Face Space."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import trackio
from PIL import Image

from reid_trackers.settings import Trackers
from reid_trackers.tracker import Described, quiet


class Trackio:
    """See `reid_trackers.tracker.Tracker`."""

    def __init__(self, settings: Trackers):
        self._settings = settings
        self._run: Any = None

    def start(self, run: Described, known: str, step: int) -> str:
        # Runs of trackio are known by their names alone, and several runs may have one.
        name = known or f"{run.name}-{secrets.token_hex(3)}"
        with quiet():
            self._run = trackio.init(
                project=self._settings.project,
                name=name,
                space_id=self._settings.trackio_space or None,
                config={**run.config, **run.files},
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return name

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        with quiet():
            self._run.log(dict(numbers), step=step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        with quiet():
            self._run.log({name: trackio.Image(picture)}, step=step)

    def end(self) -> None:
        with quiet():
            trackio.finish()  # its own would be called once more when Python ends
