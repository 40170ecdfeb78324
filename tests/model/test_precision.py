"""Mixed precision and memory formats: what may change in training, and what must not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from running import TINY

from reidcore.cli.main import main
from reidcore.data.pictures import make_rows
from reidcore.model.building import build_model, make_loader
from reidcore.model.model import Model
from reidcore.model.state_files import load_state, save_state
from reidcore.modules import Batch
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import run_source
from reidcore.runfiles.parse import parse_runfile
from reidcore.support.progress import Silent
from reidcore.support.seeds import seeded
from reidcore.training.dry_run import dry_run, random_batch
from reidcore.training.observing import Observing
from reidcore.training.optimizers import lay_out_as_parameters
from reidcore.training.training_run import TrainingRun
from reidcore.wiring.make_plan import make_plan


def make(*sets: str) -> Model:
    text = TINY.replace('feature = "neck.pooled"', 'matcher = "look"')
    run = parse_runfile(text, Path("tiny.toml"), sets)
    return build_model(make_plan(run, Plugins([]), allow_missing=True), 0)


def batch_of(model: Model) -> Batch:
    return random_batch(model.plan, model.device)


def gradients(model: Model) -> dict[str, torch.Tensor]:
    batch = batch_of(model)
    loss, _ = model.loss(model(batch.images), batch)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def half() -> Model:
    """A model that trains in mixed precision on the CPU."""
    model = make("train.amp=true")
    model.amp_device = "cpu"
    return model


def last_dtype(model: Model) -> list[torch.dtype]:
    """The types of what layer4's last convolution has given so far."""
    seen: list[torch.dtype] = []
    convolutions = [m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    convolutions[-1].register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    return seen


def test_training_computes_in_half_and_evaluation_does_not(half: Model):
    """With amp, convolutions give bfloat16 in training and float32 in evaluation; features and
    losses are float32 in both."""
    seen = last_dtype(half)
    batch = batch_of(half)
    for training, expected in ((True, torch.bfloat16), (False, torch.float32)):
        features = half.train(training)(batch.images)
        assert seen[-1] == expected
        assert {value.dtype for value in features.values()} == {torch.float32}
        loss, terms = half.loss(features, batch)
        assert {loss.dtype, *(value.dtype for value in terms.values())} == {torch.float32}


def test_half_gradients_point_the_same_way(half: Model):
    """Gradients under amp are float32, finite and close in direction to those without; so the
    optimizer steps float32 weights."""
    full = make()
    for model in (full, half):
        # Statistics of four pictures would magnify every rounding.
        model.freeze_norms(["backbone", "head"])
    expected = gradients(full.train())
    found = gradients(half.train())
    assert found.keys() == expected.keys()
    assert {value.dtype for value in found.values()} == {torch.float32}
    a, b = (torch.cat([g[key].flatten() for key in expected]) for g in (found, expected))
    assert 0.99 < torch.cosine_similarity(a, b, 0) < 1


DEMOS = ("demo", "airnet:demo", "ddag:demo", "ipad:demo", "msinet:demo", "qaconv:demo")


@pytest.mark.parametrize("name", DEMOS)
def test_every_method_trains_in_half_precision(name: str):
    """One step of each method's demo network: it passes the dry run; features, terms, gradients and
    the state of its losses are float32 and finite, and gradients are close in direction to those
    without."""
    found = []
    for amp in (False, True):
        plugins = Plugins()
        text, shown = run_source(name, plugins)
        run = parse_runfile(text, shown, ["data.image=[64, 32]"])
        model = build_model(make_plan(run, plugins, allow_missing=True), 0, "none").train()
        # Statistics of a few random pictures would magnify every rounding.
        model.freeze_norms(["backbone", "head", "matcher", "loss"])
        if amp:
            model.amp_device = "cpu"
            assert dry_run(model.plan, model) == []
        seen = []
        first = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d))
        first.register_forward_hook(lambda module, given, out, seen=seen: seen.append(out.dtype))
        batch = random_batch(model.plan, model.device, training=True)
        # What oneDNN's kernels round in bfloat16 depends on the processor.
        with seeded("dropout"), torch.backends.mkldnn.flags(enabled=False):
            features = model(batch.images)
            loss, terms = model.loss(features, batch)
            loss.backward()
        model.after_step(features, batch)
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        # MSINet calls no convolution of its own where norms are frozen and all is float32.
        assert set(seen) <= {torch.bfloat16 if amp else torch.float32} and (seen or not amp)
        for value in (*features.values(), *terms.values(), *gradients.values(), *buffers(model)):
            assert value.dtype == torch.float32 and value.isfinite().all()
        found.append(gradients)
    assert found[0].keys() == found[1].keys()
    a, b = (torch.cat([one[key].flatten() for key in found[0]]) for one in found)
    assert torch.cosine_similarity(a, b, 0) > 0.95


def buffers(model: Model) -> list[torch.Tensor]:
    """What losses remember, in numbers with a point."""
    every = [value for loss in model.losses.values() for value in loss.buffers()]
    return [value for value in every if value.is_floating_point()]


def test_distances_are_the_same_under_autocast():
    """A matcher's distances do not know whether autocast is on."""
    for use in ("core.cosine", "core.euclidean"):
        model = make(f"matcher.look.use={use}").eval()
        template = model.matchers["look"].template(model(batch_of(model).images))
        expected = model.matchers["look"].distance(template, template)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.matchers["look"].distance(template, template)
        assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_the_dry_run_is_in_the_precision_of_training(half: Model):
    """What fails only in half precision fails before the first epoch, and names the part."""
    seen = last_dtype(half)
    assert dry_run(half.plan, half) == []
    # The copy of the dry run carries the hook; its training step comes first.
    assert seen[0] == torch.bfloat16 and seen[-1] == torch.float32


def test_amp_on_a_cpu_says_so_and_changes_nothing(tmp_path, monkeypatch, capsys):
    """A run with amp on a CPU prints a note, and its weights are those of a run without."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    note = "note: amp acts on CUDA only; this run computes in float32"
    shared = ["--set", "train.epochs=1", "--set", "train.device=cpu", "--set", "data.test=[]"]
    for name in ("true", "false"):
        sets = [*shared, "--set", f"train.amp={name}"]
        assert main(["run", "tiny.toml", "--out", name, *sets]) == 0
        assert (note in capsys.readouterr().out.splitlines()) == (name == "true")
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("true", "false")]
    assert weights[0] == weights[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_amp_trains_on_cuda():
    """Two steps on a GPU: convolutions in bfloat16, weights and their state float32 and finite."""
    model = make("train.amp=true").cuda().train()
    seen = last_dtype(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    batch = batch_of(model)
    losses = []
    for _ in range(2):
        features = model(batch.images)
        loss, _ = model.loss(features, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        model.after_step(features, batch)
        losses.append(loss.item())
    assert seen == [torch.bfloat16] * 2 and losses[1] != losses[0]
    state = [value for one in optimizer.state.values() for value in one.values()]
    for tensor in [*model.parameters(), *state]:
        assert tensor.dtype == torch.float32 and tensor.isfinite().all()


def test_channels_last_changes_only_rounding():
    """Features and gradients are those of the other format up to rounding; weights of convolutions
    really are channels-last, and parts give each other contiguous features all the same."""
    models = [make(f"train.channels_last={on}") for on in ("true", "false")]
    images = batch_of(models[0]).images
    kept = torch.channels_last
    with torch.no_grad():
        a, b = (model.eval()(images) for model in models)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-5)
    assert all(value.is_contiguous() for value in a.values())
    stems = [next(model.backbone.parameters()) for model in models]
    assert [stem.is_contiguous(memory_format=kept) for stem in stems] == [True, False]
    a, b = (gradients(model.train()) for model in models)
    for name in b:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)


def test_channels_last_is_left_off_where_torch_would_corrupt_memory():
    """A shortcut that strides over fewer than 8 channels: the run says why."""
    narrow = make("backbone.width=0.0625")
    assert not narrow.channels_last and "channels_last is left off" in narrow.notes[0]
    assert make("backbone.width=0.125").channels_last
    assert not make("backbone.width=0.0625", "train.channels_last=false").notes


def test_loaded_state_has_the_strides_of_its_parameters(tmp_path: Path):
    """Files keep values, not strides; a resumed optimizer gets its parameters' strides back."""
    models = [make().train() for _ in range(2)]
    optimizers = [torch.optim.Adam(model.parameters(), 1e-3) for model in models]
    gradients(models[0])
    optimizers[0].step()
    save_state(tmp_path / "state", optimizers[0].state_dict())
    optimizers[1].load_state_dict(load_state(tmp_path / "state"))
    lay_out_as_parameters(optimizers[1])
    old, new = (
        [optimizer.state[p]["exp_avg"] for p in model.parameters() if p in optimizer.state]
        for optimizer, model in zip(optimizers, models, strict=True)
    )
    assert any(not value.is_contiguous() for value in old)
    assert [value.stride() for value in new] == [value.stride() for value in old]
    assert all(torch.equal(a, b) for a, b in zip(new, old, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_a_gpu_steps_all_weights_at_once(kind: str, tmp_path: Path):
    """A run's optimizer is fused on a GPU, its steps are the CPU's up to rounding, and its state
    goes on from a file, also where a weight is a single number."""
    weights = {}
    for device in ("cpu", "cuda"):
        model = make(f"optim.kind={kind}", "head.neck.pool=gem", f"train.device={device}")
        run = TrainingRun(
            model.to(device),
            make_loader(model.plan, model.device),
            make_rows([], {}, ("visible",)),
            tmp_path,
            Observing([], tmp_path, Silent(), False),
            Silent(),
        )
        model.train().freeze_norms(["backbone", "head"])
        optimizer = run.optimizer()
        assert bool(optimizer.param_groups[0]["fused"]) == (device == "cuda")
        for step in range(4):
            if step == 2:
                save_state(tmp_path / "state", optimizer.state_dict())
                optimizer = run.optimizer()
                optimizer.load_state_dict(load_state(tmp_path / "state"))
                lay_out_as_parameters(optimizer)
            batch = random_batch(model.plan, model.device, step)
            run.update(model.loss(model(batch.images), batch)[0], optimizer)
        weights[device] = [p.detach().cpu() for p in model.parameters()]
    for here, there in zip(*weights.values(), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-2, atol=1e-3)


def test_evaluation_takes_no_tf32():
    """Convolutions may take TF32 in training, as torch has it, and never in evaluation, also where
    that ends with an error."""
    model, seen = make(), []
    batch = batch_of(model)
    hook = model.backbone.register_forward_hook(
        lambda *_: seen.append(torch.backends.cudnn.allow_tf32)
    )
    before = torch.backends.cudnn.allow_tf32
    for training in (True, False):
        model.train(training)(batch.images)
        assert torch.backends.cudnn.allow_tf32 == before
    assert seen == [before, False]
    hook.remove()
    model.backbone.register_forward_hook(lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError):
        model(batch.images)
    assert torch.backends.cudnn.allow_tf32 == before
