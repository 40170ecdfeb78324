"""What every tracker does; each library has its own in a module of this package."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
from PIL import Image

from reid_trackers.settings import Trackers

TRACKERS = {
    "tensorboard": "reid_trackers.to_tensorboard:Tensorboard",
    "mlflow": "reid_trackers.to_mlflow:Mlflow",
    "wandb": "reid_trackers.to_wandb:Wandb",
    "trackio": "reid_trackers.to_trackio:Trackio",
}


@attrs.frozen
class Described:
    """The run that a record is of.

    config: its settings by dotted key. files: texts to keep beside the record, by file name.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    files: Mapping[str, str]


class Tracker(Protocol):
    """A record of one run. Any method may raise what the library raises."""

    def __init__(self, settings: Trackers): ...

    def start(self, run: Described, known: str, step: int) -> str:
        """Begin the record, or go on with the one that is called `known` ("" for a new run).

        step: the first one that may come. Returns what it is called by, to go on with it later.
        """

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add numbers by name, such as "train/loss"; steps are epochs, from 1."""

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Add a picture."""

    def end(self) -> None:
        """Say that the run is finished, and wait until everything is written."""


def make_tracker(name: str, settings: Trackers) -> Tracker:
    """Return the tracker of this name, whose library is imported now."""
    module, _, made = TRACKERS[name].partition(":")
    return getattr(importlib.import_module(module), made)(settings)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What a library prints must not stand in the output of `reid run`."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
