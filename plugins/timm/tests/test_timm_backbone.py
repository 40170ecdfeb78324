"""timm's models as backbones: stages, shapes, numbers, and what is refused."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from reid_timm.backbone import Features, build_features
from reid_timm.wiring import Features as Settings
from reidcore.api import Feature, Given, WiringError
from reidcore.modules import Context, Images

SIZE = (128, 64)
STAGES = {
    # He et al. 2016, table 1: the stem, and four stages with fourfold channels.
    "resnet50": [(64, 2), (256, 4), (512, 8), (1024, 16), (2048, 32)],
    # Liu et al. 2022, table 9.
    "convnext_tiny": [(96, 4), (192, 8), (384, 16), (768, 32)],
    # Tan and Le 2019, table 1, where the resolution changes next.
    "efficientnet_b0": [(16, 2), (24, 4), (40, 8), (112, 16), (320, 32)],
    # Howard et al. 2019, table 1, up to the convolution before the pooling.
    "mobilenetv3_large_100": [(16, 2), (24, 4), (40, 8), (112, 16), (960, 32)],
    # Touvron et al. 2021, table 1: the small model, patches of 16 x 16 and twelve blocks.
    "vit_small_patch16_224": [(384, 16)] * 12,
    # Liu et al. 2021, table 7.
    "swin_tiny_patch4_window7_224": [(96, 4), (192, 8), (384, 16), (768, 32)],
}


def pictures(size: tuple[int, int], count: int = 2) -> Images:
    none = torch.zeros(count, dtype=torch.int64)
    pixels = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))
    return Images(pixels, none, none)


def build(config: Settings, size: tuple[int, int], *wanted: str, initial="offer") -> Features:
    """The backbone in eval mode, with random weights of one seed."""
    torch.manual_seed(0)
    return build_features(config, Context(Given(size), "backbone", wanted, initial=initial)).eval()


@torch.no_grad()
def maps(backbone: nn.Module, images: Images) -> dict[str, Tensor]:
    return backbone(images)


@pytest.mark.parametrize("model", STAGES)
def test_stages_are_as_published_and_as_declared(model):
    """Channels and reductions of every stage are the papers'; two stages that are wanted, one of
    them the last, have the declared shapes, and others are not given."""
    declared = Settings(model=model).outputs(Given(SIZE))
    expected = {
        f"layer{number}": Feature.map(channels, SIZE[0] // by, SIZE[1] // by)
        for number, (channels, by) in enumerate(STAGES[model], 1)
    }
    assert declared == expected
    wanted = ("layer2", f"layer{len(declared)}")
    found = maps(build(Settings(model=model), SIZE, *wanted), pictures(SIZE))
    assert {name: value.shape for name, value in found.items()} == {
        name: (2, *declared[name].shape) for name in wanted
    }


@pytest.mark.parametrize("size", [(64, 48), (100, 36)], ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("model", ["resnet10t", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_shapes_are_exact_where_extents_do_not_divide(model, size):
    """Networks round at their strides in different ways, and windows do not fit; what is declared
    is what comes."""
    declared = Settings(model=model).outputs(Given(size))
    found = maps(build(Settings(model=model), size, *declared), pictures(size))
    assert {name: Feature.map(*value.shape[1:]) for name, value in found.items()} == declared


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("resnet10t", (64, 32)),
        ("convnext_atto", (64, 32)),
        ("mobilenetv3_small_050", (64, 32)),
        ("deit_tiny_patch16_224", (96, 48)),
        ("swin_tiny_patch4_window7_224", (64, 32)),
    ],
)
def test_numbers_are_those_of_the_whole_model(tmp_path, model, size):
    """With the whole model's weights from a file, every stage is what timm's own way into the whole
    model gives: all at once, and the third alone."""
    sized = {"img_size": size} if timm.get_pretrained_cfg(model).fixed_input_size else {}
    torch.manual_seed(1)
    whole = timm.create_model(model, **sized).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    config = Settings(model=model, weights=str(tmp_path / "whole.pth"))
    given = Given(size, find_weights=lambda path: path)
    declared = config.outputs(given)
    images = pictures(size)
    with torch.no_grad():
        expected = whole.forward_intermediates(images.pixels, intermediates_only=True)
    for wanted in (tuple(declared), ("layer3",)):
        torch.manual_seed(0)
        backbone = build_features(config, Context(given, "backbone", wanted)).eval()
        found = maps(backbone, images)
        assert list(found) == list(wanted)
        for name, value in found.items():
            index = int(name.removeprefix("layer")) - 1
            torch.testing.assert_close(value, expected[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "size"),
    [("resnet10t", (64, 32)), ("deit_tiny_patch16_224", (64, 32)), ("convnext_atto", (64, 32))],
)
def test_stages_behind_the_last_that_is_wanted_are_not_built(model, size):
    """The network ends with the last stage that somebody reads, and with the first if none is."""
    config = Settings(model=model)

    def tensors(*wanted: str) -> int:
        return len(build(config, size, *wanted).state_dict())

    every = config.outputs(Given(size))
    assert tensors("layer1") < tensors("layer1", "layer3") == tensors("layer3") < tensors(*every)
    assert tensors() == tensors("layer1")


def test_options_reach_the_model():
    """A ResNet whose strides end at 16 has the fourth stage's extents in the fifth, as declared."""
    config = Settings(model="resnet10t", options={"output_stride": 16})
    declared = config.outputs(Given((64, 32)))
    assert declared["layer5"] == Feature.map(512, 4, 2)
    found = maps(build(config, (64, 32), "layer5"), pictures((64, 32)))
    assert found["layer5"].shape == (2, 512, 4, 2)


def test_stochastic_depth_is_for_training_alone():
    """With drop_path_rate training passes differ, and others do not."""
    config = Settings(model="deit_tiny_patch16_224", options={"drop_path_rate": 0.5})
    backbone, images = build(config, (32, 32), "layer12"), pictures((32, 32))
    first, second = (maps(backbone, images)["layer12"] for _ in range(2))
    assert torch.equal(first, second)
    backbone.train()
    first, second = (maps(backbone, images)["layer12"] for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "resnt50"}, r"model is 'resnt50', which timm .* not have; similar are resnet50"),
        (
            {"model": "xxxx"},
            r"model is 'xxxx', which timm .* not have\. timm\.list_models\(\) lists",
        ),
        ({"model": "hf-hub:timm/resnet50"}, r"model is 'hf-hub:.*', which timm .* does not have"),
        (
            {"model": "resnet50.a9"},
            r"model is 'resnet50\.a9'; .* with the tags a1_in1k, a1h_in1k, ",
        ),
        ({"model": "mixnet_xxl.x"}, r"model has the tag 'x', but .* has no weights of mixnet_xxl$"),
        (
            {"model": "mixnet_xxl", "weights": "pretrained"},
            r"weights is 'pretrained', but .* has no weights of mixnet_xxl; give the path of",
        ),
        (
            {"model": "resnet50", "weights": "pretraned"},
            r"weights is 'pretraned', which is neither 'pretrained' nor a file that ends in \.pth",
        ),
        (
            {"model": "resnet50", "options": {"drop_pth": 0.1}},
            r"options do not suit 'resnet50': TypeError: .* keyword argument 'drop_pth'$",
        ),
        (
            {"model": "nest_tiny"},
            r"model is 'nest_tiny', whose maps timm .* cannot make for pictures of 64x32: "
            r"AssertionError: Model only handles square inputs$",
        ),
        (
            {"model": "nest_tiny", "options": {"drop_rate": 0.1}},
            r"model is 'nest_tiny', whose maps timm .*: AssertionError: Model only handles square",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, value)),
)
def test_messages(settings, message):
    """What timm does not have, or cannot do, is said with the setting's name and what would fit."""
    with pytest.raises(WiringError, match=message):
        Settings(**settings).outputs(Given((64, 32)))


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg_overlay", "img_size"])
def test_options_that_the_plugin_passes_are_refused(key):
    """Nor can a file that timm would unpickle get in that way."""
    with pytest.raises(ValueError, match=f"'{key}' is not for the user to say"):
        Settings(model="resnet50", options={key: "x.pth"})
