"""Checks of procedures."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from reidcore.errors import DataError
from reidcore.support.progress import Silent
from reidcore.testing.failures import ConformanceError, NotChecked
from reidcore.testing.samples import Sample
from reidcore.training.options import TrainingOptions
from reidcore.training.start import run_training
from reidcore.training.teachers import find_run
from reidcore.wiring.make_plan import make_plan


class _Stop(BaseException):
    """Raised to end a run as a kill does."""


class _Stopping(Silent):
    def epoch_ended(self, means: Mapping[str, float]) -> None:
        raise _Stop


def resumes_to_the_same_end(sample: Sample) -> None:
    """Two epochs of the sample, and one, broken off, resumed, leave the same weights and scores.
    Where the sample's data are absent, nothing is checked."""
    run = sample.run("train.epochs=2", "train.device=cpu")
    try:
        plan = make_plan(run, sample.plugins, make_data=True, find_run=find_run)
    except DataError as error:
        raise NotChecked(f"the data of its sample cannot be read: {error}") from None
    with tempfile.TemporaryDirectory() as base:
        whole, broken = Path(base, "whole"), Path(base, "broken")
        whole.mkdir()
        broken.mkdir()
        run_training(plan, sample.plugins, TrainingOptions(whole), Silent())
        try:
            run_training(plan, sample.plugins, TrainingOptions(broken), _Stopping())
        except _Stop:
            run_training(plan, sample.plugins, TrainingOptions(broken), Silent())
        else:
            raise ConformanceError("it does not count its epochs with run.epochs")
        for name in ("weights.safetensors", "scores.json"):
            files = [folder / name for folder in (whole, broken)]
            if files[0].exists() and files[0].read_bytes() != files[1].read_bytes():
                raise ConformanceError(
                    f"a resumed run ends with another {name}; give run.epochs everything that has "
                    "a state, and draw random numbers within epochs only"
                )
