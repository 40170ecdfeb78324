"""`ddag.two_stream`: who goes through which stem, what is trained, and what it starts from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from reid_ddag import two_stream
from reid_ddag.plugin import SAMPLE
from reid_ddag.settings_two_stream import TwoStream as Settings
from reid_ddag.two_stream import TwoStream, build_two_stream
from reidcore.api import Given, WiringError
from reidcore.cli.main import main
from reidcore.errors import DataError
from reidcore.modules import Context, Images
from reidcore.networks import OSNet, ResNet

STAGES = frozenset({"stem", "layer1", "layer4"})


def context_of(modalities=("visible", "infrared"), wanted=STAGES) -> Context:
    return Context(Given((32, 16), modalities=modalities), "", wanted)


def made(modalities=("visible", "infrared"), wanted=STAGES, **keys) -> TwoStream:
    """In float64, with other weights in every copy and moved statistics."""
    config = Settings(depth=18, width=0.125, **keys)
    network = build_two_stream(config, context_of(modalities, wanted)).double()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=draw, dtype=value.dtype)
                value.copy_(noise.abs() if key.endswith("running_var") else 0.3 * noise)
    return network


def pictures(modality: list[int], seed: int = 0) -> Images:
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randn(len(modality), 3, 32, 16, generator=draw, dtype=torch.float64)
    kind = torch.tensor(modality)
    return Images(pixels, kind, torch.zeros_like(kind))


def one_by_one(network: TwoStream, images: Images, own: str) -> dict[str, Tensor]:
    """Every picture alone through the stages that its modality says, in eval mode."""
    stages = ["stem", "layer1", "layer2", "layer3", "layer4"]
    copied = stages[: stages.index(own) + 1]
    found: dict[str, list[Tensor]] = {stage: [] for stage in stages}
    for pixels, modality in zip(images.pixels, images.modality.tolist(), strict=True):
        x = pixels[None]
        for stage in stages:
            name = ("visible", "infrared")[modality]
            x = (getattr(network, f"own_{name}") if stage in copied else network.shared)[stage](x)
            found[stage].append(x)
    return {stage: torch.cat(maps) for stage, maps in found.items()}


@pytest.mark.parametrize("modality", [[0, 0, 1, 1], [1, 0, 0, 1, 0], [1, 1], [0], [1, 0, 1]])
@pytest.mark.parametrize("own", ["stem", "layer2", "layer4"])
def test_every_picture_goes_through_its_own_stages(modality, own):
    """In any order and mixture, also of one modality alone, the outputs equal those of single
    pictures, in the batch's order."""
    network, images = made(own=own).eval(), pictures(modality)
    outputs = network(images)
    assert outputs.keys() == STAGES
    expected = one_by_one(network, images, own)
    for stage, maps in outputs.items():
        torch.testing.assert_close(maps, expected[stage])


def test_training_statistics_are_of_one_modality_in_stems_and_of_the_batch_behind():
    """As in the program: each stem's norm sees its own pictures, the shared ones all of them."""
    network, images = made().train(), pictures([0, 1, 0, 0, 1])
    norms = {"own_visible": [0, 2, 3], "own_infrared": [1, 4]}
    network(images)
    for stem, rows in norms.items():
        stages = getattr(network, stem)["stem"]
        maps = stages.conv(images.pixels[rows])
        fresh = torch.nn.BatchNorm2d(maps.shape[1], momentum=1.0).double()
        fresh(maps)
        moved = made().train()
        old = getattr(moved, stem)["stem"].norm.running_mean
        expected = 0.9 * old + 0.1 * fresh.running_mean
        torch.testing.assert_close(stages.norm.running_mean, expected)
    block = network.shared["layer1"][0]
    seen = []
    block.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    network(images)
    assert seen == [5]


def test_a_stem_without_a_picture_is_not_touched():
    """It gets no gradient and keeps its statistics."""
    network = made().train()
    before = {key: value.clone() for key, value in network.own_infrared.state_dict().items()}
    network(pictures([0, 0, 0]))["layer4"].sum().backward()
    assert all(parameter.grad is None for parameter in network.own_infrared.parameters())
    assert all(parameter.grad is not None for parameter in network.own_visible.parameters())
    assert all(
        torch.equal(value, before[k]) for k, value in network.own_infrared.state_dict().items()
    )


def test_modalities_are_told_apart_by_name():
    """Data that number their modalities otherwise use the same stems; where none is stated,
    pictures are visible."""
    usual, images = made().eval(), pictures([0, 1, 1])
    unstated = made(modalities=()).eval()
    visible = images[images.modality == 0]
    assert torch.equal(unstated(visible)["layer4"], usual(visible)["layer4"])
    swapped = made(modalities=("infrared", "visible")).eval()
    turned = Images(images.pixels, 1 - images.modality, images.camera)
    assert torch.equal(usual(images)["layer4"], swapped(turned)["layer4"])
    alone = made(modalities=("infrared",)).eval()
    infrared = images[images.modality == 1]
    first = Images(infrared.pixels, 0 * infrared.modality, infrared.camera)
    torch.testing.assert_close(alone(first)["layer4"], usual(infrared)["layer4"])


def test_copies_start_equal_and_only_what_is_read_is_built():
    network = build_two_stream(Settings(depth=18, width=0.125), context_of(wanted={"layer2"}))
    assert list(network.shared) == ["layer1", "layer2"]
    first, second = network.own_visible.state_dict(), network.own_infrared.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert first["stem.conv.weight"].data_ptr() != second["stem.conv.weight"].data_ptr()
    stem = build_two_stream(Settings(depth=18, own="layer2"), context_of(wanted={"stem"}))
    assert not stem.shared and list(stem(pictures_of_float())) == ["stem"]


def pictures_of_float() -> Images:
    images = pictures([1, 0])
    return Images(images.pixels.float(), images.modality, images.camera)


def test_another_staged_network_can_be_split():
    """The class takes any network of the core with stages."""
    network = TwoStream(
        OSNet(0.25), ["visible", "infrared"], "stem", frozenset({"layer4", "fc"}), [0, 1]
    ).eval()
    outputs = network(pictures_of_float())
    assert outputs["layer4"].shape[:2] == (2, 128) and outputs["fc"].shape == (2, 512)


def test_channels_last_changes_nothing():
    network, images = made().eval(), pictures([1, 0, 1])
    last = Images(
        images.pixels.contiguous(memory_format=torch.channels_last), images.modality, images.camera
    )
    torch.testing.assert_close(network(images)["layer4"], network(last)["layer4"])


def test_starts_from_a_resnet_or_from_another_two_stream(tmp_path):
    """Of a ResNet's file both stems start; of a two-stream's, or of a run's weights, each its own;
    a file that fits neither is refused with the keys."""
    plain = ResNet(18, width=0.125)
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    trained = made(wanted=frozenset({"layer4"}))
    state = {key: value.float() for key, value in trained.state_dict().items()}
    state = {k: v.long() if k.endswith("tracked") else v for k, v in state.items()}
    save_file(state, tmp_path / "two.safetensors")
    run = {f"backbone.{key}": value for key, value in state.items()}
    save_file({**run, "loss.id.x": torch.ones(1)}, tmp_path / "run.safetensors")

    def start(file: str, wanted="layer4", **keys) -> tuple[dict[str, Tensor], list[str]]:
        config = Settings(depth=18, width=0.125, weights=str(tmp_path / file), **keys)
        given = Given((32, 16), modalities=("visible", "infrared"), find_weights=str)
        context = Context(given, "", {wanted}, initial="need")
        return build_two_stream(config, context).state_dict(), context.notes

    found, notes = start("plain.safetensors")
    for stem in ("own_visible", "own_infrared"):
        assert torch.equal(found[f"{stem}.stem.conv.weight"], plain.stem.conv.weight)
    assert "tensors from plain.safetensors" in notes[0]
    for file in ("two.safetensors", "run.safetensors"):
        found, notes = start(file)
        assert all(
            torch.equal(value, state[key])
            for key, value in found.items()
            if value.is_floating_point()
        )
        assert re.match(r"(\d+) of \1 tensors from", notes[0])
        found, _ = start(file, wanted="layer2")
        assert torch.equal(
            found["own_infrared.stem.conv.weight"], state["own_infrared.stem.conv.weight"]
        )
    with pytest.raises(DataError, match=r"Missing in the file: own_visible\.layer1"):
        start("two.safetensors", own="layer1")


@pytest.mark.parametrize(
    ("keys", "given", "field", "text"),
    [
        ({}, {"modalities": ("visible", "thermal")}, "modalities", "but the data have thermal"),
        ({"weights": "imagenet", "width": 0.5}, {}, "weights", "no weights for width = 0.5"),
        ({"norm": "ibn_a"}, {"image": (8, 8)}, "", "needs larger pictures than 8x8"),
        ({"weights": "a.t"}, {"find_weights": str}, "weights", "nor a file that ends in .pth"),
    ],
)
def test_settings_that_do_not_fit_are_refused(keys, given, field, text):
    with pytest.raises(WiringError) as caught:
        Settings(**keys).outputs(Given(**{"image": (64, 32), **given}))
    assert caught.value.field == field and text in str(caught.value)


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a.b"], ["near infrared"]])
def test_names_that_cannot_be_kept_apart_are_refused(names):
    with pytest.raises(ValueError, match=r"expected (different )?names"):
        Settings(modalities=names)


@pytest.fixture
def work(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return tmp_path


ONE = (
    SAMPLE.replace(", infrared_cameras = 2", "")
    .replace('"core.two_modalities"', '"core.identities"')
    .replace('"cross_modality"', '"cross_camera"')
)
"""The sample on visible pictures alone."""


def test_data_of_one_modality_train_one_stem_and_say_so(work, capsys):
    """The dry run names the parameters of the stem that nothing trains; the run trains and scores
    with the other, and the unused one ends as it began."""
    Path("one.toml").write_text(ONE)
    assert main(["check", "one.toml"]) == 0
    note = capsys.readouterr().out
    assert "no gradient reaches backbone.own_infrared.stem.conv.weight" in note
    assert "own_visible" not in note
    assert main(["run", "one.toml", "--out", "run"]) == 0
    from safetensors.torch import load_file

    from reidcore.model.building import build_model
    from reidcore.modules import open_run

    start = build_model(open_run("run").plan, 0).backbone.state_dict()
    end = load_file("run/weights.safetensors")
    for key, value in start.items():
        if value.is_floating_point() and key.startswith(("own_", "shared.layer1.0.conv1")):
            same = torch.equal(end[f"backbone.{key}"], value)
            assert same is key.startswith("own_infrared"), key


def test_test_pictures_of_a_modality_that_nobody_trains_are_told(work, capsys):
    """Training pictures of one modality, test pictures of two: the stem is there, and the note
    says that nothing trains it."""
    test = ONE.index("test = [")
    two = ONE[test:].replace("pictures = 8 }", "pictures = 8, infrared_cameras = 2 }", 1)
    Path("two.toml").write_text(ONE[:test] + two)
    assert main(["check", "two.toml"]) == 0
    assert "no gradient reaches backbone.own_infrared.stem" in capsys.readouterr().out
    assert main(["run", "two.toml", "--out", "run"]) == 0
    assert json.loads(Path("run/scores.json").read_text())


@pytest.mark.parametrize("modality", [[0, 1, 1, 0, 1], [1, 1], [0]])
@pytest.mark.parametrize("own", ["stem", "layer1"])
def test_graphs_give_every_picture_its_own_stages(modality, own, monkeypatch):
    """What is traced for export, all stages for all pictures, beside the division of the batch."""
    network, images = made(own=own).eval(), pictures(modality)
    divided = network(images)
    monkeypatch.setattr(two_stream, "is_exporting", lambda: True)
    whole = network(images)
    assert whole.keys() == divided.keys()
    for stage, maps in whole.items():
        torch.testing.assert_close(maps, divided[stage])
