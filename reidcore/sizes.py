"""Shapes of convolutional networks by arithmetic alone, without torch, for wiring methods.

`reidcore.networks` builds the networks themselves. An extent is a height or width in pixels or
places of a map.
"""

from __future__ import annotations

__all__ = [
    "MOBILENET_V2_STAGES",
    "OSNET_FEATURE",
    "OSNET_STAGES",
    "OSNET_WIDTHS",
    "RESNET_BLOCKS",
    "RESNET_STAGES",
    "VGG19_BN_BLOCKS",
    "conv_size",
    "mobilenet_v2_blocks",
    "mobilenet_v2_shapes",
    "osnet_channels",
    "osnet_shapes",
    "resnet_base",
    "resnet_expansion",
    "resnet_shapes",
    "vgg19_bn_channels",
    "vgg19_bn_shapes",
]

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

OSNET_STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")
"""Names of an OSNet's stages in the order of computation; `fc` is a vector."""

OSNET_WIDTHS = (0.25, 0.5, 0.75, 1.0)
"""Published factors on an OSNet's channel numbers (Zhou et al. 2019, table 4)."""

OSNET_FEATURE = 512
"""Length of an OSNet's `fc` vector, at every width."""

MOBILENET_V2_STAGES = {
    "stem": (0, 2),
    "layer1": (2, 4),
    "layer2": (4, 7),
    "layer3": (7, 14),
    "layer4": (14, 19),
}
"""A MobileNetV2's stages: first and end index among torchvision's `features`."""

VGG19_BN_BLOCKS = {
    "stem": (2, 64),
    "layer1": (2, 128),
    "layer2": (4, 256),
    "layer3": (4, 512),
    "layer4": (4, 512),
}
"""Number of 3x3 convolutions and channels of a VGG-19's stages in the order of computation
(Simonyan and Zisserman 2015, table 1, column E). Each ends with a max pooling of stride 2."""


def conv_size(size: int, kernel: int, stride: int = 1, padding: int = 0) -> int:
    """Return the extent of a convolution's or pooling's output along one axis.

    There is no dilation, and halves are rounded down, as torch does by default.

    Args:
        size: Extent of the input.
        kernel: Extent of the kernel.
        stride: Step of the kernel.
        padding: Places added on each side.

    Example:
        >>> from reidcore.sizes import conv_size
        >>> conv_size(256, kernel=7, stride=2, padding=3)
        128
    """
    return (size + 2 * padding - kernel) // stride + 1


def resnet_expansion(depth: int) -> int:
    """Return the output channels of a ResNet's block for each inner one: 4 in bottlenecks, else 1.

    Args:
        depth: 18, 34, 50, 101 or 152.

    Example:
        >>> from reidcore.sizes import resnet_expansion
        >>> resnet_expansion(50), resnet_expansion(18)
        (4, 1)
    """
    return 4 if depth >= 50 else 1


def resnet_base(width: float) -> int:
    """Return the channels of a ResNet's stem: 64 times a factor, at least one.

    Args:
        width: Factor on all channel numbers.

    Example:
        >>> from reidcore.sizes import resnet_base
        >>> resnet_base(0.5)
        32
    """
    return max(1, round(64 * width))


def resnet_shapes(
    depth: int, image: tuple[int, int], last_stride: int = 1, width: float = 1.0
) -> dict[str, tuple[int, int, int]]:
    """Return the (channels, height, width) of every stage of `reidcore.networks.ResNet`.

    Args:
        depth: 18, 34, 50, 101 or 152 (He et al. 2016, table 1).
        image: Height and width of the pictures in pixels.
        last_stride: Stride of layer4, 1 or 2.
        width: Factor on all channel numbers.

    Returns:
        Shapes by stage, in the order of `RESNET_STAGES`.

    Example:
        >>> from reidcore.sizes import resnet_shapes
        >>> resnet_shapes(50, (256, 128))["layer4"]
        (2048, 16, 8)
        >>> resnet_shapes(50, (256, 128), last_stride=2)["layer4"]
        (2048, 8, 4)
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
    """Return the extents after a layer of stride 2 with an odd kernel, padded by half of it."""
    return conv_size(image[0], kernel, 2, kernel // 2), conv_size(image[1], kernel, 2, kernel // 2)


def osnet_channels(width: float) -> tuple[int, int, int, int]:
    """Return the channels of an OSNet's stem, layer1, layer2 and layer3; layer4 is as layer3.

    Args:
        width: Factor on all channel numbers, one of `OSNET_WIDTHS`.

    Example:
        >>> from reidcore.sizes import osnet_channels
        >>> osnet_channels(0.25)
        (16, 64, 96, 128)
    """
    first, second, third, fourth = (int(channels * width) for channels in (64, 256, 384, 512))
    return first, second, third, fourth


def osnet_shapes(width: float, image: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every stage of `reidcore.networks.OSNet`.

    Args:
        width: Factor on all channel numbers, one of `OSNET_WIDTHS`.
        image: Height and width of the pictures in pixels.

    Returns:
        Shapes by stage, in the order of `OSNET_STAGES`: (channels, height, width) of a map,
        (length,) of `fc`. An extent is 0 where the picture is too small.

    Example:
        >>> from reidcore.sizes import osnet_shapes
        >>> shapes = osnet_shapes(1.0, (256, 128))
        >>> shapes["layer4"], shapes["fc"]
        ((512, 16, 8), (512,))
    """
    stem, layer1, layer2, layer3 = osnet_channels(width)
    extents = _halved(_halved(image, 7), 3)
    shapes: dict[str, tuple[int, ...]] = {"stem": (stem, *extents)}
    for name, channels in (("layer1", layer1), ("layer2", layer2)):
        extents = extents[0] // 2, extents[1] // 2
        shapes[name] = (channels, *extents)
    shapes |= {name: (layer3, *extents) for name in ("layer3", "layer4")}
    return {**shapes, "fc": (OSNET_FEATURE,)}


def mobilenet_v2_blocks(last_stride: int) -> tuple[tuple[int, int, int, int], ...]:
    """Return a MobileNetV2's groups of blocks (Sandler et al. 2018, table 2).

    Args:
        last_stride: Stride of the last group that shrinks, 1 or 2.

    Returns:
        (expansion, channels, repeats, stride) of each group.

    Example:
        >>> from reidcore.sizes import mobilenet_v2_blocks
        >>> mobilenet_v2_blocks(1)[5]
        (6, 160, 3, 1)
    """
    return (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
        (6, 160, 3, last_stride), (6, 320, 1, 1),
    )  # fmt: skip


def _multiple_of_8(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8 and not below nine tenths of `channels`."""
    multiple = max(8, int(channels + 4) // 8 * 8)
    return multiple + 8 if multiple < 0.9 * channels else multiple


def mobilenet_v2_shapes(
    image: tuple[int, int], last_stride: int = 1, width: float = 1.0
) -> dict[str, tuple[int, int, int]]:
    """Return the (channels, height, width) of every stage of `reidcore.networks.MobileNetV2`.

    Args:
        image: Height and width of the pictures in pixels.
        last_stride: Stride of layer4, 1 or 2.
        width: Factor on channel numbers, which become multiples of 8; those of layer4 do not get
            below 1280.

    Returns:
        Shapes by stage, in the order of `MOBILENET_V2_STAGES`.

    Example:
        >>> from reidcore.sizes import mobilenet_v2_shapes
        >>> mobilenet_v2_shapes((256, 128))["layer4"]
        (1280, 16, 8)
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


def vgg19_bn_channels(width: float) -> dict[str, int]:
    """Return the channels of a VGG-19's stages: the published ones times a factor, at least one.

    Args:
        width: Factor on all channel numbers.

    Example:
        >>> from reidcore.sizes import vgg19_bn_channels
        >>> vgg19_bn_channels(0.5)["layer4"]
        256
    """
    return {
        stage: max(1, round(channels * width)) for stage, (_, channels) in VGG19_BN_BLOCKS.items()
    }


def vgg19_bn_shapes(
    image: tuple[int, int], last_stride: int = 1, width: float = 1.0
) -> dict[str, tuple[int, int, int]]:
    """Return the (channels, height, width) of every stage of `reidcore.networks.VGG19BN`.

    Args:
        image: Height and width of the pictures in pixels.
        last_stride: Stride of layer4, 1 or 2.
        width: Factor on all channel numbers.

    Returns:
        Shapes by stage, in the order of `VGG19_BN_BLOCKS`. An extent is 0 where the picture is too
        small.

    Example:
        >>> from reidcore.sizes import vgg19_bn_shapes
        >>> vgg19_bn_shapes((256, 128))["layer4"]
        (512, 16, 8)
    """
    shapes = {}
    for stage, channels in vgg19_bn_channels(width).items():
        if stage != "layer4" or last_stride == 2:
            image = image[0] // 2, image[1] // 2
        shapes[stage] = (channels, *image)
    return shapes
