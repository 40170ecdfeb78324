"""VGG-19 with batch norm: torchvision's numbers, and its shape arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reidcore.api import Given, WiringError
from reidcore.builtin import settings
from reidcore.builtin.backbones import build_vgg19_bn
from reidcore.errors import DataError
from reidcore.modules import Context, Images
from reidcore.networks import VGG19BN, load_weights
from reidcore.sizes import vgg19_bn_shapes


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchvision's `features` with random weights and statistics, in evaluation mode. The half
    gigabyte of its classifier has no memory."""
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        network = models.vgg19_bn(weights=None, init_weights=False)
    network.features = network.features.to_empty(device="cpu")
    for part in network.features.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
            nn.init.normal_(part.bias, std=0.1)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.1)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def state(theirs):
    """Their checkpoint; what its classifier holds does not matter."""
    return {
        key: value if key.startswith("features.") else torch.zeros(1)
        for key, value in theirs.state_dict().items()
    }


@pytest.mark.parametrize("last_stride", [1, 2])
def test_vgg_computes_what_torchvisions_does(theirs, state, last_stride):
    """With torchvision's weights every stage ends where torchvision's network pools, and gives the
    same map; with `last_stride` 1 the last pooling is left out."""
    ours = VGG19BN(last_stride).eval()
    report = load_weights(ours, state, ours.own_name)
    assert report.matched == report.total
    assert set(report.left_out) == {key for key in state if key.startswith("classifier.")}
    x = torch.randn(2, 3, 70, 45)
    with torch.no_grad():
        maps = ours(x)
        expected = []
        for layer in theirs.features:
            before, x = x, layer(x)
            if isinstance(layer, nn.MaxPool2d):
                expected.append(x)
    if last_stride == 1:
        expected[-1] = before
    assert list(maps) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    for (stage, ours_map), theirs_map in zip(maps.items(), expected, strict=True):
        torch.testing.assert_close(ours_map, theirs_map, msg=lambda text, at=stage: f"{at}: {text}")


@pytest.mark.parametrize("width", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("last_stride", [1, 2])
def test_declared_shapes_are_the_networks(width, last_stride):
    """Every stage has the shape that arithmetic declares, at odd sizes and any width."""
    with torch.device("meta"):
        network = VGG19BN(last_stride, width).eval()
        for image in ((256, 128), (71, 37), (32, 63)):
            maps = network(torch.zeros(1, 3, *image))
            actual = {stage: tuple(value.shape[1:]) for stage, value in maps.items()}
            assert actual == vgg19_bn_shapes(image, last_stride, width)


def test_published_sizes():
    """Without the last pooling a picture of 256x128 becomes a map of 512x16x8, and the network has
    20,035,392 parameters."""
    assert vgg19_bn_shapes((256, 128))["layer4"] == (512, 16, 8)
    assert vgg19_bn_shapes((256, 128), last_stride=2)["layer4"] == (512, 8, 4)
    with torch.device("meta"):
        assert sum(p.numel() for p in VGG19BN().parameters()) == 20_035_392


def test_backbone_builds_and_returns_only_what_is_read():
    """Stages behind the deepest wanted one are not built, and unread ones are not returned."""
    config = settings.VGG19BN(width=0.1)
    given = Given((64, 32))
    backbone = build_vgg19_bn(config, Context(given, "backbone", ["stem", "layer2"]))
    none = torch.zeros(2, dtype=torch.int64)
    outputs = backbone(Images(torch.zeros(2, 3, 64, 32), none, none))
    declared = config.outputs(given)
    assert list(outputs) == ["stem", "layer2"]
    assert all(tuple(outputs[name].shape[1:]) == declared[name].shape for name in outputs)
    assert {key.split(".")[1] for key in backbone.state_dict()} == {"stem", "layer1", "layer2"}


def test_stages_that_nobody_reads_are_left_out_of_the_file(state):
    """A shorter network takes its stages from a whole checkpoint and names the first layer that it
    leaves."""
    short, whole = VGG19BN(until="layer2"), VGG19BN()
    report = load_weights(short, state, short.own_name)
    load_weights(whole, state, whole.own_name)
    assert report.matched == report.total and report.left_out[0].startswith("features.27.")
    for key, value in short.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, whole.state_dict()[key]), key


def test_a_layer_that_the_file_lacks_is_named(state):
    """What is missing is reported under the network's own names."""
    without = {key: value for key, value in state.items() if not key.startswith("features.49.")}
    network = VGG19BN()
    with pytest.raises(DataError, match=r"Missing in the file: layer4\.9\.weight, layer4\.9\.bias"):
        load_weights(network, without, network.own_name)


def test_too_small_pictures_are_refused():
    """A picture of which layer4 would have nothing is refused with its size, one of which it has
    one position is not."""
    for stride, least in ((1, 16), (2, 32)):
        config = settings.VGG19BN(last_stride=stride)
        assert config.outputs(Given((least, least)))["layer4"].shape == (512, 1, 1)
        with pytest.raises(WiringError, match=f"larger pictures than {least}x{least - 1}: nothing"):
            config.outputs(Given((least, least - 1)))


def test_weights_start_as_torchvisions():
    """Convolutions start with He's deviation by fan-out and without shift."""
    network = VGG19BN(until="layer1")
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            deviation = (2 / (9 * part.out_channels)) ** 0.5
            assert part.weight.std().item() == pytest.approx(deviation, rel=0.1)
            assert not part.bias.any()
