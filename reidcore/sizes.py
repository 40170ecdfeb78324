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
