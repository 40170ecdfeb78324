"""Weights to start from: checkpoints of the whole model, of other sizes and of run folders, and
timm's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import timm
import torch
from running import environment, reid
from safetensors.torch import save_file
from torch import Tensor

from reid_timm.backbone import Features, build_features
from reid_timm.wiring import Features as Settings
from reidcore.api import Given
from reidcore.errors import DataError
from reidcore.modules import Context
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged

SMALL = "mobilenetv3_small_050"
SIZE = (64, 32)


def build(
    model: str, path: str | Path, *wanted: str, size=SIZE, allow=(), initial="need"
) -> tuple[Features, str]:
    """The backbone that starts from a file, and its note."""
    config = Settings(model=model, weights=str(path), allow=list(allow))
    given = Given(size, find_weights=lambda value: value)
    config.outputs(given)
    context = Context(given, "backbone", wanted, initial=initial)
    torch.manual_seed(0)
    backbone = build_features(config, context)
    return backbone, " ".join(context.notes)


def whole(model: str, size: tuple[int, int] | None = None) -> dict[str, Tensor]:
    """The state of the whole model with random weights of a seed that nothing else here has."""
    torch.manual_seed(7)
    return timm.create_model(model, **({"img_size": size} if size else {})).state_dict()


def saved(state: Mapping[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(dict(state), path)
    return path


@pytest.mark.parametrize("name", ["whole.pth", "whole.safetensors"])
def test_a_checkpoint_of_the_whole_model(tmp_path, name):
    """Its tensors are taken, its classifier and what is not built are left out, and a note says
    what."""
    state = whole("resnet10t")
    backbone, note = build("resnet10t", saved(state, tmp_path / name), "layer3")
    own = backbone.network.state_dict()
    assert not any(key.startswith(("layer3", "layer4", "fc")) for key in own)
    assert all(torch.equal(own[key], state[key]) for key in own if "num_batches" not in key)
    told = re.fullmatch(rf"(\d+) of \1 tensors from {name} \(left out: (.*)\)", note)
    assert sorted(told[2].split(", ")) == ["fc", "layer3.0", "layer4.0"]


def test_a_finetuned_classifier_is_left_out(tmp_path):
    """A classifier of another number of classes is no hindrance."""
    state = whole("resnet10t")
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:3], state["fc.bias"][:3]
    backbone, _ = build("resnet10t", saved(state, tmp_path / "tuned.pth"), "layer5")
    assert torch.equal(
        backbone.network.state_dict()["layer4.0.conv1.weight"], state["layer4.0.conv1.weight"]
    )


@pytest.mark.parametrize(
    "model", ["resnet10t", "convnext_atto", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_a_run_folders_weights(tmp_path, model):
    """What a run with more stages has saved starts one with fewer, and the other way round what is
    missing is named."""
    more, _ = build(model, "", "layer3")
    state = {f"backbone.{key}": value for key, value in more.state_dict().items()}
    file = saved(state | {"head.neck.weight": torch.zeros(3)}, tmp_path / "weights.safetensors")
    fewer, note = build(model, file, "layer2")
    own = fewer.state_dict()
    assert all(torch.equal(own[key], more.state_dict()[key]) for key in own)
    assert "from weights.safetensors" in note and "not in the file" not in note
    with pytest.raises(DataError, match=r"Missing in the file: .* If that is meant, allow ="):
        build(model, file, "layer4")


@pytest.mark.parametrize("model", ["deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_checkpoint_for_another_picture_size(tmp_path, model):
    """Position embeddings are resized as timm does where it loads the same file itself."""
    file = saved(whole(model), tmp_path / "square.safetensors")
    size = (96, 48)
    backbone, note = build(model, file, "layer3", size=size)
    reference = timm.create_model(
        model,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file)},
        features_only=True,
        out_indices=(2,),
        img_size=size,
    ).state_dict()
    own = backbone.network.state_dict()
    assert own.keys() == reference.keys()
    assert all(torch.equal(own[key], reference[key]) for key in own)
    assert "not in the file" not in note


def test_the_authors_own_names_are_known(tmp_path):
    """A ConvNeXt as its authors publish it, in their names, is what timm makes of it."""
    ours = whole("convnext_atto")
    names = {
        "stem.0": "downsample_layers.0.0",
        "stem.1": "downsample_layers.0.1",
        "conv_dw": "dwconv",
        "mlp.fc": "pwconv",
        "head.norm": "norm",
        "head.fc": "head",
    }
    theirs = {}
    for key, value in ours.items():
        for mine, original in names.items():
            key = key.replace(mine, original)
        parts = key.split(".")
        if parts[0] == "stages" and parts[2] == "downsample":
            key = ".".join(["downsample_layers", parts[1], *parts[3:]])
        elif parts[0] == "stages":
            key = ".".join([*parts[:2], *parts[3:]])
        if "pwconv" in key and key.endswith("weight") and value.ndim == 4:
            value = value[:, :, 0, 0]
        theirs[key] = value
    assert len(theirs) == len(ours) and not theirs.keys() & ours.keys() - {"head.weight"}
    file = saved({"model": theirs}, tmp_path / "facebook.pth")
    converted, _ = build("convnext_atto", file, "layer4")
    direct, _ = build("convnext_atto", saved(ours, tmp_path / "timm.pth"), "layer4")
    mine, other = converted.state_dict(), direct.state_dict()
    assert all(torch.equal(mine[key], other[key]) for key in other)


def test_other_weights_are_refused_unless_allowed(tmp_path):
    """A file of another network names what does not fit; `allow` lets it pass."""
    state = whole("resnet10t")
    state["layer9.weight"] = torch.zeros(2)
    del state["layer1.0.conv1.weight"]
    file = saved(state, tmp_path / "odd.pth")
    with pytest.raises(DataError) as caught:
        build("resnet10t", file, "layer2")
    assert "Missing in the file: layer1.0.conv1.weight." in str(caught.value)
    assert "Unexpected in the file: layer9.weight." in str(caught.value)
    assert 'allow = ["layer1.0.conv1.weight", "layer9.weight"]' in str(caught.value)
    _, note = build("resnet10t", file, "layer2", allow=["layer1.0.conv1.weight", "layer9"])
    assert "not in the file: layer1.0.conv1.weight" in note
    with pytest.raises(DataError, match="nothing in it fits the network"):
        build("deit_tiny_patch16_224", file, "layer2")


def test_what_would_execute_code_is_refused(tmp_path):
    """A pickle of more than tensors is not read, as everywhere."""
    torch.save({"model": whole(SMALL), "print": print}, tmp_path / "bad.pth")
    with pytest.raises(DataError, match="reading that would execute code"):
        build(SMALL, tmp_path / "bad.pth", "layer2")


def test_a_check_goes_on_without_the_file(tmp_path):
    """It says so and uses random weights; trained weights that follow need none either."""
    backbone, note = build(SMALL, tmp_path / "absent.pth", "layer2", initial="offer")
    assert note == f"weights not found at {tmp_path / 'absent.pth'}; the dry run uses random ones"
    same, note = build(SMALL, tmp_path / "absent.pth", "layer2", initial="none")
    assert note == ""
    own = backbone.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in same.state_dict().items())


RUN = [
    "--set",
    f'backbone.model="{SMALL}"',
    "--set",
    'backbone.weights="pretrained"',
    "--set",
    "train.epochs=1",
    "--set",
    "data.image=[64, 32]",
    *(
        word
        for side in ("train", "test.0")
        for key in ("train_identities=8", "test_identities=4", "pictures=8")
        for word in ("--set", f"data.{side}.{key}")
    ),
]


@pytest.fixture
def hub(tmp_path_factory, tmp_path):
    """Runs the command with an empty folder for the hub's files and no network; what it prints."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    env = environment(cache, HF_HOME=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")

    def run(*arguments: str, code: int) -> str:
        done = reid(env, tmp_path, *arguments, code=code)
        return done.stdout + done.stderr

    return run


def test_timms_own_weights_come_from_the_hub(hub, tmp_path):
    """A run takes what the hub's folder has, without a network, and says what it was; trained, it
    is evaluated without the folder."""
    source = timm.get_pretrained_cfg(SMALL)
    folder = tmp_path / "hub" / "hub" / f"models--{source.hf_hub_id.replace('/', '--')}"
    commit = "0" * 40
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    saved(whole(SMALL), folder / "snapshots" / commit / "model.safetensors")
    printed = hub("run", "timm:demo", "--out", "run", *RUN, code=0)
    assert f"tensors from {SMALL}.{source.tag} (left out: conv_head, classifier)" in printed
    (tmp_path / "hub").rename(tmp_path / "gone")
    assert "mAP" in hub("eval", "run", code=0)


def test_without_a_network_a_run_says_what_to_do(hub, tmp_path):
    """`reid run` ends with exit code 4 and without a folder; `reid check` passes and says what a
    run would do."""
    printed = hub("run", "timm:demo", "--out", "run", *RUN, code=4)
    source = timm.get_pretrained_cfg(SMALL)
    assert (
        f"error: backbone (timm.features): timm could not get its weights {SMALL}.{source.tag} "
        f"from https://huggingface.co/{source.hf_hub_id}: "
    ) in printed
    assert "Download the file there (model.safetensors)" in printed
    assert "give its path as weights" in printed and "Traceback" not in printed
    assert not (tmp_path / "run").exists()
    printed = hub("check", "timm:demo", *RUN, code=0)
    assert f"a run gets timm's weights of {SMALL}; the dry run uses random ones" in printed
    assert "note: backbone (timm.features): its wiring imports torch" in printed


def test_the_demo_trains(hub):
    """The packaged run file trains a network whose last stage nobody reads and is not built."""
    assert 'source = "backbone.layer4"' in find_packaged("timm:demo", Plugins()).text
    few = RUN[RUN.index("train.epochs=1") - 1 :]
    printed = hub("run", "timm:demo", "--out", "run", *few, code=0)
    assert "epoch 1/1  loss" in printed and "mAP" in printed
    assert "no gradient reaches" not in printed
