"""Training batches of one picture, which a batch norm cannot be trained on: told before a run."""

from __future__ import annotations

import types
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from running import TINY

from reidcore.api import BatchShape, Component, hookimpl
from reidcore.builtin.samplers import Shuffled
from reidcore.builtin.settings.samplers import Shuffled as ShuffledSettings
from reidcore.contracts.pictures import Rows
from reidcore.errors import RunFileError, UsageError
from reidcore.model.building import build_model
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.runfolder import folder as runfolder
from reidcore.support.progress import Silent
from reidcore.training.dry_run import dry_run
from reidcore.training.options import TrainingOptions
from reidcore.training.start import run_training
from reidcore.wiring.make_plan import make_plan

TRIPLET = TINY[TINY.index('[[loss]]\nname = "triplet"') : TINY.index("[train]")]
NORMED = TINY.replace(TRIPLET, "")
"""32 training pictures; the norm of a head is over vectors."""
POOLED = NORMED.replace("core.bnneck", "core.pool").replace("neck.bn", "neck.vector")
"""Norms are over maps alone, of which the last has one place where pictures are 16 x 16."""


def planned(text, sampler, *sets, plugins=None, **options):
    sets = (f"data.batch={{{sampler}}}", *sets)
    options = options or {"allow_missing": True}
    run = parse_runfile(text, Path("tiny.toml"), sets)
    return make_plan(run, plugins or Plugins([]), **options)


def shuffled(size, drop_last):
    return f'use="core.shuffled",size={size},drop_last={str(drop_last).lower()}'


def rows(count):
    zeros = np.zeros(count, dtype=np.int64)
    listed = [str(number) for number in range(count)]
    return Rows(listed, zeros, zeros, np.zeros(count), zeros, ["0"], listed)


@pytest.mark.parametrize("drop_last", [False, True])
def test_the_least_batch_is_that_of_the_sampler(drop_last):
    for size in range(1, 7):
        for count in range(1, 20):
            config = ShuffledSettings(size=size, drop_last=drop_last)
            batches = Shuffled(config).epoch(rows(count), torch.Generator(), None)
            assert config.least(count) == min(map(len, batches)), (size, count)


@pytest.mark.parametrize("size", [31, 1])
def test_a_last_batch_of_one_is_refused(size):
    """With the part that cannot train on it, and what to change; other rests pass."""
    with pytest.raises(RunFileError) as caught:
        planned(NORMED, shuffled(size, False))
    (said,) = caught.value.problems
    assert "head 'neck' (core.bnneck): normalises over the batch" in said
    assert "the last one of an epoch has one" in said and "drop_last = true" in said
    for fine in (shuffled(31, True), shuffled(30, False), shuffled(33, False)):
        assert planned(NORMED, fine).given.batch.least != 1
    assert planned(NORMED, shuffled(size, False), "train.epochs=0").given.batch.least is None


@pytest.mark.parametrize(
    ("sampler", "which"),
    [(shuffled(31, False), "the last"), (shuffled(1, True), "every")],
)
def test_what_no_part_foresees_is_found_by_the_dry_run(sampler, which):
    """A norm of maps that have one place; with larger maps the same batch is fine."""
    plan = planned(POOLED, sampler, "data.image=[16,16]")
    with pytest.raises(UsageError) as caught:
        dry_run(plan, build_model(plan, 0))
    said = str(caught.value)
    assert said.startswith(f"[data] batch: {which} batch of an epoch has one picture")
    assert "backbone (core.resnet)" in said and "drop_last = true" in said
    for size, image in ((31, 64), (30, 16)):
        plan = planned(POOLED, shuffled(size, False), f"data.image=[{image},{image}]")
        dry_run(plan, build_model(plan, 0))


@attrs.frozen
class Single:
    """Settings of a sampler that gives batches of any size, of one picture, too, if it says so."""

    said: bool = False

    def check(self, given):
        pass

    def batch(self):
        return BatchShape(None)

    def least(self, pictures):
        return 1 if self.said else 2


def plugins():
    @hookimpl
    def reid_samplers():
        return [Component("single", Single, "nowhere:build", "one picture first")]

    found = Plugins([])
    found.add("one", types.SimpleNamespace(reid_samplers=reid_samplers))
    return found


def test_a_sampler_of_a_plugin_says_its_least():
    with pytest.raises(RunFileError, match="the last one of an epoch has one"):
        planned(NORMED, 'use="one.single",said=true', plugins=plugins())
    assert planned(NORMED, 'use="one.single"', plugins=plugins()).given.batch.least == 2


def test_what_nobody_foresees_is_told_in_a_sentence(tmp_path, monkeypatch):
    """A sampler that gives a smaller batch than it promises ends the run, but in no traceback."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    monkeypatch.setattr(Shuffled, "epoch", lambda self, rows, *_: [[0], [1, 2]])
    plan = planned(NORMED, shuffled(30, True), make_data=True)
    with (
        runfolder.prepared(tmp_path / "run", resume=False),
        pytest.raises(UsageError, match="a training batch has one picture, which a batch norm"),
    ):
        run_training(plan, Plugins([]), TrainingOptions(tmp_path / "run", check=False), Silent())
