"""A record for Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb
from PIL import Image

from reid_trackers.settings import Trackers
from reid_trackers.tracker import Described
from reidcore.errors import UsageError

STEP = "epoch"


class Wandb:
    """See `reid_trackers.tracker.Tracker`."""

    def __init__(self, settings: Trackers):
        self._settings = settings
        self._run: Any = None

    def start(self, run: Described, known: str, step: int) -> str:
        mode = self._settings.wandb_mode
        if mode == "online" and not wandb.login(prompt=False):
            raise UsageError("there is no login; use `wandb login`, or trackers.wandb_mode=offline")
        name = known or secrets.token_hex(8)
        self._run = wandb.init(
            project=self._settings.project,
            entity=self._settings.wandb_entity or None,
            name=run.name,
            id=name,
            resume="allow",
            mode=mode,
            dir=str(run.folder),
            config=dict(run.config),
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, x_disable_stats=True
            ),
        )
        # Steps of wandb's own count calls; an epoch that comes again may have another number.
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)
        if not known:
            for file, text in run.files.items():
                Path(self._run.dir, file).write_text(text, encoding="utf-8")
        return name

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({STEP: step, **numbers})

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        self._run.log({STEP: step, name: wandb.Image(picture)})

    def end(self) -> None:
        self._run.finish()
