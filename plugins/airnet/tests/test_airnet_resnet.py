"""The divided backbone: sizes, shapes, equal copies, initial weights, context blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reid_airnet.context import GlobalContext
from reid_airnet.resnet import DividedResNet, build_resnet
from reid_airnet.settings_resnet import ResNet as ResNetSettings
from reidcore.api import Given, WiringError
from reidcore.errors import DataError
from reidcore.modules import Context, Images
from reidcore.networks import ResNet

LAST = frozenset({"layer4a", "layer4i"})


def given(height: int = 64, width: int = 32, find=None) -> Given:
    return Given((height, width), find_weights=find)


def images(count: int = 2, height: int = 64, width: int = 32) -> Images:
    none = torch.zeros(count, dtype=torch.int64)
    return Images(torch.randn(count, 3, height, width), none, none)


def build(config: ResNetSettings, wanted=LAST, around: Given | None = None, **options):
    return build_resnet(config, Context(around or given(), "backbone", wanted, **options))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_copies_start_alike_and_share_nothing():
    """Also their norms' statistics; a step on one leaves the other."""
    network = build(ResNetSettings(depth=18, width=0.125)).eval()
    with torch.no_grad():
        out = network(images())
        assert torch.equal(out["layer4a"], out["layer4i"])
        next(network.layer4a.parameters()).add_(1)
        out = network(images())
    assert not torch.equal(out["layer4a"], out["layer4i"])


@pytest.mark.parametrize("split", ["layer4", "layer3"])
def test_the_copies_are_an_undivided_resnets_stages(tmp_path, split):
    """From a checkpoint under published names, both copies give what the undivided network gives:
    new context blocks change nothing."""
    whole = ResNet(18, width=0.125).eval()
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
    renamed = {
        key.replace("stem.conv", "conv1").replace("stem.norm", "bn1"): value
        for key, value in whole.state_dict().items()
    }
    path = tmp_path / "whole.pth"
    torch.save({**renamed, "fc.weight": torch.zeros(3, 32)}, path)
    config = ResNetSettings(depth=18, width=0.125, split=split, weights=str(path))
    network = build(config, around=given(find=str), initial="need").eval()
    with torch.no_grad():
        pictures = images()
        expected = whole(pictures.pixels)["layer4"]
        out = network(pictures)
    for name in LAST:
        torch.testing.assert_close(out[name], expected)
    other = ResNetSettings(depth=34, width=0.125, weights=str(path))
    with pytest.raises(DataError, match=r"do not fit the network\. Missing in the file: layer1"):
        build(other, around=given(find=str), initial="need")


def test_sizes_are_the_papers():
    """Trunk 23,508,032; a second layer4 14,964,736; the context blocks of layer2 and layer3. IBN-a
    changes no number. Behind layer3's first block, the other five are there twice too."""
    plain = build(ResNetSettings(gc=[]))
    assert parameters(plain) == 23_508_032 + 14_964_736
    assert parameters(build(ResNetSettings(norm="ibn_a"))) == parameters(plain)
    assert parameters(build(ResNetSettings())) == parameters(plain) + 33_889 + 133_313
    assert parameters(build(ResNetSettings(gc=[]), {"layer4a"})) == 23_508_032
    early = parameters(build(ResNetSettings(gc=[], split="layer3")))
    assert early == parameters(plain) + 5 * 1_117_184
    assert round(early / 1e6 + 2048**2 / 1e6, 1) == 48.3


SETTINGS = [
    {},
    {"norm": "ibn_a"},
    {"norm": "ibn_b"},
    {"last_stride": 2},
    {"layer3_stride": 1},
    {"layer3_stride": 1, "last_stride": 2},
    {"split": "layer3"},
    {"depth": 50},
    {"gc": ["layer1", "layer4"]},
    {"gc_position": "block"},
    {"depth": 50, "gc_position": "block"},
    {"gc_fusion": "both", "gc_pool": "average", "gc_ratio": 0.25},
    {"split": "layer3", "layer3_stride": 1, "gc": ["layer3"]},
]


@pytest.mark.parametrize("size", [(64, 32), (97, 45)])
@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_shapes_are_as_declared(changes, size):
    """Of every stage, whatever is set."""
    config = ResNetSettings(**{"depth": 18, "width": 0.125} | changes)
    declared = {name: one.shape for name, one in config.outputs(given(*size)).items()}
    network = build(config, frozenset(declared)).eval()
    with torch.no_grad():
        out = network(images(1, *size))
    assert {name: tuple(value.shape[1:]) for name, value in out.items()} == declared


def test_the_papers_shapes():
    """24 x 12 positions of both last stages at 384 x 192, with two readings of the stride."""
    for changes, third, last in (
        ({}, (24, 12), (24, 12)),
        ({"layer3_stride": 1, "last_stride": 2}, (48, 24), (24, 12)),
        ({"layer3_stride": 1}, (48, 24), (48, 24)),
    ):
        shapes = ResNetSettings(**changes).outputs(given(384, 192))
        assert shapes["layer3"].shape == (1024, *third)
        assert shapes["layer4a"].shape == shapes["layer4i"].shape == (2048, *last)


def contexts(network: nn.Module) -> list[str]:
    return [name for name, part in network.named_modules() if isinstance(part, GlobalContext)]


def test_context_blocks_stand_where_they_are_set():
    """Behind layer2 and layer3 with batch norm, nowhere with instance norm, unless it is said."""
    small = {"depth": 18, "width": 0.125}
    assert contexts(build(ResNetSettings(**small))) == ["layer2.2", "layer3.2"]
    assert contexts(build(ResNetSettings(**small, norm="ibn_a"))) == []
    last = build(ResNetSettings(**small, norm="ibn_a", gc=["layer3", "layer4"]))
    assert contexts(last) == ["layer3.2", "layer4a.2", "layer4i.2"]
    inside = build(ResNetSettings(**small, gc=["layer2"], gc_position="block"))
    assert contexts(inside) == ["layer2.0.attention", "layer2.1.attention"]
    early = build(ResNetSettings(**small, split="layer3"))
    assert contexts(early) == ["layer2.2", "layer3a.2", "layer3i.2"]


def test_a_context_block_in_a_residual_block_comes_before_the_sum():
    network = build(ResNetSettings(depth=18, width=0.125, gc=["layer2"], gc_position="block"))
    block = network.layer2[1]
    nn.init.normal_(block.attention.add.excite.weight)
    x = torch.randn(2, 16, 4, 3).relu()
    inner = block.norm2(block.conv2(block.relu(block.norm1(block.conv1(x)))))
    expected = (block.attention(inner) + x).relu()
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ({"layer4a"}, ["stem", "layer1", "layer2", "layer3", "layer4a"]),
        ({"layer2"}, ["stem", "layer1", "layer2"]),
        ({"layer3", "layer4i"}, ["stem", "layer1", "layer2", "layer3", "layer4i"]),
    ],
)
def test_only_what_is_needed_is_built(wanted, kept):
    network = build(ResNetSettings(depth=18, width=0.125), wanted)
    assert isinstance(network, DividedResNet)
    assert [name for name, _ in network.named_children()] == kept
    assert network(images()).keys() == wanted


def test_mistakes_are_told():
    with pytest.raises(WiringError, match='publishes no weights for width = 1 and norm = "ibn_a"'):
        ResNetSettings(norm="ibn_a", weights="imagenet").outputs(given())
    with pytest.raises(WiringError, match="larger pictures than 8x8: instance norm of layer3"):
        ResNetSettings(norm="ibn_a").outputs(given(8, 8))
    with pytest.raises(WiringError, match="neither 'imagenet' nor a file that ends in"):
        ResNetSettings(weights="resnet50").outputs(given())
