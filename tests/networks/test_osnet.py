"""OSNet: what it computes, its shapes, and published weights on real pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from distributions import ROOT
from published_osnet import Published

from reidcore.api import Feature, Given, WiringError
from reidcore.builtin import settings
from reidcore.builtin.backbones import build_osnet
from reidcore.cli.main import main
from reidcore.modules import Context, Images
from reidcore.networks import OSNet, load_weights
from reidcore.sizes import OSNET_STAGES, OSNET_WIDTHS, osnet_shapes

PUBLISHED = dict(
    zip(OSNET_STAGES, ("maxpool", "conv2", "conv3", "conv4", "conv5", "fc"), strict=True)
)


def test_osnet_computes_what_is_published():
    """With a checkpoint under torchreid's key names every stage gives what a transcription of the
    paper over these names gives, at an odd picture size."""
    x = torch.randn(2, 3, 71, 45, dtype=torch.float64)
    published = Published()
    expected = published(x)
    network = OSNet(0.25).double().eval()
    report = load_weights(network, published.state, network.own_name)
    assert report.matched == report.total and not report.left_out
    with torch.no_grad():
        outputs = network(x)
    assert list(outputs) == list(OSNET_STAGES)
    for stage, name in PUBLISHED.items():
        torch.testing.assert_close(outputs[stage], expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("width", OSNET_WIDTHS)
@pytest.mark.parametrize("image", [(256, 128), (71, 37), (13, 13)])
def test_declared_shapes_are_the_networks(width, image):
    """Every stage has the shape that arithmetic declares, at every published width."""
    with torch.device("meta"):
        outputs = OSNet(width).eval()(torch.zeros(1, 3, *image))
    actual = {stage: tuple(value.shape[1:]) for stage, value in outputs.items()}
    assert actual == osnet_shapes(width, image)


def test_published_number_of_parameters():
    """OSNet x1.0 without its classifier has 2,169,508 parameters (2.2 M in the paper)."""
    with torch.device("meta"):
        assert sum(p.numel() for p in OSNet(1.0).parameters()) == 2_169_508


def test_backbone_builds_and_returns_only_what_is_read():
    """Stages behind the deepest wanted one are not built, and unread ones are not returned."""
    config = settings.OSNet(width=0.25)
    given = Given((64, 32))
    declared = config.outputs(given)
    assert declared["fc"] == Feature.vector(512)
    for wanted, absent in ((("stem", "layer2"), "layer3"), (("layer4",), "fc")):
        backbone = build_osnet(config, Context(given, "backbone", wanted))
        none = torch.zeros(2, dtype=torch.int64)
        outputs = backbone(Images(torch.zeros(2, 3, 64, 32), none, none))
        assert list(outputs) == list(wanted)
        assert all(tuple(outputs[name].shape[1:]) == declared[name].shape for name in wanted)
        assert not any(key.startswith(f"network.{absent}.") for key in backbone.state_dict())


def test_too_small_pictures_and_other_widths_are_refused():
    """A picture that pooling leaves nothing of, and a width that nobody published, are refused."""
    config = settings.OSNet(width=0.25)
    config.outputs(Given((13, 13)))
    with pytest.raises(WiringError, match="needs larger pictures than 12x128"):
        config.outputs(Given((12, 128)))
    with pytest.raises(ValueError, match=r"expected 0\.25, 0\.5, 0\.75 or 1, got 0\.3"):
        settings.OSNet(width=0.3)


ZERO_SHOT = """\
format = 1
[data]
test = [{ manifest = "NAME.csv" }]
image = [128, 64]
[backbone]
use = "core.osnet"
width = 0.25
weights = "osnet_x0_25_msmt17.pth"
[[matcher]]
name = "look"
use = "core.cosine"
features = ["backbone.fc"]
[train]
epochs = 0
[eval]
same_camera = "POLICY"
"""


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "same_camera", "rank_1", "mean_precision"),
    [
        ("vehicles", "drop", 0.647, 0.745),
        pytest.param("ward", "drop", 0.317, 0.246, marks=pytest.mark.slow),
        pytest.param("ward", "drop_all", 0.683, 0.441, marks=pytest.mark.slow),
    ],
)
def test_published_weights_on_real_pictures(
    tmp_path, monkeypatch, name, same_camera, rank_1, mean_precision
):
    """OSNet x0.25 as trained on MSMT17 ranks real pictures of vehicles and of persons as a small
    independent program does."""
    for variable, kind in (("REID_DATA", "data"), ("REID_WEIGHTS", "weights")):
        folder = Path(os.environ.get(variable) or ROOT.parent / "shared" / kind).resolve()
        if not folder.is_dir():
            pytest.skip(f"no {kind} at {folder}; set {variable}")
        monkeypatch.setenv(variable, str(folder))
    file, out = tmp_path / "zero.toml", tmp_path / "run"
    file.write_text(ZERO_SHOT.replace("NAME", name).replace("POLICY", same_camera))
    assert main(["run", str(file), "--out", str(out)]) == 0
    found = json.loads((out / "scores.json").read_text())[name]["main"]["plain"]
    assert found["rank-1"] == pytest.approx(rank_1, abs=0.001)
    assert found["mAP"] == pytest.approx(mean_precision, abs=0.005)
