"""Turns a checkpoint of the authors' program into a run's weights, without executing code from it.

python -m reid_ddag.published CHECKPOINT RUN_DIR/weights.safetensors
"""

from __future__ import annotations

import argparse
import pickle
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from reidcore.errors import DataError, ReidError
from reidcore.networks import ResNet

NETWORK = "net"
"""Where the program's dictionary has the tensors; beside it stand scores, which are NumPy's."""
STEMS = {"visible_module.visible.": "own_visible.", "thermal_module.thermal.": "own_infrared."}
SHARED = "base_resnet.base."
RENAMED = (
    (r"^bottleneck\.", "head.neck.norm."),
    (r"^wpa\.bottleneck\.", "head.parts.norm."),
    (r"^wpa\.gate$", "head.parts.weights"),
    (r"^wpa\.fc1\.0\.", "head.parts.u."),
    (r"^wpa\.fc2\.", "head.parts.v."),
    (r"^wpa\.fc3\.", "head.parts.z."),
    (r"^classifier\.", "loss.id.classifier."),
    (r"^out_att\.", "loss.graph.last."),
    (r"^attention_(\d+)\.", r"loss.graph.heads.\1."),
)
UNUSED = re.compile(r"^(classifier[12]|wpa\.W)\.")
"""Layers that the program makes and never uses."""


def own_name(key: str) -> str | None:
    """A run's name of a key of the program; None for what the network does not use."""
    for prefix, own in STEMS.items():
        if key.startswith(prefix):
            name = _resnet_name(key.removeprefix(prefix))
            return f"backbone.{own}{name}" if name.startswith("stem.") else None
    if key.startswith(SHARED):
        name = _resnet_name(key.removeprefix(SHARED))
        return None if name.startswith("stem.") else f"backbone.shared.{name}"
    if UNUSED.match(key):
        return None
    for pattern, replacement in RENAMED:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)
    raise DataError(f"{key!r} is no tensor of the authors' network")


def _resnet_name(key: str) -> str:
    for pattern, replacement in ResNet.renamed:
        key = re.sub(pattern, replacement, key)
    return key


def sections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the program's network as a run's weights, by role and key, in the shapes of
    `ddag:sysu`: linear layers for 1x1 convolutions on parts, and the graph's heads in one tensor.

    Raises DataError for keys of another network.
    """
    made: dict[str, Tensor] = {}
    heads: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        name = own_name(key)
        if name is None:
            continue
        if re.fullmatch(r"head\.parts\.[uvz]\.weight", name):
            value = value.flatten(1)
        attention = re.fullmatch(r"loss\.graph\.(heads\.(\d+)|last)\.([Wa])", name)
        if attention is None:
            made[name] = value.clone()
            continue
        layer = "heads" if attention[2] else "last"
        whole = f"loss.graph.{layer}." + {"W": "weight", "a": "score"}[attention[3]]
        one = value if attention[3] == "W" else value.flatten()
        heads.setdefault(whole, {})[int(attention[2] or 0)] = one
    for name, found in heads.items():
        made[name] = torch.stack([found[head] for head in sorted(found)])
    return made


def _numpy_scores() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return the functions by which NumPy pickles scalars and arrays, under the names of NumPy 1
    and 2."""
    import _codecs

    functions = {
        "scalar": np.float64(0).__reduce__()[0],
        "_reconstruct": np.zeros(0).__reduce__()[0],
    }
    allowed: list[Any] = [np.ndarray, np.dtype, _codecs.encode]
    allowed += [type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")]
    for name, function in functions.items():
        allowed += [(function, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")]
    return allowed


def read_published(path: str | Path) -> dict[str, Tensor]:
    """The network's tensors in a checkpoint of the program, whose scores may be NumPy's.

    Raises DataError if the file is missing or damaged, holds anything else, or is no such
    checkpoint.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise DataError(f"checkpoint not found at {path}")
    try:
        with torch.serialization.safe_globals(_numpy_scores()):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"holds {refused[1]}, which could execute code" if refused else "is damaged"
        raise DataError(f"{path} {what}; expected tensors and NumPy's numbers") from None
    except Exception as error:  # torch raises almost anything for a damaged file
        raise DataError(f"{path} is damaged or no file of torch.save: {error}") from None
    state = found.get(NETWORK) if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path} has no tensors under {NETWORK!r}, as the authors' program saves")
    return dict(state)


def convert(checkpoint: str | Path, target: str | Path) -> int:
    """Writes a run's weights from a checkpoint of the program; returns how many tensors."""
    try:
        made = sections(read_published(checkpoint))
    except DataError as error:
        raise DataError(f"{checkpoint}: {error}") from None
    made = {name: value.contiguous() for name, value in made.items()}
    save_file(made, target, {"layout": "1"})
    return len(made)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reid_ddag.published", description=__doc__)
    parser.add_argument("checkpoint", help="a file that the authors' train.py saved")
    parser.add_argument("target", help="such as RUN_DIR/weights.safetensors")
    options = parser.parse_args(arguments)
    try:
        count = convert(options.checkpoint, options.target)
    except (ReidError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    print(f"{count} tensors in {options.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
