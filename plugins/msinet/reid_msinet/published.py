"""Turns a checkpoint of the authors' program into a run's weights, by role and key.

python -m reid_msinet.published CHECKPOINT RUN_DIR/weights.safetensors [--genotype GENOTYPE]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from reid_msinet import neck
from reid_msinet.genotypes import chosen_genotype
from reid_msinet.network import MSINet, genotype_numbers
from reidcore.api import Given, WiringError
from reidcore.errors import DataError, ReidError
from reidcore.networks import read_weights

LOSSES = (
    (r"^classifier\.", "loss.id.classifier."),
    (r"^f_classifier\.", "loss.part_id.classifier."),
    (r"^align_module\.pos_pam\.query_conv\.", "loss.align.attention.query."),
    (r"^align_module\.pos_pam\.key_conv\.", "loss.align.attention.key."),
)
"""Keys of layers that train only, and where the packaged run files have them."""
COUNTER = "num_batches_tracked"


def own_name(key: str, network: MSINet) -> str:
    """A run's name of a key of the program. Raises DataError for a key of another network."""
    for pattern, replacement in LOSSES:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)
    if name := neck.own_name(key):
        return f"head.neck.{name}"
    name = network.own_name(key)
    if name is None or name not in network.state_dict():
        raise DataError(
            f"{key!r} is no tensor of the authors' network with the genotype {network.letters}"
        )
    return f"backbone.network.{name}"


def sections(state: Mapping[str, Tensor], genotype: str) -> dict[str, Tensor]:
    """The tensors of the program's network as weights of a run such as `msinet:market-sam`.

    Raises DataError where keys or shapes are not those of a network with these operations.
    """
    network = MSINet(genotype)
    made = {own_name(key, network): value.clone().contiguous() for key, value in state.items()}
    own = {f"backbone.network.{key}": value for key, value in network.state_dict().items()}
    made["backbone.network.genotype"] = genotype_numbers(genotype)
    for key in [key for key in made if key.endswith(".running_mean")]:
        # Older checkpoints lack the counters, which nothing here uses.
        made.setdefault(key.replace("running_mean", COUNTER), torch.tensor(0))
    missing = sorted(own.keys() - made.keys())
    if missing:
        raise DataError(f"it lacks {missing[0]} and {len(missing) - 1} more of genotype {genotype}")
    wrong = [key for key, value in own.items() if made[key].shape != value.shape]
    if wrong:
        raise DataError(
            f"{wrong[0]} is {list(made[wrong[0]].shape)}, not {list(own[wrong[0]].shape)}"
        )
    return made


def convert(checkpoint: str | Path, target: str | Path, genotype: str) -> int:
    """Writes a run's weights from a checkpoint of the program; returns how many tensors."""
    try:
        made = sections(read_weights(checkpoint), genotype)
    except DataError as error:
        raise DataError(f"{checkpoint}: {error}") from None
    save_file(made, target, {"layout": "1"})
    return len(made)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reid_msinet.published", description=__doc__)
    parser.add_argument("checkpoint", help="a file that the authors' program saved")
    parser.add_argument("target", help="such as RUN_DIR/weights.safetensors")
    parser.add_argument("--genotype", default="msmt17", help="as the setting genotype")
    options = parser.parse_args(arguments)
    try:
        genotype = chosen_genotype(options.genotype, Given((256, 128)))
        count = convert(options.checkpoint, options.target, genotype)
    except WiringError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (ReidError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    print(f"{count} tensors in {options.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
