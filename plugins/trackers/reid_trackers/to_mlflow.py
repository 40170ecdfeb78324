"""A record for MLflow, in a local store or on a server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from PIL import Image

from reid_trackers.settings import Trackers
from reid_trackers.tracker import Described

LONGEST = 6000
"""Characters of a parameter that MLflow takes."""
MOST = 100
"""Parameters that MLflow takes at once."""


class Mlflow:
    """See `reid_trackers.tracker.Tracker`."""

    def __init__(self, settings: Trackers):
        self._client = MlflowClient(tracking_uri=settings.mlflow_uri or None)
        self._experiment = settings.project
        self._run = ""

    def start(self, run: Described, known: str, step: int) -> str:
        if known:
            self._run = known
            self._client.update_run(known, status="RUNNING")
            return known
        found = self._client.get_experiment_by_name(self._experiment)
        made = found.experiment_id if found else self._client.create_experiment(self._experiment)
        self._run = self._client.create_run(made, run_name=run.name).info.run_id
        params = [Param(_name(key), _shown(value)) for key, value in run.config.items()]
        for start in range(0, len(params), MOST):
            self._client.log_batch(self._run, params=params[start : start + MOST])
        for name, text in run.files.items():
            self._client.log_text(self._run, text, name)
        return self._run

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(_name(key), value, now, step) for key, value in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        self._client.log_image(self._run, picture, key=name, step=step)

    def end(self) -> None:
        self._client.set_terminated(self._run)


def _name(text: str) -> str:
    """A name of the characters that MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", text)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
