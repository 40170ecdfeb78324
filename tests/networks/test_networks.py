"""The ResNet and its shape arithmetic."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import oracle
from torch import nn

from reidcore.api import Feature, Given, WiringError
from reidcore.builtin import settings
from reidcore.builtin.backbones import build_resnet
from reidcore.builtin.heads import build_bnneck, build_pool
from reidcore.modules import Context, Images
from reidcore.networks import (
    IBN,
    BasicBlock,
    Bottleneck,
    ResNet,
    SqueezeExcitation,
    load_weights,
    resnet_stage,
)
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
    report = load_weights(ours, theirs.state_dict(), ours.own_name)
    assert report.matched == report.total and set(report.left_out) == {"fc.weight", "fc.bias"}

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


@pytest.mark.oracle
def test_ibn_gives_the_stored_outputs():
    """IBN gives the stored outputs in both modes, at an odd number of channels."""
    with oracle("airnet/ibn_layer") as v:
        x = v.input("X")
        layer = IBN(x.shape[1]).double()
        state = {
            "instance.weight": v.input("in_w"),
            "instance.bias": v.input("in_b"),
            "batch.weight": v.input("bn_w"),
            "batch.bias": v.input("bn_b"),
            "batch.running_mean": v.input("run_mean"),
            "batch.running_var": v.input("run_var"),
        }
        load_weights(layer, state)
        v.compare("out_eval", layer.eval()(x), rtol=1e-10)
        v.compare("out_train", layer.train()(x), rtol=1e-10)


def normalised(values: list[float], eps: float = 1e-5) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / math.sqrt(variance + eps) for value in values]


def test_ibn_equals_a_loop_over_channels():
    """In training the first floor(C / 2) channels are normalised picture by picture, the others
    over the batch, whose statistics alone are kept."""
    x = torch.randn(3, 5, 2, 4, dtype=torch.float64) * 3 + 1
    layer = IBN(5).double()
    out = layer(x)
    for c in range(5):
        if c < 2:
            expected = [value for b in range(3) for value in normalised(x[b, c].flatten().tolist())]
        else:
            expected = normalised(x[:, c].flatten().tolist())
        assert out[:, c].flatten().tolist() == pytest.approx(expected, rel=1e-10)
    means = [0.1 * sum(x[:, c].flatten().tolist()) / 24 for c in range(2, 5)]
    assert layer.batch.running_mean.tolist() == pytest.approx(means, rel=1e-10)
    assert sorted(name for name, _ in layer.named_buffers()) == [
        "batch.num_batches_tracked",
        "batch.running_mean",
        "batch.running_var",
    ]


def test_ibn_stands_in_the_first_norm_of_three_stages():
    """Every block of layer1 to layer3 starts with IBN, in both kinds of blocks, and layer4 with
    batch norm; the number of parameters stays."""
    for depth in (18, 50):
        network = ResNet(depth, width=0.125, norm="ibn_a")
        found = [name for name, part in network.named_modules() if isinstance(part, IBN)]
        blocks = (len(getattr(network, f"layer{number}")) for number in (1, 2, 3))
        assert found == [
            f"layer{number}.{block}.norm1"
            for number, count in enumerate(blocks, start=1)
            for block in range(count)
        ]
        plain = ResNet(depth, width=0.125)
        assert sum(p.numel() for p in network.parameters()) == sum(
            p.numel() for p in plain.parameters()
        )


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_ibn_b_normalises_the_sum(block):
    """Every channel of every picture of the last block's sum is normalised before the ReLU; the
    blocks before it are plain."""
    stage = resnet_stage(block, 8, 4, 2, 1, norm="ibn_b").double()
    assert isinstance(stage[0].instance, nn.Identity)
    x = torch.randn(2, 8, 3, 2, dtype=torch.float64) + 1
    inner = stage[0](x)
    total = stage[1].residual(inner) + inner
    out = stage(x)
    for b in range(2):
        for c in range(out.shape[1]):
            expected = [max(0.0, one) for one in normalised(total[b, c].flatten().tolist())]
            assert out[b, c].flatten().tolist() == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_ibn_b_stands_in_stem_layer1_and_layer2():
    for depth in (18, 50):
        network = ResNet(depth, width=0.125, norm="ibn_b")
        found = [
            name for name, one in network.named_modules() if isinstance(one, nn.InstanceNorm2d)
        ]
        last = [f"layer{number}.{len(getattr(network, f'layer{number}')) - 1}" for number in (1, 2)]
        assert found == ["stem.norm", *(f"{block}.instance" for block in last)]


@pytest.mark.parametrize("norm", ["ibn_a", "ibn_b"])
def test_published_names_of_ibn_become_our_own(norm):
    """A checkpoint under IBN-Net's key names fills such a network completely."""
    ours, theirs = (ResNet(18, width=0.125, norm=norm) for _ in range(2))
    renamed = {}
    for key, value in theirs.state_dict().items():
        for own, published in (
            ("stem.conv.", "conv1."),
            ("stem.norm.", "bn1."),
            (".norm1.instance.", ".bn1.IN."),
            (".norm1.batch.", ".bn1.BN."),
            (".norm", ".bn"),
            (".shortcut.conv.", ".downsample.0."),
            (".shortcut.norm.", ".downsample.1."),
            (".shortcut.bn.", ".downsample.1."),
            (".instance.", ".IN."),
        ):
            key = key.replace(own, published)
        renamed[key] = value
    instance = {"ibn_a": "layer3.1.bn1.IN.weight", "ibn_b": "layer2.1.IN.weight"}[norm]
    assert instance in renamed and "layer4.0.downsample.1.bias" in renamed
    report = load_weights(ours, renamed, ours.own_name)
    assert report.matched == report.total
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))


def test_squeeze_and_excitation_equals_its_definition():
    """Each channel is scaled by sigmoid(W2 relu(W1 means + b1) + b2), computed number by number."""
    layer = SqueezeExcitation(32).double()
    x = torch.randn(2, 32, 3, 2, dtype=torch.float64)
    out = layer(x)
    w1, b1 = layer.squeeze.weight.tolist(), layer.squeeze.bias.tolist()
    w2, b2 = layer.excite.weight.tolist(), layer.excite.bias.tolist()
    assert len(w1) == 2
    for b in range(2):
        means = [sum(x[b, c].flatten().tolist()) / 6 for c in range(32)]
        inner = [
            max(0.0, sum(w * m for w, m in zip(row, means, strict=True)) + shift)
            for row, shift in zip(w1, b1, strict=True)
        ]
        for c in range(32):
            logit = sum(w * value for w, value in zip(w2[c], inner, strict=True)) + b2[c]
            expected = x[b, c] / (1 + math.exp(-logit))
            torch.testing.assert_close(out[b, c], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_attention_scales_the_residual_before_the_sum(block):
    """With all factors at zero a block gives its shortcut alone."""
    stage = resnet_stage(block, 8, 4, 1, 1, attention="se")
    nn.init.constant_(stage[0].attention.excite.bias, -1e9)
    x = torch.randn(2, 8, 5, 3)
    torch.testing.assert_close(stage(x), stage[0].shortcut(x).relu())


def test_published_numbers_of_parameters():
    """ResNet-50 without its classifier has 23,508,032 parameters, and 2,530,992 more with
    squeeze-and-excitation at reduction 16 (Hu et al. 2018, table 2)."""
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in ResNet(50, attention=attention).parameters())
            for attention in ("none", "se")
        ]
    assert counts == [23_508_032, 23_508_032 + 2_530_992]


@pytest.mark.parametrize("norm", ["batch", "ibn_a"])
@pytest.mark.parametrize("attention", ["none", "se"])
def test_options_keep_the_shapes(norm, attention):
    """With either option every stage keeps its declared shape, at an odd picture size."""
    network = ResNet(50, 1, 1 / 16, norm=norm, attention=attention).eval()
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, 71, 37))
    actual = {stage: tuple(value.shape[1:]) for stage, value in maps.items()}
    assert actual == resnet_shapes(50, (71, 37), 1, 1 / 16)


def test_ibn_refuses_pictures_of_one_position():
    """Instance norm of one position is refused before anything is built."""
    config = settings.ResNet(depth=18, norm="ibn_a")
    config.outputs(Given((32, 16)))
    with pytest.raises(WiringError, match="needs larger pictures than 16x16"):
        config.outputs(Given((16, 16)))


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
