"""The ResNet and its shape arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reidcore.api import Feature, Given
from reidcore.builtin import settings
from reidcore.builtin.backbones import build_resnet
from reidcore.builtin.heads import build_bnneck, build_pool
from reidcore.modules import Context, Images
from reidcore.networks import ResNet
from reidcore.sizes import RESNET_BLOCKS, RESNET_STAGES, conv_size, resnet_shapes


def images(pixels: torch.Tensor) -> Images:
    none = torch.zeros(len(pixels), dtype=torch.int64)
    return Images(pixels, none, none)


@pytest.mark.parametrize("depth", [18, 50])
def test_resnet_computes_what_torchvisions_does(depth):
    """With torchvision's weights every stage gives torchvision's map."""
    models = pytest.importorskip("torchvision.models")
    theirs = getattr(models, f"resnet{depth}")(weights=None).eval()
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    ours = ResNet(depth, last_stride=2).eval()
    state = [value for name, value in theirs.state_dict().items() if not name.startswith("fc.")]
    ours.load_state_dict(dict(zip(ours.state_dict(), state, strict=True)))

    x = torch.randn(2, 3, 70, 45)
    with torch.no_grad():
        maps = ours(x)
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        torch.testing.assert_close(maps["stem"], y)
        for stage in RESNET_STAGES[1:]:
            y = getattr(theirs, stage)(y)
            torch.testing.assert_close(maps[stage], y)


@pytest.mark.parametrize("image", [(256, 128), (64, 32), (65, 33), (71, 37), (7, 1), (1, 1)])
@pytest.mark.parametrize("last_stride", [1, 2])
def test_declared_shapes_are_the_networks(image, last_stride):
    """Every stage has the shape that arithmetic declares, at even, odd and tiny picture sizes."""
    network = ResNet(50, last_stride, width=0.125).eval()
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, *image))
    actual = {stage: tuple(value.shape[1:]) for stage, value in maps.items()}
    assert actual == resnet_shapes(50, image, last_stride, 0.125)


@pytest.mark.parametrize("depth", sorted(RESNET_BLOCKS))
def test_every_depth_has_its_declared_channels(depth):
    """All five depths have as many convolutions as their name says and the declared channels."""
    network = ResNet(depth, width=1 / 32).eval()
    convolutions = [
        name
        for name, part in network.named_modules()
        if isinstance(part, nn.Conv2d) and "shortcut" not in name
    ]
    assert len(convolutions) == depth - 1  # the classifier is the last layer of the name
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, 33, 33))
    declared = resnet_shapes(depth, (33, 33), width=1 / 32)
    assert {stage: tuple(value.shape[1:]) for stage, value in maps.items()} == declared


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [(33, 7, 2, 3), (32, 3, 2, 1), (9, 1, 2, 0), (5, 5, 3, 0)],
)
def test_conv_size_is_torchs(size, kernel, stride, padding):
    """The arithmetic gives the extent that a torch convolution gives."""
    out = nn.Conv2d(1, 1, kernel, stride, padding)(torch.zeros(1, 1, size, size))
    assert out.shape[2] == conv_size(size, kernel, stride, padding)


def test_convolutions_start_with_he_variance():
    """Convolutions start with the variance 2 / (outputs x kernel area)."""
    weight = ResNet(18).layer2[0].conv1.weight
    assert weight.shape[:2] == (128, 64)
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_resnet_stops_where_it_is_told():
    """A network that is built to layer2 has no layer3, and computation can stop earlier still."""
    network = ResNet(18, width=0.125, until="layer2").eval()
    x = torch.zeros(1, 3, 32, 32)
    assert not hasattr(network, "layer3")
    assert list(network(x)) == ["stem", "layer1", "layer2"]
    assert list(network(x, until="stem")) == ["stem"]
    with pytest.raises(ValueError, match="no stage 'layer3'"):
        network(x, until="layer3")


def test_unknown_depth_is_refused():
    """A depth that does not exist is refused with those that do."""
    with pytest.raises(ValueError, match=r"depth 20; there are \[18, 34"):
        ResNet(20)


def test_backbone_builds_and_returns_only_what_is_read():
    """Stages behind the deepest wanted one are not built, and unread ones are not returned."""
    config = settings.ResNet(depth=18, width=0.125)
    backbone = build_resnet(config, Context(Given((32, 32)), "backbone", ["layer1", "layer3"]))
    out = backbone(images(torch.zeros(2, 3, 32, 32)))
    assert list(out) == ["layer1", "layer3"]
    declared = config.outputs(Given((32, 32)))
    assert all(tuple(out[name].shape[1:]) == declared[name].shape for name in out)
    assert not any("layer4" in name for name in backbone.state_dict())


def maps_context(*wanted: str, feature: Feature | None = None) -> Context:
    feature = feature or Feature.map(6, 5, 3)
    return Context(Given((32, 32), features={"x.source": feature}), "head", wanted)


@pytest.mark.parametrize("kind", ["average", "max", "gem"])
def test_pool_equals_a_loop_over_positions(kind):
    """Each pooling equals its definition, computed position by position."""
    x = torch.rand(2, 6, 5, 3, dtype=torch.float64)
    head = build_pool(settings.Pool(source="x.source", kind=kind), maps_context("vector")).double()
    out = head({"x.source": x}, images(x))["vector"]
    for b in range(2):
        for c in range(6):
            values = [x[b, c, h, w].item() for h in range(5) for w in range(3)]
            expected = {
                "average": sum(values) / len(values),
                "max": max(values),
                "gem": (sum(v**3 for v in values) / len(values)) ** (1 / 3),
            }[kind]
            assert out[b, c].item() == pytest.approx(expected, rel=1e-12)


def test_generalised_mean_learns_its_power():
    """The power of the generalised mean and the map get finite gradients, also where a channel is
    zero everywhere."""
    head = build_pool(settings.Pool(source="x.source", kind="gem"), maps_context("vector"))
    x = torch.relu(torch.randn(2, 6, 5, 3))
    x[:, 0] = 0
    x.requires_grad_()
    head({"x.source": x}, images(x))["vector"].sum().backward()
    assert head.pool.p.grad.isfinite() and head.pool.p.grad != 0
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("shift", [False, True])
def test_bnneck_normalises_over_the_batch(shift):
    """In training `bn` is the pooled vector with the batch's mean removed and variance 1; the shift
    is trained only on demand."""
    config = settings.BNNeck(source="x.source", shift=shift)
    head = build_bnneck(config, maps_context("pooled", "bn")).double()
    x = torch.randn(8, 6, 5, 3, dtype=torch.float64)
    out = head({"x.source": x}, images(x))
    pooled = x.mean((2, 3))
    torch.testing.assert_close(out["pooled"], pooled)
    expected = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + head.norm.eps).sqrt()
    torch.testing.assert_close(out["bn"], expected)
    assert head.norm.weight.requires_grad
    assert head.norm.bias.requires_grad is shift


def test_bnneck_takes_a_vector_as_it_is():
    """A vector source is not pooled, and without a reader `bn` is not built."""
    config = settings.BNNeck(source="x.source", pool="max")
    head = build_bnneck(config, maps_context("pooled", feature=Feature.vector(4)))
    x = torch.randn(3, 4)
    out = head({"x.source": x}, images(x))
    assert list(out) == ["pooled"] and torch.equal(out["pooled"], x)
    assert not list(head.parameters())


@pytest.mark.parametrize("feature", [Feature.map(6, 5, 3), Feature.vector(4)])
def test_heads_declare_the_lengths_they_give(feature):
    """The declared outputs of a neck are those it computes."""
    config = settings.BNNeck(source="x.source")
    context = maps_context("pooled", "bn", feature=feature)
    x = torch.randn(2, *feature.shape)
    out = build_bnneck(config, context)({"x.source": x}, images(x))
    declared = config.outputs(context.given)
    assert {name: tuple(value.shape[1:]) for name, value in out.items()} == {
        name: feature.shape for name, feature in declared.items()
    }
