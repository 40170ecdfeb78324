"""Initial weights: reading checkpoints, matching keys, and what the commands do about them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from published_osnet import checkpoint
from running import TINY, ended, environment, kill_when, reid
from safetensors.torch import load_file, save_file

from reidcore.api import Given, WiringError
from reidcore.builtin import settings
from reidcore.cli.main import main
from reidcore.errors import DataError
from reidcore.model.state_files import save_sections
from reidcore.modules import Context, open_run
from reidcore.networks import OSNet, ResNet, load_weights, read_weights


@pytest.fixture(scope="module")
def state():
    return checkpoint()


def loaded(source, allow=(), **options) -> OSNet:
    network = OSNet(0.25, **options)
    load_weights(network, source, network.own_name, allow)
    return network


def same(first: OSNet, second: OSNet) -> bool:
    return all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "model", "module", "old", "safetensors"])
def test_checkpoints_are_unwrapped(tmp_path, state, wrap):
    """A checkpoint is the same under state_dict or model beside other things, with the prefix of
    DataParallel, without counters, and as safetensors."""
    file = tmp_path / f"weights.{'safetensors' if wrap == 'safetensors' else 'pth.tar'}"
    prefixed = {f"module.{key}": value for key, value in state.items()}
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    content = {
        "state_dict": {"epoch": 60, "state_dict": prefixed},
        "model": {"epoch": 60, "model": state, "best": 0.5},
        "module": prefixed,
        "old": old,
    }.get(wrap, state)
    if wrap == "safetensors":
        save_file(state, file)
    else:
        torch.save(content, file)
    network = OSNet(0.25)
    report = load_weights(network, file, network.own_name)
    assert str(report) == f"485 of 485 tensors from {file.name} (left out: classifier)"
    assert same(network, loaded(state))


def test_a_run_folders_weights_load(tmp_path, state):
    """The backbone's section of weights.safetensors, in the core's own names, loads too."""
    network = loaded(state)
    file = tmp_path / "weights.safetensors"
    backbone = {f"network.{key}": value for key, value in network.state_dict().items()}
    save_sections(file, {"backbone": backbone, "head.neck": {"norm.weight": torch.ones(3)}})
    assert same(network, loaded(file))


def test_stages_that_nobody_wants_are_left_out(state):
    """What the file has of stages that are not built is no mismatch; every tensor of the others is
    loaded, the running statistics too."""
    network, whole = loaded(state, until="layer2"), loaded(state)
    for key, value in network.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, whole.state_dict()[key]), key


def test_unmatched_keys_are_named_with_what_lets_them_pass(state):
    """Missing, unexpected and misshapen keys are listed under the file's names; the `allow` that
    the message proposes lets exactly these pass."""
    changed = dict(state)
    for key in ("conv5.conv.weight", "conv5.bn.weight"):
        del changed[key]
    changed["conv3.0.conv1.conv.weight"] = torch.zeros(7, 64, 1, 1)
    changed["extra.bias"] = torch.zeros(1)
    with pytest.raises(DataError) as caught:
        loaded(changed)
    assert str(caught.value) == (
        "the given tensors: these weights do not fit the network. Missing in the file: "
        "layer4.conv.weight, layer4.norm.weight. Unexpected in the file: extra.bias. Of another "
        'shape in the file: conv3.0.conv1.conv.weight. If that is meant, allow = ["layer4", '
        '"extra.bias", "conv3.0.conv1.conv.weight"] leaves these as they are.'
    )
    allow = ["layer4", "extra.bias", "conv3.0.conv1.conv.weight"]
    for missing in range(3):
        with pytest.raises(DataError, match="do not fit"):
            loaded(changed, allow[:missing] + allow[missing + 1 :])
    network = OSNet(0.25)
    before = network.layer4.conv.weight.clone()
    report = load_weights(network, changed, network.own_name, allow)
    assert str(report) == (
        "482 of 485 tensors from the given tensors (left out: conv3.0.conv1.conv.weight, "
        "classifier, extra.bias; not in the file: layer2.0.reduce.conv.weight, layer4)"
    )
    assert torch.equal(network.layer4.conv.weight, before)
    assert torch.equal(network.layer4.norm.bias, state["conv5.bn.bias"])


@pytest.mark.parametrize("allow", ["layer4.*", "layer4", "layer4.", "*.weight"])
def test_allow_takes_patterns_and_leading_components(state, allow):
    """`allow` is a shell pattern, or leading components of a key and no mere beginning of it."""
    changed = {key: value for key, value in state.items() if key != "conv5.conv.weight"}
    loaded(changed, [allow])
    with pytest.raises(DataError, match=r"Missing in the file: layer4\.conv\.weight\."):
        loaded(changed, ["layer"])


def test_a_file_of_another_network_is_refused_whatever_is_allowed(state):
    """Where nothing fits, nothing is allowed."""
    network = ResNet(18, width=0.125)
    with pytest.raises(
        DataError, match=r"nothing in it fits the network\. Its keys are conv1\.conv"
    ):
        load_weights(network, state, network.own_name, ["*"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pth", b"", "is damaged or no file of torch.save"),
        ("text.pth", b"version https://git-lfs\n", "is damaged or no file of torch.save"),
        ("text.safetensors", b"version https://git-lfs\n", "is damaged"),
        ("absent.pth", None, "weights not found at"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    """A file that is no checkpoint is reported with its absolute path."""
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_weights(file)
    assert str(file) in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_cut_files_are_damaged(tmp_path, state, name):
    """A download that broke off is damaged at whatever byte it ends."""
    file = tmp_path / name
    torch.save(state, file) if name.endswith(".pth") else save_file(state, file)
    whole = file.read_bytes()
    for share in (0.001, 0.3, 0.99):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=f"{name} is damaged"):
            read_weights(file)


class Attack:
    """Would make a folder when unpickled."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_file_is_not_executed(tmp_path):
    """A pickle that calls a function is refused by name, and the function is not called."""
    file = tmp_path / "attack.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Attack(tmp_path / "hit")}, file)
    with pytest.raises(DataError, match=r"holds more than tensors \((posix|nt)\.mkdir\)"):
        read_weights(file)
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list, not tensors by name"),
        ({}, "holds an empty dict, not tensors by name"),
        ({"state_dict": {"a": torch.zeros(1), "b": 3}}, "holds a int as 'b', not tensors alone"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    """A file that holds something else than named tensors says what it holds."""
    file = tmp_path / "other.pt"
    torch.save(content, file)
    with pytest.raises(DataError, match=message):
        read_weights(file)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (settings.OSNet(weights="imagenet"), "an OSNet"),
        (settings.ResNet(weights="imagenet", width=0.5), "width = 0.5"),
        (
            settings.ResNet(weights="imagenet", norm="ibn_a", attention="se"),
            'norm = "ibn_a" and attention = "se"',
        ),
        (settings.MobileNetV2(weights="imagenet", width=1.4), "width = 1.4"),
        (settings.VGG19BN(weights="imagenet", width=0.5), "width = 0.5"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_imagenet_is_refused_where_nothing_is_published(config, what):
    """Networks of which torchvision has no weights say so before anything is built."""
    with pytest.raises(WiringError) as caught:
        config.outputs(Given((64, 32)))
    assert str(caught.value) == (
        f"weights is 'imagenet', but torchvision publishes no weights for {what}; give the path of "
        "a checkpoint"
    )


def test_a_word_that_is_no_file_is_refused():
    """A misspelt "imagenet" is not taken for a file that is not there."""
    with pytest.raises(WiringError, match="'imagnet', which is neither 'imagenet' nor a file"):
        settings.ResNet(weights="imagnet").outputs(Given((64, 32)))


def test_a_part_may_have_its_own_word_for_published_weights():
    """The word comes back as it is and is no file to look for; "imagenet" is then no word."""
    given = Given((64, 32), find_weights=lambda value: f"/found/{value}")
    assert given.weights("weights", "hub", "hub") == "hub"
    assert given.weights("weights", "own.pth", "hub") == "/found/own.pth"
    with pytest.raises(WiringError, match="'imagenet', which is neither 'hub' nor a file"):
        given.weights("weights", "imagenet", "hub")
    assert Context(given, "backbone").weights("weights", "hub", "hub") == "hub"
    assert Context(given, "backbone", initial="none").weights("weights", "hub", "hub") == ""


RUN = """\
format = 1
name = "tiny"

[data]
test = [
  { read = "core.demo", train_identities = 4, test_identities = 3, pictures = 8, cameras = 2 },
]
image = [32, 16]

[backbone]
use = "core.osnet"
width = 0.25
weights = "start.pth"

[[matcher]]
name = "look"
use = "core.cosine"
features = ["backbone.fc"]

[train]
epochs = 0
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def work(tmp_path, monkeypatch, cache, state):
    """The current folder, with a run file, and its weights in a folder that REID_WEIGHTS names."""
    (tmp_path / "given").mkdir()
    torch.save(state, tmp_path / "given" / "start.pth")
    (tmp_path / "tiny.toml").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_WEIGHTS", str(tmp_path / "given"))
    monkeypatch.setenv("REID_CACHE", str(cache))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return tmp_path


def test_a_run_starts_from_the_weights_and_needs_them_no_more(work, state, capsys):
    """A run says what it loaded and starts from it; evaluation and `open_run` work where the file
    is gone."""
    assert main(["run", "tiny.toml"]) == 0
    line = "note: backbone (core.osnet): 485 of 485 tensors from start.pth (left out: classifier)"
    assert line in capsys.readouterr().out.splitlines()
    shutil.rmtree(work / "given")
    assert main(["eval", "runs/tiny", "-o", "again.json"]) == 0
    first, again = Path("runs/tiny/scores.json"), Path("again.json")
    assert first.read_bytes() == again.read_bytes()
    assert "start.pth" not in capsys.readouterr().out
    assert same(open_run("runs/tiny", "cpu").backbone.network, loaded(state))


def test_a_run_without_its_weights_stops_before_its_folder_is_made(work, capsys):
    """A run names the part and the absolute path; a check passes with a note."""
    (work / "given" / "start.pth").unlink()
    path = work / "given" / "start.pth"
    assert main(["run", "tiny.toml"]) == 4
    error = capsys.readouterr().err
    assert f"error: backbone (core.osnet): weights not found at {path}\n" in error
    assert not (work / "runs").exists()
    assert main(["check", "tiny.toml"]) == 0
    shown = capsys.readouterr().out
    assert f"backbone (core.osnet) starts from {path} (not there)" in shown
    assert (
        f"note: backbone (core.osnet): weights not found at {path}; the dry run uses random ones"
    ) in shown.splitlines()


def test_weights_that_do_not_fit_stop_run_and_check(work, state, capsys):
    """Mismatches are errors in both commands, and leave no run folder."""
    cut = {key: value for key, value in state.items() if not key.startswith("fc.")}
    torch.save(cut, work / "given" / "start.pth")
    for command in ("check", "run"):
        assert main([command, "tiny.toml"]) == 4
        error = capsys.readouterr().err
        assert f"error: backbone (core.osnet): {work / 'given' / 'start.pth'}: these" in error
        assert 'allow = ["fc"] leaves these as they are' in error
    assert not list(work.glob("runs/*"))
    assert main(["check", "tiny.toml", "--set", 'backbone.allow=["fc"]']) == 0
    assert "479 of 485 tensors" in capsys.readouterr().out


def test_imagenet_weights_come_from_torchvisions_cache(work, capsys):
    """A check takes what torchvision has downloaded, and downloads nothing itself."""
    models = pytest.importorskip("torchvision.models")
    file = work / "hub" / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    options = [
        "check",
        "tiny.toml",
        "--set",
        "backbone.use=core.mobilenet_v2",
        "--set",
        "backbone.width=1.0",
        "--set",
        "backbone.weights=imagenet",
    ]
    text = RUN.replace('["backbone.fc"]', '["neck.vector"]')
    head = '[[head]]\nname = "neck"\nuse = "core.pool"\nsource = "backbone.layer4"\n\n'
    Path("tiny.toml").write_text(text.replace("[[matcher]]", f"{head}[[matcher]]"))
    assert main(options) == 0
    assert f"weights not found at {file}; the dry run uses random ones; a run downloads them" in (
        capsys.readouterr().out
    )
    assert not file.exists()
    file.parent.mkdir(parents=True)
    torch.save(models.mobilenet_v2(weights=None).state_dict(), file)
    assert main(options) == 0
    assert "260 of 260 tensors from mobilenet_v2-b0353104.pth" in capsys.readouterr().out
    file.write_bytes(file.read_bytes()[:1000])
    assert main(options) == 4
    assert f"{file} is damaged" in capsys.readouterr().err


def test_a_failed_download_says_what_to_do(work, cache):
    """Without network a run stops with the address, the place and the way out, and leaves no
    folder. The proxy is a port at which nobody listens."""
    closed = "http://127.0.0.1:9"
    env = environment(
        cache,
        https_proxy=closed,
        HTTPS_PROXY=closed,
        no_proxy="",
        NO_PROXY="",
        TORCH_HOME=str(work / "hub"),
    )
    (work / "tiny.toml").write_text(TINY.replace("width = 0.125", 'weights = "imagenet"'))
    error = reid(env, work, "run", "tiny.toml", code=4).stderr
    place = work / "hub" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    assert (
        "error: backbone (core.resnet): torchvision could not download https://download.pytorch.org"
        f"/models/resnet18-f37072fd.pth to {place}: "
    ) in error
    assert "or download it elsewhere and give its path as weights." in error
    assert not list(work.glob("runs/*"))


def test_a_resumed_run_needs_no_weights(work, cache):
    """A run that was killed after an epoch goes on where its weights file is gone."""
    env = environment(cache)
    ours = 'use = "core.osnet"\nwidth = 0.25\nweights = "start.pth"\n'
    text = TINY.replace('use = "core.resnet"\ndepth = 18\nwidth = 0.125\n', ours)
    (work / "tiny.toml").write_text(text)
    kill_when(env, work, ["run", "tiny.toml", "--set", "train.epochs=40"], ended(1))
    shutil.rmtree(work / "given")
    resumed = ["run", "tiny.toml", "--set", "train.epochs=40", "--resume"]
    shown = kill_when(env, work, resumed, lambda text: "epoch 3/" in text)
    assert "resumed after epoch" in shown and "start.pth" not in shown
    assert load_file(work / "runs" / "tiny" / "resume.safetensors")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["conv1.conv.weight", "conv1.bn.running_var"])
def test_weights_that_are_not_finite_are_refused(tmp_path, state, bad, key):
    """The file and the tensor are named, and the network stays as it was."""
    damaged = {name: value.clone() for name, value in state.items()}
    damaged[key].view(-1)[1] = bad
    file = tmp_path / "bad.pth"
    torch.save(damaged, file)
    network = OSNet(0.25)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(DataError) as caught:
        load_weights(network, file, network.own_name)
    assert str(caught.value).startswith(f"{file}: these weights are not finite")
    assert f"{key} (1 of " in str(caught.value)
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_is_not_loaded_may_be_anything(state):
    """A damaged classifier, which is left out, harms nothing."""
    damaged = {**state, "classifier.weight": state["classifier.weight"] * float("nan")}
    assert same(loaded(damaged), loaded(state))
