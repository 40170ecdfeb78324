"""Shapes of convolutional networks by arithmetic alone, for wiring methods that may not import
torch. `reidcore.networks` builds the networks themselves."""

from __future__ import annotations

RESNET_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Names of a ResNet's stages in the order of computation."""

RESNET_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Residual blocks of layer1 to layer4 by depth (He et al. 2016, table 1)."""


def conv_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Extent in pixels of a convolution's or pooling's output along one axis (no dilation, rounded
    down as torch does by default)."""
    return (size + 2 * padding - kernel) // stride + 1


def resnet_expansion(depth: int) -> int:
    """Output channels of a residual block per inner channel: 4 with bottlenecks, else 1."""
    return 4 if depth >= 50 else 1


def resnet_base(width: float) -> int:
    """Channels of the stem: 64 times `width`, at least one."""
    return max(1, round(64 * width))


def resnet_shapes(
    depth: int, image: tuple[int, int], last_stride: int = 1, width: float = 1.0
) -> dict[str, tuple[int, int, int]]:
    """(channels, height, width) of every stage of `reidcore.networks.ResNet`.

    `image` is (height, width) in pixels; `last_stride` is layer4's.
    """
    base, expansion = resnet_base(width), resnet_expansion(depth)

    def shrink(extents: tuple[int, int], kernel: int, stride: int) -> tuple[int, int]:
        padding = kernel // 2
        return (
            conv_size(extents[0], kernel, stride, padding),
            conv_size(extents[1], kernel, stride, padding),
        )

    extents = shrink(shrink(image, 7, 2), 3, 2)
    shapes = {"stem": (base, *extents)}
    for number, stride in enumerate((1, 2, 2, last_stride)):
        extents = shrink(extents, 3, stride)
        shapes[RESNET_STAGES[number + 1]] = (base * 2**number * expansion, *extents)
    return shapes


def _halved(image: tuple[int, int], kernel: int) -> tuple[int, int]:
    """Extents after a layer of stride 2 with an odd kernel, padded by half of it."""
    return conv_size(image[0], kernel, 2, kernel // 2), conv_size(image[1], kernel, 2, kernel // 2)


OSNET_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")
"""Names of an OSNet's stages in the order of computation; `fc` is a vector."""

OSNET_WIDTHS = (0.25, 0.5, 0.75, 1.0)
"""Published factors on an OSNet's channel numbers (Zhou et al. 2019, table 4)."""

OSNET_FEATURE = 512
"""Length of an OSNet's `fc` vector, at every width."""


def osnet_channels(width: float) -> tuple[int, int, int, int]:
    """Channels of an OSNet's stem, layer1, layer2 and layer3; layer4 has as many as layer3."""
    first, second, third, fourth = (int(channels * width) for channels in (64, 256, 384, 512))
    return first, second, third, fourth


def osnet_shapes(width: float, image: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """(channels, height, width) of every map of `reidcore.networks.OSNet`, and (length,) of `fc`.

    `image` is (height, width) in pixels. An extent is 0 where the picture is too small.
    """
    stem, layer1, layer2, layer3 = osnet_channels(width)
    extents = _halved(_halved(image, 7), 3)
    shapes: dict[str, tuple[int, ...]] = {"stem": (stem, *extents)}
    for name, channels in (("layer1", layer1), ("layer2", layer2)):
        extents = extents[0] // 2, extents[1] // 2
        shapes[name] = (channels, *extents)
    shapes |= {name: (layer3, *extents) for name in ("layer3", "layer4")}
    return {**shapes, "fc": (OSNET_FEATURE,)}


MOBILENET_V2_STAGES = {
    "stem": (0, 2),
    "layer1": (2, 4),
    "layer2": (4, 7),
    "layer3": (7, 14),
    "layer4": (14, 19),
}
"""A MobileNetV2's stages: first and end index among torchvision's `features`."""


def mobilenet_v2_blocks(last_stride: int) -> tuple[tuple[int, int, int, int], ...]:
    """(expansion, channels, repeats, stride) of a MobileNetV2's groups of blocks (Sandler et al.
    2018, table 2), with the stride of the last group that shrinks."""
    return (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
        (6, 160, 3, last_stride), (6, 320, 1, 1),
    )  # fmt: skip


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and not below nine tenths of `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def mobilenet_v2_shapes(
    image: tuple[int, int], last_stride: int = 1, width: float = 1.0
) -> dict[str, tuple[int, int, int]]:
    """(channels, height, width) of every stage of `reidcore.networks.MobileNetV2`.

    `image` is (height, width) in pixels; `last_stride` is layer4's.
    """
    channels = {"stem": 16, "layer1": 24, "layer2": 32, "layer3": 96}
    strides = {"stem": 2, "layer1": 2, "layer2": 2, "layer3": 2, "layer4": last_stride}
    shapes = {}
    for stage in MOBILENET_V2_STAGES:
        if strides[stage] == 2:
            image = _halved(image, 3)
        # The last convolution does not get narrower than published.
        made = channels[stage] * width if stage in channels else 1280 * max(1.0, width)
        shapes[stage] = (_multiple_of_8(made), *image)
    return shapes


VGG19_BN_BLOCKS = {
    "stem": (2, 64),
    "layer1": (2, 128),
    "layer2": (4, 256),
    "layer3": (4, 512),
    "layer4": (4, 512),
}
"""(3x3 convolutions, channels) of a VGG-19's stages in the order of computation (Simonyan and
Zisserman 2015, table 1, column E). Each ends with a max pooling of stride 2."""


def vgg19_bn_channels(width: float) -> dict[str, int]:
    """Channels of a VGG-19's stages: the published ones times `width`, at least one."""
    return {
        stage: max(1, round(channels * width)) for stage, (_, channels) in VGG19_BN_BLOCKS.items()
    }


def vgg19_bn_shapes(
    image: tuple[int, int], last_stride: int = 1, width: float = 1.0
) -> dict[str, tuple[int, int, int]]:
    """(channels, height, width) of every stage of `reidcore.networks.VGG19BN`.

    `image` is (height, width) in pixels; `last_stride` is layer4's. An extent is 0 where the
    picture is too small.
    """
    shapes = {}
    for stage, channels in vgg19_bn_channels(width).items():
        if stage != "layer4" or last_stride == 2:
            image = image[0] // 2, image[1] // 2
        shapes[stage] = (channels, *image)
    return shapes
