"""What a run saves after each epoch, and the numbers that an epoch logs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from running import TINY

from reidcore.distributed.processes import ALONE, Processes
from reidcore.errors import DataError, ReidError
from reidcore.model.building import build_model
from reidcore.model.model import Model
from reidcore.model.state_files import load_state, save_state
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.training.epoch_log import EpochLog
from reidcore.training.saves import Saves
from reidcore.wiring.make_plan import make_plan

ROW = {"epoch": 1, "loss": 2.0, "lr": 0.1, "seconds": 1.5}


def make(seed: int = 0) -> Model:
    run = parse_runfile(TINY, Path("tiny.toml"), [])
    return build_model(make_plan(run, Plugins([]), allow_missing=True), seed)


def scores(value: float) -> dict:
    stages = {"plain": {"mAP": 0.0, "cmc": [0.0]}, "rerank": {"mAP": value, "cmc": [value, 1.0]}}
    return {"demo": {"main": stages}}


def test_a_save_restores_the_run(tmp_path):
    """Model, procedure's state, rows and scores are those of the last save."""
    first, optimizer = make(), torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.5)
    saves = Saves(tmp_path, first, ALONE)
    assert not saves.restore({"optimizer": optimizer})
    saves.add_epoch(ROW, evaluation_due=True)
    second, other = make(1), torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.25)
    again = Saves(tmp_path, second, ALONE)
    assert again.restore({"optimizer": other})
    assert again.history == [ROW] and again.evaluation_due and again.scores is None
    assert other.param_groups[0]["lr"] == 0.5
    weights = second.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.state_dict().items())
    again.add_scores(scores(0.5))
    third = Saves(tmp_path, make(2), ALONE)
    assert third.restore({"optimizer": other})
    assert third.scores == scores(0.5) and not third.evaluation_due
    by_epoch = json.loads((tmp_path / "scores-by-epoch.json").read_text())
    assert by_epoch == [
        {"epoch": 1, "scores": {"demo": {"main": {"plain": {"mAP": 0.0}, "rerank": {"mAP": 0.5}}}}}
    ]
    assert (tmp_path / "means.csv").read_text() == "epoch,loss,lr,seconds\n1,2.0,0.1,1.5\n"


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("fused", [(None, True), (True, None)], ids=["to a GPU", "from a GPU"])
def test_a_step_is_computed_as_the_device_wants(tmp_path, kind, fused):
    """A run goes on by another device's kind of step, which the saved state does not change."""
    parameters = [torch.nn.Parameter(torch.arange(3.0)) for _ in fused]
    more = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    first, second = (
        kind([parameter], 0.1, fused=way, **more)
        for parameter, way in zip(parameters, fused, strict=True)
    )

    def step(optimizer: torch.optim.Optimizer) -> None:
        (parameter,) = optimizer.param_groups[0]["params"]
        parameter.grad = torch.tensor([1.0, -2.0, 0.5])
        optimizer.step()

    step(first)
    parameters[1].data.copy_(parameters[0].data)
    saves = Saves(tmp_path, make(), ALONE)
    assert not saves.restore({"optimizer": first})
    saves.add_epoch(ROW, evaluation_due=False)
    assert Saves(tmp_path, make(), ALONE).restore({"optimizer": second})
    assert second.param_groups[0]["fused"] is fused[1]
    for optimizer in (first, second):
        step(optimizer)
    torch.testing.assert_close(parameters[1], parameters[0])


def test_another_procedures_state_is_refused(tmp_path):
    part = torch.nn.Linear(1, 1)
    saves = Saves(tmp_path, make(), ALONE)
    saves.restore({"optimizer": part, "own": part})
    saves.add_epoch(ROW, evaluation_due=False)
    with pytest.raises(DataError) as caught:
        Saves(tmp_path, make(), ALONE).restore({})
    assert "holds the state of optimizer, own, but the procedure keeps nothing" in str(caught.value)


def test_saves_from_before_scores_by_epoch_are_read(tmp_path):
    saves = Saves(tmp_path, make(), ALONE)
    saves.add_epoch(ROW, evaluation_due=False)
    file = tmp_path / "resume.safetensors"
    save_state(file, {key: value for key, value in load_state(file).items() if key != "scored"})
    again = Saves(tmp_path, make(), ALONE)
    assert again.restore({})
    again.add_scores(scores(0.5))
    assert len(json.loads((tmp_path / "scores-by-epoch.json").read_text())) == 1


def test_the_best_epoch_is_that_of_the_last_stage(tmp_path):
    """The first test set's first ranking decides, after all of its postprocessors; ties keep the
    earlier epoch, and a score that is not a number never is the best."""
    saves = Saves(tmp_path, make(), ALONE, best="mAP")
    for number, value in enumerate((0.3, 0.6, 0.6, math.nan, 0.5), 1):
        saves.add_epoch({**ROW, "epoch": number}, evaluation_due=True)
        saves.add_scores(scores(value))
    assert json.loads((tmp_path / "best.json").read_text()) == {"epoch": 2, "mAP": 0.6}
    assert (tmp_path / "weights-best.safetensors").exists()


def test_only_the_first_process_writes(tmp_path):
    saves = Saves(tmp_path, make(), Processes(1, 2), best="mAP")
    saves.add_epoch(ROW, evaluation_due=True)
    saves.add_scores(scores(0.5))
    saves.finish(scores(0.5), {})
    assert saves.scores == scores(0.5) and not list(tmp_path.iterdir())


def test_an_epoch_logs_means():
    """Means are over the steps that logged a name; pictures are counted between two steps."""
    log = EpochLog()
    log.add("loss", torch.tensor(1.0, requires_grad=True))
    log.add("loss", 2.0)
    log.add("late", 5)
    log.pictures += 8
    assert log.new_pictures() == 8 and log.new_pictures() == 0
    assert log.means() == {"loss": 1.5, "late": 5.0}
    row = log.row(3, 0.1)
    assert list(row) == ["epoch", "loss", "late", "lr", "seconds", "pictures_per_second"]
    assert row["epoch"] == 3 and row["loss"] == 1.5 and row["lr"] == 0.1
    assert row["pictures_per_second"] > 0


def test_a_mean_that_is_not_finite_ends_the_run():
    log = EpochLog()
    log.add("id", float("nan"))
    log.add("triplet", float("inf"))
    with pytest.raises(ReidError) as caught:
        log.row(2, 0.1)
    assert str(caught.value).startswith("id, triplet became nan in epoch 2; lower optim.lr")


@pytest.mark.parametrize("epoch", [1, 2])
def test_what_is_told_to_look_at_exists(tmp_path, epoch):
    """The table of means is named once it has been written, and not in a first epoch."""
    model = make()
    saves = Saves(tmp_path, model, ALONE)
    for number in range(1, epoch):
        saves.add_epoch({**ROW, "epoch": number}, evaluation_due=False)
    with torch.no_grad():
        model.heads["neck"].norm.weight[0] = math.nan
    log = EpochLog()
    log.add("loss", math.nan)
    for fails in (
        lambda: saves.add_epoch({**ROW, "epoch": epoch}, evaluation_due=False),
        lambda: log.row(epoch, 0.1),
    ):
        with pytest.raises(ReidError) as caught:
            fails()
        assert ("means.csv" in str(caught.value)) == (tmp_path / "means.csv").exists()


@pytest.mark.parametrize("lost", ["means.csv", "scores-by-epoch.json"])
@pytest.mark.parametrize("damage", ["old", "absent"])
def test_tables_are_written_anew_on_resume(tmp_path, lost, damage):
    """A kill after the resume file and before a table leaves the table of the epoch before."""
    saves = Saves(tmp_path, make(), ALONE)
    before: dict[str, bytes] = {}
    for number in (1, 2):
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        saves.add_epoch({**ROW, "epoch": number}, evaluation_due=True)
        saves.add_scores(scores(0.5))
    whole = (tmp_path / lost).read_bytes()
    assert whole != before[lost]
    if damage == "old":
        (tmp_path / lost).write_bytes(before[lost])
    else:
        (tmp_path / lost).unlink()
    assert Saves(tmp_path, make(), ALONE).restore({})
    assert (tmp_path / lost).read_bytes() == whole


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["weight", "buffer", "procedure"])
def test_a_diverged_state_is_not_saved(tmp_path, bad, where):
    """The last good save stays, the tensor is named, and no weights are written."""
    model, part = make(), torch.nn.Linear(2, 2)
    saves = Saves(tmp_path, model, ALONE, best="mAP")
    saves.restore({"own": part})
    saves.add_epoch(ROW, evaluation_due=True)
    saves.add_scores(scores(0.5))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    norm = model.heads["neck"].norm
    tensor = {"weight": norm.weight, "buffer": norm.running_var, "procedure": part.bias}[where]
    with torch.no_grad():
        tensor[1] = bad
    name = {"weight": "head.neck.norm.weight", "buffer": "running_var", "procedure": "own.bias"}
    for save in (
        lambda: saves.add_scores(scores(0.9)),
        lambda: saves.add_epoch({**ROW, "epoch": 2}, evaluation_due=False),
        lambda: saves.finish(None, {}),
    ):
        with pytest.raises(ReidError, match=rf"{name[where]} is not finite after epoch"):
            save()
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
