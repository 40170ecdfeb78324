"""Runs that are killed, resumed, refused, repeated; and what training does with its settings."""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from running import TINY, ended, environment, evaluating, kill_when, left, reid, results, writing

from reidcore.cli.main import main
from reidcore.errors import UsageError
from reidcore.model.building import build_model
from reidcore.model.state_files import load_sections, load_state
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.runfiles.tables import Cosine, Optim, Steps, Warmup
from reidcore.runfolder import folder as runfolder
from reidcore.training.optimizers import rate_factor
from reidcore.training.start_share import share_start
from reidcore.wiring.make_plan import make_plan


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with the run file tiny.toml."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "tiny.toml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def env(base):
    return environment(base / "cache")


@pytest.fixture(scope="module")
def whole(base, env):
    """The folder of an uninterrupted run."""
    reid(env, base, "run", "tiny.toml", "--out", "whole")
    return base / "whole"


@pytest.fixture(scope="module")
def killed(base, env, whole):
    """The folder of a run that was killed inside the write of its second checkpoint or later."""
    folder = base / "killed"
    moment = writing(folder)

    def later(printed: str) -> bool:
        return "epoch 1/" in printed and moment(printed)

    kill_when(env, base, ["run", "tiny.toml", "--out", folder], later)
    assert left(folder)
    return folder


@pytest.fixture
def here(base, tmp_path, monkeypatch):
    """The current folder of commands in this process."""
    monkeypatch.setenv("REID_CACHE", str(base / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


def command(*arguments: object, code: int = 0) -> None:
    assert main([str(argument) for argument in arguments]) == code


def sets(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "weights.safetensors")


def test_three_kills_leave_no_trace(base, env, whole, killed):
    """Killed in a checkpoint's write, at a random time and in the last evaluation, then resumed on
    another device setting and number of workers, a run ends as if nothing had been."""
    folder = shutil.copytree(killed, base / "thrice")
    again = ["run", "tiny.toml", "--out", "thrice", "--resume"]
    kill_when(env, base, again, ended(3), pause=random.random() / 20)
    last_evaluation = evaluating()
    kill_when(env, base, again, lambda shown: "epoch 6/6" in shown and last_evaluation(shown))
    state = load_state(folder / "resume.safetensors")
    assert state["evaluation_due"] and state["epoch"] == 6
    (base / "commented.toml").write_text(TINY + "# a comment\n")
    last = ["run", "commented.toml", "--out", "thrice", "--resume"]
    reid(env, base, *last, *sets("train.device=cpu", "data.workers=1"))
    assert results(folder) == results(whole)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert (folder / "run.toml").read_text() == TINY


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_kills_leave_no_trace(base, env, whole):
    """Twenty kills over the whole course of five runs: before the first save, in writes, in
    evaluations, at random times; every run ends with the same bits."""
    draw = random.Random(0)
    for number in range(5):
        folder = base / f"twenty{number}"
        again = ["run", "tiny.toml", "--out", folder, "--resume"]
        kill_when(env, base, again, lambda printed: "run folder" in printed, draw.random() / 2)
        kill_when(env, base, again, writing(folder))
        assert left(folder)
        kill_when(env, base, again, evaluating(draw.choice([1, 2])))
        kill_when(env, base, again, lambda printed: "parameters" in printed, 1.5 * draw.random())
        reid(env, base, *again)
        assert results(folder) == results(whole)
        assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.epochs=9", "train.epochs was 6, is 9"),
        ("optim.lr=0.01", "optim.lr was 0.001, is 0.01"),
        ("loss.id.smoothing=0.1", "parts.loss.id.smoothing was 0.0, is 0.1"),
        ("loss.id.weight=2", "parts.loss.id.weight was 1.0, is 2.0"),
        ("data.augment=[]", "data.augment was [{"),
    ],
)
def test_a_changed_run_is_not_resumed(killed, here, capsys, change, words):
    """A changed setting is refused with its key and both values, and the state stays."""
    folder = shutil.copytree(killed, here / "killed")
    before = {name: it for name, it in snapshot(folder).items() if not name.endswith(".tmp")}
    command("run", "tiny.toml", "--out", folder, "--resume", "--set", change, code=2)
    assert words in capsys.readouterr().err
    assert snapshot(folder) == before


def test_changed_data_are_not_resumed(here, capsys, monkeypatch):
    """A manifest with another identity in one row is another run."""
    monkeypatch.delenv("REID_DATA", raising=False)
    command("data", "demo", "people", *sets("train_identities=4", "pictures=8", "cameras=2"))
    entry = '{ manifest = "people/manifest.csv" }'
    own = sets(f"data.train={entry}", f"data.test={entry}", "train.epochs=0")
    command("run", "tiny.toml", "--out", "own", *own)
    manifest = here / "people" / "manifest.csv"
    lines = manifest.read_text().splitlines()
    column = lines[0].split(",").index("pid")
    cells = lines[-1].split(",")
    cells[column] += "9"
    manifest.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    command("run", "tiny.toml", "--out", "own", "--resume", *own, code=2)
    assert "the manifest of data.test people was " in capsys.readouterr().err


def test_an_existing_folder_is_not_touched(killed, whole, here, capsys):
    """Without --resume, neither a finished nor an unfinished run is changed in any way."""
    for folder, words in ((whole, "a finished run"), (killed, "an unfinished run")):
        before = snapshot(folder)
        command("run", "tiny.toml", "--out", folder, code=2)
        message = capsys.readouterr().err
        assert words in message and "Nothing was changed" in message
        assert snapshot(folder) == before


def test_a_finished_run_is_not_resumed(whole, here, capsys):
    """--resume on a finished run says so, shows its scores and changes nothing, or only removes
    the state that a kill at the very end left there."""
    before = snapshot(whole)
    command("run", "tiny.toml", "--out", whole, "--resume")
    shown = capsys.readouterr().out
    assert "is finished; nothing to resume" in shown
    assert "mAP" in shown
    assert snapshot(whole) == before
    (whole / "resume.safetensors").touch()
    command("run", "tiny.toml", "--out", whole, "--resume")
    assert snapshot(whole) == before
    lock = whole / "lock.json"
    text = lock.read_text()
    lock.write_text(text.replace('"threads": ', '"threads": 9'))
    capsys.readouterr()
    command("run", "tiny.toml", "--out", whole, "--resume")
    shown = capsys.readouterr().out
    assert "nothing to resume" in shown and "bit-identical" not in shown
    lock.write_text(text)


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "foreign"])
def test_a_damaged_state_is_named(killed, here, capsys, damage):
    """A resume file that was cut, emptied, overwritten or replaced means code 4 and its path."""
    from safetensors.torch import save

    folder = shutil.copytree(killed, here / "killed")
    file = folder / "resume.safetensors"
    good = file.read_bytes()
    file.write_bytes(
        {
            "cut": good[: len(good) // 2],
            "empty": b"",
            "noise": bytes(range(256)) * 64,
            "foreign": save({"a": torch.zeros(1)}),
        }[damage]
    )
    command("run", "tiny.toml", "--out", folder, "--resume", code=4)
    message = capsys.readouterr().err
    assert str(file) in message and "damaged" in message


def test_no_epochs_make_an_evaluated_folder(here):
    """`train.epochs = 0` evaluates random weights; `reid eval` finds the same scores in them."""
    command("run", "tiny.toml", "--out", "none", *sets("train.epochs=0"))
    scores = json.loads((here / "none" / "scores.json").read_text())
    assert 0 < scores["demo"]["main"]["plain"]["mAP"] < 1
    command("eval", "none", "-o", "again.json")
    assert json.loads((here / "again.json").read_text()) == scores
    assert not (here / "none" / "resume.safetensors").exists()


def test_repeats_are_runs_of_their_own(here, capsys):
    """Each seed has a sub-folder; the parent holds mean and deviation; what is missing is made up
    for by --resume."""
    (here / "seeds.toml").write_text(TINY + '\n[repeat]\n"train.seed" = [0, 1]\n')
    few = sets("train.epochs=1")
    command("run", "seeds.toml", "--out", "seeds", *few)
    parent = here / "seeds"
    summary = json.loads((parent / "scores.json").read_text())
    each = [json.loads((parent / str(i) / "scores.json").read_text()) for i in (0, 1)]
    maps = [one["demo"]["main"]["plain"]["mAP"] for one in each]
    assert maps[0] != maps[1]
    found = summary["demo"]["main"]["plain"]["mAP"]
    assert found["values"] == maps
    assert found["mean"] == pytest.approx(sum(maps) / 2)
    assert found["deviation"] == pytest.approx(abs(maps[0] - maps[1]) / math.sqrt(2))
    capsys.readouterr()
    command("run", "seeds.toml", "--out", "seeds", *few, code=2)
    assert "--resume" in capsys.readouterr().err
    first = snapshot(parent / "0")
    shutil.rmtree(parent / "1")
    (parent / "scores.json").unlink()
    command("run", "seeds.toml", "--out", "seeds", "--resume", *few)
    assert json.loads((parent / "scores.json").read_text()) == summary
    assert snapshot(parent / "0") == first
    fewer = sets("repeat={ 'train.seed' = [0] }")
    command("run", "seeds.toml", "--out", "seeds", "--resume", *few, *fewer, code=2)
    assert "holds more repeats than the 1 that [repeat] lists now: 1." in capsys.readouterr().err
    assert json.loads((parent / "scores.json").read_text()) == summary


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lock.json", "holds a run without [repeat]"),
        ("weights.safetensors", "holds no repeats to resume"),
        ("thesis.txt", "holds no repeats to resume"),
    ],
)
def test_repeats_do_not_resume_what_is_none(here, capsys, name, message):
    """Not a plain run, whose scores they would replace, nor a folder of something else."""
    (here / "out").mkdir()
    (here / "out" / name).write_text("{}")
    twice = sets("train.epochs=0", "repeat={ 'train.seed' = [0, 1] }")
    command("run", "tiny.toml", "--out", "out", "--resume", *twice, code=2)
    assert message in capsys.readouterr().err
    assert [one.name for one in (here / "out").iterdir()] == [name]
    command("run", "tiny.toml", "--out", f"out/{name}", *twice, code=2)
    assert "is a file; name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "repeat",
    [
        '"eval.ties" = ["gallery", "grouped"]',
        '"eval.ranks" = [[1], [1, 5]]',
        '"eval.tar_at" = [[0.1], []]',
        '"train.best" = ["mAP", "rank-7"]',
        '"data.test" = [[{ read = "core.demo" }], [{ read = "core.demo", name = "again" }]]',
        '"data.test" = [[{ read = "core.demo" }], []]',
        '"eval.protocol" = [{use="open_set", far_at=[0.01]}, {use="open_set", far_at=[0.1]}]',
        '"ranking" = [[{ name = "a", matcher = "look" }], [{ name = "b", matcher = "look" }]]',
    ],
)
def test_repeats_whose_scores_have_no_mean(here, capsys, repeat):
    """Scores of different names are told before anything is trained."""
    (here / "differ.toml").write_text(f"{TINY}\n[repeat]\n{repeat}\n")
    command("run", "differ.toml", "--out", "differ", code=2)
    told = capsys.readouterr().err
    assert "there is no mean of scores that have different names: of " in told
    assert repeat.split('"')[1] in told
    assert not (here / "differ").exists()


def test_the_best_weights_are_kept(here):
    """weights-best.safetensors has the score that best.json says, the largest of all epochs."""
    keep = sets("train.best=mAP", "optim.lr=0.01")
    command("run", "tiny.toml", "--out", "best", *keep)
    folder = here / "best"
    best = json.loads((folder / "best.json").read_text())
    last = json.loads((folder / "scores.json").read_text())["demo"]["main"]["plain"]["mAP"]
    assert 1 <= best["epoch"] <= 6 and best["mAP"] >= last
    shutil.copyfile(folder / "weights-best.safetensors", folder / "weights.safetensors")
    command("eval", folder, "-o", "again.json")
    again = json.loads((here / "again.json").read_text())["demo"]["main"]["plain"]["mAP"]
    assert again == best["mAP"]


@pytest.fixture(scope="module")
def untrained(base):
    """The folder of the same run before its first step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_CACHE", str(base / "cache"))
        out = ["--out", base / "untrained"]
        command("run", base / "tiny.toml", *out, *sets("train.epochs=0"))
    return base / "untrained"


def moved(here: Path, untrained: Path, *changes: str) -> dict[str, torch.Tensor]:
    """How far every tensor of the model moves in one epoch of training."""
    out = here / "moved"
    shutil.rmtree(out, ignore_errors=True)
    command("run", "tiny.toml", "--out", out, *sets("train.epochs=1", *changes))
    before, after = weights(untrained), weights(out)
    return {
        key: after[key].float() - before[key].float()
        for key in after
        if key in before and not key.startswith("pairs.")
    }


def test_frozen_norms_keep_their_statistics(here, untrained):
    """The named role's running statistics stay, its affine parameters and other roles' move."""
    found = moved(here, untrained, 'train.frozen_norm=["backbone"]')
    for key, change in found.items():
        if key.startswith("backbone") and "running" in key:
            assert not change.any(), key
    affine = [key for key in found if key.startswith("backbone") and "norm" in key]
    assert all(found[key].any() for key in affine if key.endswith("weight"))
    assert found["head.neck.norm.running_mean"].any()


def test_weights_end_between_start_and_training(here, untrained):
    """By the share of the longest role path, norms' statistics too; other roles as without."""
    found = moved(here, untrained)
    shared = moved(here, untrained, 'train.start_share={ head = 1.0, "head.neck" = 0.25 }')
    for key, change in found.items():
        kept = 0.75 if key.startswith("head.neck") and "num_b" not in key else 1.0
        torch.testing.assert_close(shared[key], kept * change, rtol=1e-4, atol=1e-6)
    assert found["head.neck.norm.running_mean"].any()


def test_weights_are_shared_with_the_start_once(here, env):
    """A run that is killed in its last evaluation is not moved again when it is resumed."""
    share = sets("train.start_share={ backbone = 0.5 }")
    command("run", "tiny.toml", "--out", "shared", *share)
    last_evaluation = evaluating()
    cut = ["run", "tiny.toml", "--out", here / "cut", *share]
    kill_when(env, here, cut, lambda shown: "epoch 6/6" in shown and last_evaluation(shown))
    assert load_state(here / "cut" / "resume.safetensors")["evaluation_due"]
    command("run", "tiny.toml", "--out", "cut", *share, "--resume")
    assert results(here / "cut") == results(here / "shared")


def test_a_start_that_has_gone_or_is_another_is_told_before_training_goes_on(
    here, env, untrained, capsys
):
    """Not after the last epoch, which would be lost; a trained run needs it no more."""
    start, gone = here / "start.safetensors", here / "gone.safetensors"
    shutil.copy(untrained / "weights.safetensors", start)
    share = sets(f"backbone.weights={start}", "train.start_share.backbone=0.5")
    command("run", "tiny.toml", "--out", "shared", *share)
    others = here / "shared" / "weights.safetensors"
    cut = ["run", "tiny.toml", "--out", here / "cut", *share]
    kill_when(env, here, cut, ended(1))
    start.rename(gone)
    capsys.readouterr()
    command(*cut, "--resume", code=4)
    shown = capsys.readouterr()
    assert f"weights not found at {start}" in shown.err and "resumed" not in shown.out
    start.write_bytes(others.read_bytes())
    command(*cut, "--resume", code=2)
    shown = capsys.readouterr()
    assert "weights have changed since it started: backbone (core.resnet): " in shown.err
    assert "start.safetensors. Put them back" in shown.err and "resumed" not in shown.out
    gone.replace(start)
    last_evaluation = evaluating()
    resumed = [*cut, "--resume"]
    kill_when(env, here, resumed, lambda shown: "epoch 6/6" in shown and last_evaluation(shown))
    start.rename(gone)
    command(*resumed)
    assert results(here / "cut") == results(here / "shared")


def test_a_run_that_had_saved_nothing_starts_with_the_weights_of_now(here, env, untrained):
    """The record has those that it starts from, not those of the start that was lost."""
    start = here / "start.safetensors"
    shutil.copy(untrained / "weights.safetensors", start)
    change = sets(f"backbone.weights={start}", "train.epochs=1")
    command("run", "tiny.toml", "--out", "other", *change)
    out, lock = here / "cut", here / "cut" / "lock.json"
    kill_when(env, here, ["run", "tiny.toml", "--out", out, *change], lambda _: lock.exists())
    assert not (out / "resume.safetensors").exists()
    before = json.loads(lock.read_text())["weights"]
    shutil.copy(here / "other" / "weights.safetensors", start)
    command("run", "tiny.toml", "--out", out, "--resume", *change)
    after = json.loads(lock.read_text())["weights"]
    assert list(before) == list(after) and before != after


def test_a_tensor_of_two_names_is_shared_with_the_start_once(monkeypatch):
    """A part may use one module twice, as long as it is its own."""
    text = TINY.replace("epochs = 6", "epochs = 6\nstart_share = { head = 0.25 }")
    plan = make_plan(parse_runfile(text, Path("x.toml")), Plugins([]), allow_missing=True)
    start = build_model(plan, 0)
    start.heads["neck"].again = start.heads["neck"].norm
    model = copy.deepcopy(start)
    model.heads["neck"].norm.weight.data += 1
    monkeypatch.setattr("reidcore.training.start_share.build_model", lambda *_: start)
    share_start(model)
    moved = model.heads["neck"].norm.weight - start.heads["neck"].norm.weight
    torch.testing.assert_close(moved, torch.full_like(moved, 0.75))


def test_gradients_are_clipped(here, untrained):
    """With plain SGD, four steps move the weights by no more than four times the clipped norm."""
    plain = ["optim.kind=sgd", "optim.momentum=0.0", "optim.weight_decay=0.0", "optim.lr=1.0"]

    def length(*changes: str) -> float:
        found = moved(here, untrained, *plain, *changes)
        parts = [v.norm() for k, v in found.items() if "running" not in k and "num_b" not in k]
        return float(torch.stack(parts).norm())

    assert 1e-5 < length("optim.clip_norm=1e-4") <= 4 * 1e-4 * 1.001
    assert length("optim.lr=1e-3") > 4 * 1e-4 * 1.001


def test_rates_are_scaled_by_role(here, untrained):
    """The longest role path counts; a factor of 0 leaves a part where it is."""
    scale = 'optim.scale={ backbone = 0, head = 0.0, "head.neck" = 1.0, loss = 0 }'
    found = moved(here, untrained, scale)
    for key, change in found.items():
        if key.startswith(("backbone", "loss")) and "running" not in key and "num_b" not in key:
            assert not change.any(), key
    assert found["head.neck.norm.weight"].any()


def factors(epochs: int, **schedule: object) -> list[float]:
    optim = Optim(lr=1.0, **schedule)
    return [rate_factor(optim, epoch, epochs) for epoch in range(epochs)]


def test_schedules_follow_their_definitions():
    """Steps change the rate before their epochs, counted from 0; the cosine starts at 1 and would
    reach `to` after the last epoch; the warm-up multiplies."""
    assert factors(6, steps=Steps(at=[2, 4], by=0.1)) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    half = [0.2 + 0.8 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert factors(4, cosine=Cosine(to=0.2)) == pytest.approx(half)
    ddag = [(epoch + 1) / 10 for epoch in range(10)] + [1.0, 1.0]
    assert factors(12, warmup=Warmup(epochs=10, start=0.1)) == pytest.approx(ddag)
    both = factors(4, warmup=Warmup(epochs=2, start=0.5), steps=Steps(at=[3], by=0.1))
    assert both == pytest.approx([0.5, 1, 1, 0.1])
    assert factors(2, warmup=Warmup(epochs=1, start=0.5)) == [1, 1]


def test_the_rate_follows_the_schedule(here, untrained):
    """The learning rate that means.csv notes is the schedule's, for each epoch."""
    changes = ["optim.warmup={ epochs = 2, start = 0.5 }", "optim.steps={ at = [2], by = 0.1 }"]
    command("run", "tiny.toml", "--out", "rates", *sets("train.epochs=3", *changes))
    header, *rows = (here / "rates" / "means.csv").read_text().splitlines()
    rates = [float(row.split(",")[header.split(",").index("lr")]) for row in rows]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-4])


def test_weights_of_a_part_do_not_depend_on_others(here):
    """Without the triplet and with another head before, the remaining parts start the same; with
    another seed they do not."""
    text = TINY.replace('use = "core.triplet"\nfeature', 'use = "core.softmax"\nfeatures')
    text = text.replace('"neck.pooled"', '["more.vector"]')
    more = '[[head]]\nname = "more"\nuse = "core.pool"\nkind = "gem"\nsource = "backbone.layer4"\n'
    text = text.replace("[[head]]", more + "\n[[head]]", 1)

    def start(text: str, seed: int) -> dict[str, torch.Tensor]:
        plan = make_plan(parse_runfile(text, Path("x.toml")), Plugins([]), allow_missing=True)
        sections = build_model(plan, seed).sections()
        return {f"{role}.{k}": v for role, section in sections.items() for k, v in section.items()}

    one, other, another = start(TINY, 0), start(text, 0), start(TINY, 1)
    assert "head.more.pool.p" in other
    assert one and all(torch.equal(one[key], other[key]) for key in one)
    for role in ("backbone.", "loss.id."):
        drawn = [key for key in one if key.startswith(role) and one[key].ndim > 1]
        assert drawn and not any(torch.equal(one[key], another[key]) for key in drawn)


def test_all_state_is_in_the_weights(whole):
    """A model built anew, with another seed, has the trained weights after loading them."""
    text = (whole / "run.toml").read_text()
    plan = make_plan(parse_runfile(text, Path("x.toml")), Plugins([]), allow_missing=True)
    model = build_model(plan, 5)
    load_sections(model, whole / "weights.safetensors")
    stored = weights(whole)
    sections = model.sections()
    own = {f"{role}.{k}": v for role, section in sections.items() for k, v in section.items()}
    assert own.keys() == stored.keys()
    assert all(torch.equal(own[key], stored[key]) for key in own)


@pytest.mark.parametrize("name", ["loss", "epoch", "lr"])
def test_a_loss_is_not_named_like_a_column(here, capsys, name):
    """A loss whose mean would fall on another column of means.csv is refused by name."""
    (here / "named.toml").write_text(TINY.replace('name = "id"', f'name = "{name}"'))
    command("check", "named.toml", "--no-dry", code=2)
    assert f"the name {name!r} is a column of means.csv" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["self", "train", "type", "values"])
def test_a_loss_may_have_any_other_name(here, name):
    """Names that Python or torch use themselves are as good as others."""
    (here / "named.toml").write_text(TINY.replace('name = "id"', f'name = "{name}"'))
    command("run", "named.toml", "--out", "named", *sets("train.epochs=1"))
    header = (here / "named" / "means.csv").read_text().splitlines()[0]
    assert header.startswith(f"epoch,loss,{name},{name}.accuracy,")


def test_two_processes_do_not_share_a_run_folder(tmp_path: Path):
    """While one process holds a run folder, another is refused; afterwards it is free again."""
    folder = tmp_path / "run"
    with runfolder.prepared(folder, resume=False):
        (folder / "run.toml").touch()
        with (
            pytest.raises(UsageError, match="another process is running in"),
            runfolder.prepared(folder, resume=True),
        ):
            pass
    with runfolder.prepared(folder, resume=True):
        pass


def test_an_empty_folder_is_not_left_behind(tmp_path: Path):
    """A run that stops before it writes anything leaves no folder."""
    with pytest.raises(UsageError), runfolder.prepared(tmp_path / "run", resume=False):
        raise UsageError("stop")
    assert not (tmp_path / "run").exists()
