"""Prints parameters and multiply-accumulates of an MSINet, stage by stage.

python -m reid_msinet.count [GENOTYPE] [--image HEIGHT WIDTH] [--supernet] [--neck FORM]
"""

from __future__ import annotations

import argparse
import sys

import attrs
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reid_msinet.genotypes import chosen_genotype
from reid_msinet.neck import build_neck
from reid_msinet.network import MSINet, MSISuperNet
from reid_msinet.settings_neck import Form, Neck
from reid_msinet.sizes import CHANNELS, STAGES, stage_shapes
from reidcore.api import Feature, Given, MapName, WiringError
from reidcore.modules import Context, Images


@attrs.frozen
class Row:
    """One line of the table. macs: multiply-accumulates for one picture."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    macs: int


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def stage_rows(network: MSINet | MSISuperNet, image: tuple[int, int]) -> list[Row]:
    """The stages of a network, and its MACs: convolutions and matrix products, no norms, poolings
    and activations."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, *image))
    flops = counter.get_flop_counts()
    shapes = stage_shapes(CHANNELS, image)
    root = type(network).__name__
    return [
        Row(
            stage,
            shapes[stage],
            parameters_of(getattr(network, stage)),
            sum(flops.get(f"{root}.{stage}", {}).values()) // 2,
        )
        for stage in STAGES
    ]


def neck_row(form: Form, image: tuple[int, int]) -> tuple[Row, int]:
    """The neck with all its layers, and the parameters that retrieval needs of it."""
    shapes = stage_shapes(CHANNELS, image)
    features = {f"backbone.{stage}": Feature.map(*shapes[stage]) for stage in ("cell6", "down2")}
    given = Given(image, features=features)
    config = Neck(
        source=MapName("backbone.cell6"), part_source=MapName("backbone.down2"), form=form
    )
    neck = build_neck(config, Context(given, "neck", ["feature", "feature_bn"])).eval()
    none = torch.zeros(1, dtype=torch.int64)
    maps = {name: torch.zeros(1, *feature.shape) for name, feature in features.items()}
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        neck(maps, Images(torch.zeros(1, 3, *image), none, none))
    length = config.outputs(given)["feature"].shape
    row = Row("neck", length, parameters_of(neck), counter.get_total_flops() // 2)
    return row, parameters_of(neck.squeeze)


def text_of(rows: list[Row]) -> list[str]:
    return [
        f"{row.name:24}{'x'.join(map(str, row.shape)):>14}{row.parameters:>14,}"
        f"{row.macs / 1e6:>12.1f}"
        for row in rows
    ]


def report(genotype: str, image: tuple[int, int], supernet: bool, form: Form) -> str:
    """The table as text. Raises WiringError for a genotype that is none."""
    network: MSINet | MSISuperNet
    if supernet:
        network, title = MSISuperNet(), "supernet, all interactions in every slot"
    else:
        letters = chosen_genotype(genotype, Given(image))
        network, title = MSINet(letters), f"genotype {letters}"
    lines = [f"{title}, pictures of {image[0]}x{image[1]}"]
    lines.append(f"{'stage':24}{'output':>14}{'parameters':>14}{'MACs in M':>12}")
    rows = stage_rows(network, image)
    trunk = Row("all stages", (), parameters_of(network), sum(row.macs for row in rows))
    if supernet:
        return "\n".join(lines + text_of([*rows, trunk]))
    neck, squeeze = neck_row(form, image)
    channels = CHANNELS[-1]
    attention = 2 * (channels * (channels // 8) + channels // 8)
    whole = Row("all but classifiers", (), trunk.parameters + neck.parameters, 0)
    whole = attrs.evolve(whole, macs=trunk.macs + neck.macs)
    lines += text_of([*rows, neck, trunk, whole])
    lines += [
        f"with msinet.sam's position attention{whole.parameters + attention:>16,}",
        f"retrieval by neck.feature{trunk.parameters + squeeze:>27,}",
        f"retrieval by neck.pooled{trunk.parameters:>28,}",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reid_msinet.count", description=__doc__)
    parser.add_argument("genotype", nargs="?", default="msmt17", help="as the setting genotype")
    parser.add_argument("--image", nargs=2, type=int, default=(256, 128), metavar="PIXELS")
    parser.add_argument("--supernet", action="store_true", help="all interactions in every slot")
    parser.add_argument("--neck", choices=("msinet", "cdnet"), default="msinet")
    options = parser.parse_args(arguments)
    try:
        print(report(options.genotype, tuple(options.image), options.supernet, options.neck))
    except WiringError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
