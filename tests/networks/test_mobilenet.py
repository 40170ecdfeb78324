"""MobileNetV2: torchvision's layers cut into stages, and their shape arithmetic."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from distributions import ROOT, python
from torch import nn

from reidcore.api import Given
from reidcore.builtin import settings
from reidcore.builtin.backbones import build_mobilenet_v2
from reidcore.modules import Context, Images
from reidcore.networks import MobileNetV2, load_weights
from reidcore.sizes import MOBILENET_V2_STAGES, mobilenet_v2_shapes


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchvision's network with random statistics, in evaluation mode."""
    models = pytest.importorskip("torchvision.models")
    network = models.mobilenet_v2(weights=None).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return network


@pytest.mark.parametrize("last_stride", [1, 2])
def test_mobilenet_computes_what_torchvisions_does(theirs, last_stride):
    """With torchvision's weights every stage gives torchvision's map; `last_stride` changes the
    stride of one depthwise convolution and nothing else."""
    ours = MobileNetV2(last_stride).eval()
    report = load_weights(ours, theirs.state_dict(), ours.own_name)
    assert report.matched == report.total
    assert set(report.left_out) == {"classifier.1.weight", "classifier.1.bias"}
    strided = [part for part in theirs.features[14].modules() if isinstance(part, nn.Conv2d)]
    (depthwise,) = (part for part in strided if part.groups > 1)
    x = torch.randn(2, 3, 70, 45)
    try:
        depthwise.stride = (last_stride, last_stride)
        with torch.no_grad():
            maps = ours(x)
            for stage, (start, stop) in MOBILENET_V2_STAGES.items():
                x = theirs.features[start:stop](x)
                torch.testing.assert_close(maps[stage], x)
    finally:
        depthwise.stride = (2, 2)
    assert list(maps) == list(MOBILENET_V2_STAGES) and stop == len(theirs.features)


@pytest.mark.parametrize("width", [0.1, 0.35, 1.0, 1.4])
@pytest.mark.parametrize("last_stride", [1, 2])
def test_declared_shapes_are_the_networks(width, last_stride):
    """Every stage has the shape that arithmetic declares, at odd sizes and any width."""
    with torch.device("meta"):
        network = MobileNetV2(last_stride, width).eval()
        for image in ((256, 128), (71, 37), (1, 3)):
            maps = network(torch.zeros(1, 3, *image))
            actual = {stage: tuple(value.shape[1:]) for stage, value in maps.items()}
            assert actual == mobilenet_v2_shapes(image, last_stride, width)


def test_published_number_of_parameters():
    """MobileNetV2 without its classifier has 2,223,872 parameters."""
    with torch.device("meta"):
        assert sum(p.numel() for p in MobileNetV2().parameters()) == 2_223_872


def test_backbone_builds_and_returns_only_what_is_read():
    """Stages behind the deepest wanted one are not built, and unread ones are not returned."""
    config = settings.MobileNetV2(width=0.25)
    given = Given((64, 32))
    backbone = build_mobilenet_v2(config, Context(given, "backbone", ["stem", "layer2"]))
    none = torch.zeros(2, dtype=torch.int64)
    outputs = backbone(Images(torch.zeros(2, 3, 64, 32), none, none))
    declared = config.outputs(given)
    assert list(outputs) == ["stem", "layer2"]
    assert all(tuple(outputs[name].shape[1:]) == declared[name].shape for name in outputs)
    assert not any(key.startswith("network.layer3.") for key in backbone.state_dict())


@pytest.mark.oracle
def test_published_weights_fit():
    """torchvision's ImageNet weights without their classifier fill the network completely."""
    weights = os.environ.get("REID_WEIGHTS") or ROOT.parent / "shared" / "weights"
    file = Path(weights, "mobilenet_v2_imagenet_features.pth")
    if not file.is_file():
        pytest.skip(f"no weights at {file}; set REID_WEIGHTS")
    network = MobileNetV2()
    report = load_weights(network, file, network.own_name)
    assert report.matched == report.total and not report.left_out
    short = MobileNetV2(until="layer2")
    assert load_weights(short, file, short.own_name).left_out[0].startswith("features.7.")
    for ours, loaded in zip(short.parameters(), network.parameters(), strict=False):
        assert torch.equal(ours, loaded)


def test_one_module_imports_torchvision_where_it_is_used(tmp_path):
    """torchvision is imported by one module of the core, and not before a network needs it."""
    pattern = re.compile(r"^\s*(from|import) torchvision\b", re.M)
    sources = [path for path in (ROOT / "reidcore").rglob("*.py")]
    found = [path.name for path in sources if pattern.search(path.read_text("utf-8"))]
    assert found == ["published.py"]
    code = "import sys, reidcore.networks, reidcore.builtin.backbones as b; assert b.build_resnet\n"
    done = python(tmp_path, "-c", f"{code}print('torchvision' in sys.modules)")
    assert done.stdout.split() == ["False"], done.stderr
