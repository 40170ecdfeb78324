"""Losses that learn from a trained run, the teacher: their numbers, and runs with them."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from functools import partial
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
import warm_python
from distributions import ROOT
from PIL import Image
from running import TINY, environment, results
from safetensors.torch import load_file, save_file

from reidcore.api import BatchShape, Feature, Given, WiringError
from reidcore.builtin import settings
from reidcore.cli.main import main
from reidcore.model.building import build_model
from reidcore.modules import Batch, Images, open_run
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.progress import Silent
from reidcore.training.dry_run import random_batch
from reidcore.training.options import TrainingOptions
from reidcore.training.start import run_training
from reidcore.training.teachers import find_run
from reidcore.wiring.make_plan import make_plan

TEACHER = TINY.replace("epochs = 6", "epochs = 1").replace(
    "image = [32, 16]", 'image = [40, 24]\nnormalize = "none"'
) + (
    '\n[[head]]\nname = "local"\nuse = "qaconv.local"\nsource = "backbone.layer3"\nchannels = 8\n'
    '\n[[matcher]]\nname = "pairs"\nuse = "qaconv.matcher"\nfeature = "local.map"\n'
    '\n[[loss]]\nname = "memory"\nuse = "qaconv.memory"\nfeature = "local.map"\nmatcher = "pairs"\n'
    '\n[[ranking]]\nname = "main"\nmatcher = "look"\n'
    '\n[[ranking]]\nname = "both"\nfuse = { look = 0.25, pairs = 0.5 }\nscale = "logistic"\n'
    '\n[[ranking]]\nname = "rows"\nmatcher = "look"\nscale = "row_minmax"\n'
)
"""Whose pictures are larger than the student's and not normalised, with a pairwise matcher."""
START = TINY.index('[[loss]]\nname = "triplet"')
STUDENT = (
    TINY[:START].replace("width = 0.125", "width = 0.0625")
    + '[[loss]]\nname = "mimic"\nuse = "core.distill_features"\nteacher = "teacher"\n'
    'feature = "neck.bn"\n'
    '\n[[loss]]\nname = "order"\nuse = "core.distill_distances"\nteacher = "teacher"\n'
    'matcher = "look"\n'
    '\n[[loss]]\nname = "same"\nuse = "core.distill_logits"\nteacher = "teacher"\n'
    'matcher = "look"\ntemperature = 2.0\n\n' + TINY[TINY.index("[train]") :]
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The current folder, with the finished run `teacher` and student.toml."""
    folder = tmp_path_factory.mktemp("distil")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.delenv("REID_WEIGHTS", raising=False)
        (folder / "teacher.toml").write_text(TEACHER)
        (folder / "student.toml").write_text(STUDENT)
        assert main(["run", "teacher.toml", "--out", "teacher", "--no-dry"]) == 0
        yield folder


def planned(*sets: str, text: str = STUDENT):
    run = parse_runfile(text, Path("student.toml"), sets)
    return make_plan(run, Plugins(), make_data=True, find_run=find_run)


def taught(device="cpu", *sets: str):
    """A student, a batch of it, and its features."""
    plan = planned(*sets)
    model = build_model(plan, 0).to(device).train()
    batch = random_batch(plan, torch.device(device), training=True)
    return model, batch, model(batch.images)


def value_of(loss, features, batch) -> tuple[float, dict]:
    found = loss(features, batch)
    value, terms = found if isinstance(found, tuple) else (found, {})
    return float(value), terms


@pytest.fixture
def shown(work):
    """The trained model of the teacher, and what it makes of a student's batch."""
    teacher = open_run("teacher", "cpu")

    def features(batch: Batch):
        pixels = batch.images.pixels.cpu()
        mean, deviation = (
            torch.tensor(values)[:, None, None]
            for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )
        plain = pixels * deviation + mean
        large = torch.nn.functional.interpolate(plain, (40, 24), mode="bilinear", antialias=True)
        with torch.no_grad():
            return teacher(Images(large.clamp(0, 1)))

    return teacher, features


def pairs(size: int) -> list[tuple[int, int]]:
    return list(itertools.permutations(range(size), 2))


def test_features_are_compared_one_by_one(shown):
    """1 - cos, or the mean square, of the student's projected vector and the teacher's."""
    for metric in ("cosine", "squared"):
        model, batch, features = taught("cpu", f"loss.mimic.metric={metric}")
        loss = model.losses["mimic"]
        theirs = shown[1](batch)["neck.bn"].double().tolist()
        ours = (features["neck.bn"] @ loss.projection.weight.T).double().tolist()
        assert len(ours[0]) == len(theirs[0]) == 64 and features["neck.bn"].shape[1] == 32
        expected = 0.0
        for a, b in zip(ours, theirs, strict=True):
            if metric == "cosine":
                dot = sum(x * y for x, y in zip(a, b, strict=True))
                expected += 1 - dot / math.hypot(*a) / math.hypot(*b)
            else:
                expected += sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
        value, _ = value_of(loss, features, batch)
        assert value == pytest.approx(expected / len(ours), rel=1e-4)


def test_ratios_of_distances_are_compared(shown):
    """Huber loss of distances, each by its mean over pairs; the teacher's are those of a ranking,
    the logistic scale of each matcher included."""
    teacher, features_of = shown
    for ranking in ("main", "both"):
        model, batch, features = taught("cpu", f"loss.order.ranking={ranking}")
        made = features_of(batch)
        from reidcore.ranking.comparer import make_fusion

        table = next(one for one in teacher.plan.rankings if one.name == ranking)
        size, theirs = len(batch), torch.zeros(len(batch), len(batch))
        for share in make_fusion(table, teacher, teacher.pairs).shares:
            template = share.matcher.template(made)
            for i, j in itertools.product(range(size), repeat=2):
                a, b = ({k: v[n : n + 1] for k, v in template.items()} for n in (i, j))
                one = share.matcher.distance(a, b)
                scaled = share.scale(one) if share.scale is not None else one
                theirs[i, j] += share.weight * scaled.item()
        unit = torch.nn.functional.normalize(features["neck.bn"].double(), dim=1)
        ours = (1 - unit @ unit.T) / 2
        means = [
            sum(float(m[i, j]) for i, j in pairs(size)) / len(pairs(size)) for m in (ours, theirs)
        ]
        total = 0.0
        for i, j in pairs(size):
            gap = abs(float(ours[i, j]) / means[0] - float(theirs[i, j]) / means[1])
            total += gap**2 / 2 if gap < 1 else gap - 0.5
        value, terms = value_of(model.losses["order"], features, batch)
        assert value == pytest.approx(total / len(pairs(size)), rel=1e-3)
        off = ~np.eye(size, dtype=bool)
        expected = np.corrcoef(ours.detach().numpy()[off], theirs.numpy()[off])[0, 1]
        assert float(terms["correlation"]) == pytest.approx(expected, abs=1e-3)


def test_probabilities_are_compared(shown):
    """The divergence of the student's probability, from its distance, from the teacher's."""
    teacher, features_of = shown
    model, batch, features = taught()
    loss = model.losses["same"]
    matcher = teacher.matchers["pairs"]
    template = matcher.template(features_of(batch))
    with torch.no_grad():
        theirs = matcher.logits(template, template).double()
    unit = torch.nn.functional.normalize(features["neck.bn"].double(), dim=1)
    distances = (1 - unit @ unit.T) / 2
    scale, threshold = math.exp(float(loss.log_scale)), float(loss.threshold)
    total = 0.0
    for i, j in pairs(len(batch)):
        p = 1 / (1 + math.exp(-float(theirs[i, j]) / 2))
        q = 1 / (1 + math.exp(-scale * (threshold - float(distances[i, j])) / 2))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    value, _ = value_of(loss, features, batch)
    assert value == pytest.approx(4 * total / len(pairs(len(batch))), rel=1e-3)
    assert value > 0


def test_a_matcher_with_logits_learns_by_them(work):
    """The same model as its own teacher has nothing to learn: the divergence is 0."""
    same = (
        TEACHER[: TEACHER.index("[[loss]]")] + TEACHER[TEACHER.index('[[head]]\nname = "local"') :]
    )
    start = same.index('[[loss]]\nname = "memory"')
    text = (
        same[:start] + '[[loss]]\nname = "same"\nuse = "core.distill_logits"\nteacher = "teacher"\n'
        'matcher = "pairs"\n\n[train]\nepochs = 1\n[optim]\nlr = 1e-3\n'
        + same[same.index("[[ranking]]") :]
    )
    plan = planned(text=text)
    model = build_model(plan, 0)
    trained = open_run("teacher", "cpu")
    for role, part in trained.parts():
        dict(model.parts())[role].load_state_dict(part.state_dict())
    batch = random_batch(plan, torch.device("cpu"))
    value, _ = value_of(model.losses["same"], model.eval()(batch.images), batch)
    assert value == pytest.approx(0, abs=1e-6)


def test_pictures_reach_the_teacher_as_its_own(work):
    """A student's picture, resized and normalised again, is what Pillow makes of the same picture
    for the teacher; in one size and normalisation it is untouched."""
    from reidcore.contracts.trained_run import Seen
    from reidcore.training.teacher import resized

    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    student, plain = Seen((32, 16), "bilinear", mean, deviation), Seen((32, 16))
    # Pillow rounds between its two passes, and cuts off what bicubic weights make of extremes.
    values = np.random.default_rng(0).integers(80, 176, (32, 16, 3), dtype=np.uint8)
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None] / 255
    normal = resized(pixels, plain, student)
    assert normal[0, 1, 5, 7].item() == pytest.approx(
        (values[5, 7, 1] / 255 - 0.456) / 0.224, rel=1e-5
    )
    assert resized(normal, student, student) is normal
    for size, kind in (((40, 24), "bilinear"), ((16, 10), "bilinear"), ((40, 24), "bicubic")):
        found = resized(normal, student, Seen(size, kind))
        how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[kind]
        expected = np.asarray(Image.fromarray(values).resize(size[::-1], how))
        assert np.abs(found[0].permute(1, 2, 0).numpy() * 255 - expected).max() < 1.6


def test_the_teacher_is_frozen_and_nobodys(work, device):
    """Its features of a picture do not depend on the others of the batch, a training step changes
    nothing of it, its weights are no parameters of the student, and no gradient comes near it."""
    model, batch, features = taught(device)
    loss = model.losses["mimic"]
    before = {key: value.clone() for key, value in loss.teacher.features(batch.images).items()}
    few = loss.teacher.features(batch.images[:2])
    torch.testing.assert_close(few["neck.bn"].cpu(), before["neck.bn"][:2].cpu())
    total, _ = model.loss(features, batch)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    total.backward()
    optimizer.step()
    again = loss.teacher.features(batch.images)
    assert all(torch.equal(again[key], value) for key, value in before.items())
    assert not any(value.requires_grad for value in again.values())
    owned = [key for key, _ in model.named_parameters() if key.startswith("loss_")]
    assert sorted(owned) == [
        "loss_id.classifier.weight",
        "loss_mimic.projection.weight",
        "loss_same.log_scale",
        "loss_same.threshold",
    ]
    assert all(model.losses[name].teacher is loss.teacher for name in ("order", "same"))


class Killed(Silent):
    """Ends the process after two epochs."""

    def epoch_started(self, epoch: int, epochs: int, first: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(work):
    """The folder of a trained student."""
    assert main(["run", "student.toml", "--out", "whole"]) == 0
    return work / "whole"


@pytest.mark.parametrize("name", ["mimic", "order", "same"])
def test_what_a_loss_teaches_is_learnt(work, name):
    """Trained by it alone, a student comes closer to the teacher on the pictures that it sees."""
    model, batch, _ = taught()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    values = []
    for _ in range(40):
        found = model.losses[name](model(batch.images), batch)
        value = found[0] if isinstance(found, tuple) else found
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]


def test_the_teacher_is_no_part_of_the_student(whole):
    """The run's record names the teacher, its weights have nothing of it, and it is evaluated where
    the teacher is gone."""
    record = json.loads((whole / "lock.json").read_text())
    assert list(record["teachers"]) == ["teacher"]
    saved = load_file(whole / "weights.safetensors")
    assert {key for key in saved if key.startswith("loss.")} == {
        "loss.id.classifier.weight",
        "loss.mimic.projection.weight",
        "loss.same.log_scale",
        "loss.same.threshold",
    }
    Path("teacher").rename("gone")
    try:
        assert main(["eval", str(whole), "-o", "again.json"]) == 0
    finally:
        Path("gone").rename("teacher")
    assert json.loads(Path("again.json").read_text()) == json.loads(
        (whole / "scores.json").read_text()
    )


def test_a_broken_off_run_goes_on_with_the_same_teacher(whole, tmp_path):
    """It ends with the bits of one that was not broken off, and is not resumed where the teacher
    has been trained anew."""
    plan = planned()
    options = TrainingOptions(tmp_path / "broken", (), check=False)
    options.folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_training(plan, Plugins(), options, Killed())
    broken = shutil.copytree(tmp_path / "broken", tmp_path / "other")
    run_training(planned(), Plugins(), options, Silent())
    assert results(tmp_path / "broken") == results(whole)
    shutil.copytree("teacher", "kept")
    file = Path("teacher", "weights.safetensors")
    tensors = load_file(file)
    save_file({**tensors, "head.neck.norm.bias": tensors["head.neck.norm.bias"] + 1}, file)
    try:
        assert main(["run", "student.toml", "--out", str(broken), "--resume"]) == 2
    finally:
        shutil.rmtree("teacher")
        Path("kept").rename("teacher")


def test_several_processes_have_one_teacher(work):
    """Each shows it its own pictures; the losses are those of one process, in float64."""
    env = environment(work / "cache")
    script = ROOT / "tests" / "in_float64.py"
    rows = []
    for count in (0, 2):
        words = ["run", "student.toml", "--out", f"by-{count}", "--no-dry"]
        words += ["--set", "train.epochs=2", "--set", "eval.every=0"]
        done = warm_python.run([script, *words], env, work, 200, together=count)
        assert done.returncode == 0, done.stderr
        lines = (work / f"by-{count}" / "means.csv").read_text().splitlines()
        header, *cells = (line.split(",") for line in lines)
        named = [
            name for name in header if name.split(".")[0] in ("loss", "mimic", "order", "same")
        ]
        rows.append([[float(row[header.index(name)]) for name in named] for row in cells])
        assert len(named) >= 5
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-6)


def command(capsys, *words: str, code: int) -> str:
    assert main(list(words)) == code
    found = capsys.readouterr()
    return found.out + found.err


def test_a_teacher_that_is_not_there(work, capsys):
    """`reid check` passes and says so, a run ends before its folder is made."""
    Path("absent.toml").write_text(STUDENT.replace('"teacher"', '"runs/nobody"'))
    said = command(capsys, "check", "absent.toml", code=0)
    assert "loss 'mimic' (core.distill_features) learns from runs/nobody (not there)" in said
    said = command(capsys, "run", "absent.toml", "--out", "absent", code=4)
    assert f"loss 'order' (core.distill_distances): no trained run at {work}/runs/nobody" in said
    assert "Train the teacher first" in said and "Traceback" not in said and len(said) < 1000
    assert not Path("absent").exists()


def test_a_teacher_under_reid_weights(work, capsys, monkeypatch, tmp_path):
    shutil.copytree("teacher", tmp_path / "weights" / "taught")
    monkeypatch.setenv("REID_WEIGHTS", str(tmp_path / "weights"))
    Path("under.toml").write_text(STUDENT.replace('"teacher"', '"taught"'))
    said = command(capsys, "check", "under.toml", code=0)
    assert f"learns from {tmp_path}/weights/taught" in said
    assert "the teacher sees the pictures of 32x16 resized to its 40x24" in said


def test_a_folder_that_is_no_finished_run(work, capsys, tmp_path):
    """Each is told with the line of the run file."""
    shutil.copytree("teacher", tmp_path / "half")
    lock = tmp_path / "half" / "lock.json"
    lock.write_text(lock.read_text().replace('"finished": true', '"finished": false'))
    shutil.copytree("teacher", tmp_path / "light")
    (tmp_path / "light" / "weights.safetensors").unlink()
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("half", "is unfinished; go on with it by --resume first"),
        ("light", "weights.safetensors is missing"),
        ("empty", "is not a run folder: it has no lock.json"),
    ):
        Path("bad.toml").write_text(STUDENT.replace('"teacher"', f'"{tmp_path / name}"'))
        said = command(capsys, "check", "--no-dry", "bad.toml", code=2)
        line = Path("bad.toml").read_text().splitlines().index(f'teacher = "{tmp_path / name}"')
        assert f"bad.toml:{line + 1}: loss 'mimic' (core.distill_features): teacher is " in said
        assert words in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            'loss.mimic.of="neck.bm"',
            "of is 'neck.bm', which is no feature of the teacher, did you mean 'neck.bn'? Its "
            "features: ",
        ),
        (
            'loss.mimic.of="backbone.layer4"',
            "of is 'backbone.layer4', a map 64x3x2, from which 'neck.bn', a vector 32, cannot",
        ),
        (
            'loss.order.ranking="boht"',
            "ranking is 'boht', which is no ranking of the teacher, did you mean 'both'? Its "
            "rankings: main, both, rows",
        ),
        ('loss.order.ranking="rows"', "scale = 'row_minmax' depends on the gallery"),
        (
            'loss.same.of="look"',
            "of is 'look', a matcher without logits. The teacher's with logits: ",
        ),
        ('loss.same.of="pears"', "of is 'pears', which is no matcher of the teacher, did you mean"),
    ],
)
def test_what_the_teacher_cannot_teach_is_told(work, capsys, change, words):
    said = command(capsys, "check", "--no-dry", "student.toml", "--set", change, code=2)
    assert words in said


def test_pictures_need_others_to_be_compared_with():
    """A batch of one picture has no pair."""
    run = Given((8, 8), batch=BatchShape(1))
    for config in (
        settings.DistillDistances(teacher="", matcher="look"),
        settings.DistillLogits(teacher="", matcher="look"),
    ):
        with pytest.raises(WiringError, match="compares pictures of a batch"):
            config.check(run)


def test_a_feature_that_the_teacher_did_not_compute(work):
    """A map that its rankings do not read is learnt from as well."""
    change = ('loss.mimic.feature="backbone.layer3"', "data.image=[40, 24]")
    model, batch, features = taught("cpu", *change)
    assert features["backbone.layer3"].shape[2:] == (3, 2)
    value, _ = value_of(model.losses["mimic"], features, batch)
    assert 0 < value < 2


def _note(seen, module, given):
    seen.extend(given)


def test_a_teacher_of_other_modalities(work):
    """Modalities go by their names; pictures of one that the teacher does not know are refused."""
    run = find_run("teacher")
    config = settings.DistillFeatures(teacher="teacher", feature="neck.bn")
    for theirs, fits in ((("infrared", "visible"), True), (("infrared", "depth"), False)):
        changed = attrs.evolve(run, seen=attrs.evolve(run.seen, modalities=theirs))
        given = Given(
            (32, 16),
            modalities=("visible",),
            train_modalities=("visible",),
            features={"neck.bn": Feature.vector(32)},
            find_run=lambda name, changed=changed: changed,
        )
        if not fits:
            with pytest.raises(WiringError, match="of infrared, depth, but the training pictures"):
                config.check(given)
            continue
        config.check(given)
        seen: list[Images] = []
        teacher = changed.open(given.seen)
        teacher._model.backbone.register_forward_pre_hook(partial(_note, seen))
        teacher.features(Images(torch.zeros(2, 3, 32, 16)))
        assert seen[0].modality.tolist() == [1, 1] and seen[0].camera.tolist() == [-1, -1]
