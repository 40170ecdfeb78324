"""A record for TensorBoard: event files in the run folder; `--logdir runs` shows all runs."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from reid_trackers.settings import Trackers
from reid_trackers.tracker import Described

FOLDER = "tensorboard"


class Tensorboard:
    """See `reid_trackers.tracker.Tracker`."""

    def __init__(self, settings: Trackers):
        self._writer: SummaryWriter | None = None

    def start(self, run: Described, known: str, step: int) -> str:
        # Of steps that a killed process wrote and that come again, only the later ones count.
        self._writer = SummaryWriter(str(run.folder / FOLDER), purge_step=step if known else None)
        if not known:
            for name, text in run.files.items():
                self._writer.add_text(name, f"```\n{text}\n```")
            self._writer.add_text("settings", f"```\n{json.dumps(dict(run.config), indent=1)}\n```")
        return FOLDER

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        assert self._writer is not None
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        assert self._writer is not None
        self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def end(self) -> None:
        assert self._writer is not None
        self._writer.close()
