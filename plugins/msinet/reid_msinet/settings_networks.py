"""Settings and wiring of the plugin's backbones."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from reid_msinet.genotypes import chosen_genotype
from reid_msinet.sizes import CHANNELS, stage_shapes
from reidcore.api import Feature, Given, setting


def _channels(value: tuple[int, ...]) -> str | None:
    fits = all(one % 4 == 0 for one in value)
    return None if fits else "expected multiples of 4, because branches have a quarter"


def _scale_ratio(default: int) -> Any:
    return setting(
        "3x3 layers of the long branch before each interaction; the short branch has one",
        default=default,
        at_least=1,
    )


@attrs.frozen
class _Network:
    """Settings that both backbones have."""

    channels: tuple[int, int, int, int] = setting(
        "channels of the stem and of the three pairs of cells",
        default=CHANNELS,
        at_least=4,
        check=_channels,
    )
    scale_ratio: int = _scale_ratio(3)
    fusion: Literal["sum", "minus", "multiply"] = setting(
        "how the long branch joins the short one: short + long, short - long, or their product",
        default="sum",
    )
    shared_expand: bool = setting(
        "whether the branches are joined before one 1x1 convolution, as the paper's figure 2 draws "
        "it, or each has a convolution and a norm of its own, as in the authors' code",
        default=False,
    )
    attention_invert: bool = setting(
        "whether cross attention looks at the channels that correlate least, as the authors' code "
        "does, or most",
        default=True,
    )
    gate_hidden: int = setting(
        "least number of channels between a gate's two layers, which have a sixteenth of its own "
        "otherwise: one or two in a narrow network",
        default=1,
        at_least=1,
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        shapes = stage_shapes(self.channels, given.image)
        height, width = shapes["cell6"][1:]
        given.need(
            height * width > 0,
            "",
            f"needs larger pictures than {given.image[0]}x{given.image[1]}: nothing would be left "
            "of them after down2",
        )
        return {stage: Feature.map(*shape) for stage, shape in shapes.items()}


@attrs.frozen
class Net(_Network):
    """Settings of `msinet.net`."""

    genotype: str = setting(
        "the interaction of every slot, two for each cell: twelve letters out of N (none), G "
        "(channel gate), A (cross attention) and E (exchange), a registered name (msmt17, none, "
        "gate, attention, exchange), random:SEED, or a file that msinet.search wrote",
        default="msmt17",
    )
    weights: str = setting(
        'what to start from: "" random, or the path of a checkpoint, such as the authors\'',
        default="",
    )
    allow: list[str] = setting(
        "keys of the checkpoint or of the network that may stay unmatched: shell patterns, or "
        "leading components such as cell6",
        default=[],
    )

    def outputs(self, given: Given) -> dict[str, Feature]:
        chosen_genotype(self.genotype, given)
        given.weights("weights", self.weights)
        return super().outputs(given)


@attrs.frozen
class SuperNet(_Network):
    """Settings of `msinet.supernet`."""

    search_width: Literal["in", "out"] = setting(
        "whether a cell's branches have a quarter of the channels that it takes, as the authors' "
        "code has in its search alone, or of those that it gives, as `msinet.net` has",
        default="in",
    )
