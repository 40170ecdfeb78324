"""Initial weights: tensors of checkpoints, loaded under our own names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn

from reidcore.contracts.parts import Context
from reidcore.contracts.settings import IMAGENET
from reidcore.errors import DataError
from reidcore.networks.checkpoints import read_weights
from reidcore.networks.common import Staged
from reidcore.networks.published import download_weights, published_file

COUNTER = "num_batches_tracked"
"""A buffer of batch norms that older checkpoints lack and nothing here uses."""


@attrs.frozen
class LoadReport:
    """Summary of what `load_weights` loaded; `str(report)` is a sentence for the user.

    Attributes:
        source: Name of the file.
        matched: Number of the module's tensors that were loaded.
        total: Number of tensors that the module has.
        left_out: Keys of the file that the module does not have.
        kept: Keys of the module that the file does not fill.

    Example:
        >>> from reidcore.networks import LoadReport
        >>> print(LoadReport("resnet50.pth", 265, 265, left_out=("fc.weight", "fc.bias")))
        265 of 265 tensors from resnet50.pth (left out: fc)
    """

    source: str
    matched: int
    total: int
    left_out: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def __str__(self) -> str:
        notes = []
        if self.left_out:
            notes.append(f"left out: {', '.join(_prefixes(self.left_out))}")
        if self.kept:
            notes.append(f"not in the file: {', '.join(_prefixes(self.kept))}")
        more = f" ({'; '.join(notes)})" if notes else ""
        return f"{self.matched} of {self.total} tensors from {self.source}{more}"


def load_weights(
    module: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    rename: Callable[[str], str | None] | None = None,
    allow: Sequence[str] = (),
    name: str = "",
) -> LoadReport:
    """Load published weights into a module; every key that does not match is an error.

    Args:
        module: The module, whose tensors are overwritten.
        source: A file, see `read_weights`, or tensors by key.
        rename: Function that returns the module's own key for a key of the source, or None for a
            tensor to leave out, such as the classifier's. Networks of this package have it as
            `own_name`.
        allow: Shell patterns, or leading components, of keys on either side that may stay
            unmatched. Tensors of the module then keep their values.
        name: Name of the source in messages; by default its path.

    Returns:
        A report, whose text `context.say` should tell the user.

    Raises:
        DataError: Keys or shapes do not match, or values are not finite. The text lists the first
            of them, and says which `allow` lets keys pass.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from reidcore.networks import load_weights
        >>> layer = nn.Linear(2, 2)
        >>> report = load_weights(layer, {"weight": torch.eye(2)}, allow=["bias"], name="eye.pth")
        >>> print(report)
        1 of 2 tensors from eye.pth (not in the file: bias)
        >>> load_weights(layer, {"weight": torch.eye(2)}, name="eye.pth")
        Traceback (most recent call last):
        ...
        reidcore.errors.DataError: eye.pth: these weights do not fit the network. \
Missing in the file: bias. If that is meant, allow = ["bias"] leaves these as they are.
    """
    if not isinstance(source, Mapping):
        name = name or str(Path(source).absolute())
        source = read_weights(source)
    name = name or "the given tensors"
    own, state = _without_counters(module.state_dict()), _without_counters(source)
    names = {key: rename(key) if rename is not None else key for key in state}
    fitting = {
        key: mine
        for key, mine in names.items()
        if mine in own and own[mine].shape == state[key].shape
    }
    if not fitting:
        raise DataError(
            f"{name}: nothing in it fits the network. Its keys are {_some(list(names))}; the "
            f"network's are {_some(list(own))}."
        )
    filled, given = set(fitting.values()), set(names.values())
    kept = [key for key in own if key not in filled]
    left_out = [key for key in names if key not in fitting]
    unmatched = {
        "Missing in the file": [key for key in kept if key not in given],
        "Unexpected in the file": [
            key for key in left_out if names[key] is not None and names[key] not in own
        ],
        "Of another shape in the file": [key for key in left_out if names[key] in own],
    }
    for keys in unmatched.values():
        keys[:] = [key for key in keys if not _allowed(allow, key, names.get(key))]
    if any(unmatched.values()):
        raise DataError(
            f"{name}: these weights do not fit the network. {_in_words(unmatched, allow)}"
        )
    values = {key: state[key].to(own[mine].dtype) for key, mine in fitting.items()}
    damaged = [f"{key} ({_faults(x)})" for key, x in values.items() if not x.isfinite().all()]
    if damaged:
        raise DataError(
            f"{name}: these weights are not finite, so that nothing can start from them: "
            f"{_some(damaged)}. Train, export or download them again."
        )
    with torch.no_grad():
        for key, mine in fitting.items():
            own[mine].copy_(values[key])
    return LoadReport(Path(name).name, len(filled), len(own), tuple(left_out), tuple(kept))


def _faults(value: Tensor) -> str:
    return f"{int((~value.isfinite()).sum())} of {value.numel()} values"


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key.rpartition(".")[2] != COUNTER}


def _allowed(allow: Sequence[str], *names: str | None) -> bool:
    return any(
        fnmatchcase(name, pattern) or name.startswith(pattern.rstrip(".") + ".")
        for name in names
        for pattern in allow
        if name is not None
    )


def _in_words(unmatched: Mapping[str, list[str]], allow: Sequence[str]) -> str:
    """Return a sentence with the keys that do not match and the `allow` that lets them pass."""
    text = " ".join(f"{what}: {_some(keys)}." for what, keys in unmatched.items() if keys)
    every = [*allow, *_prefixes(key for keys in unmatched.values() for key in keys)]
    entries = ", ".join(f'"{one}"' for one in dict.fromkeys(every))
    return f"{text} If that is meant, allow = [{entries}] leaves these as they are."


def _prefixes(keys: Iterable[str]) -> list[str]:
    """Return, for the keys of each first component, the leading components they share."""
    prefixes: dict[str, list[str]] = {}
    for key in keys:
        parts = key.split(".")
        before = prefixes.setdefault(parts[0], parts)
        pairs = takewhile(lambda pair: pair[0] == pair[1], zip(before, parts, strict=False))
        prefixes[parts[0]] = [part for part, _ in pairs]
    return [".".join(parts) for parts in prefixes.values()]


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def initial_weights(
    network: Staged,
    context: Context,
    weights: str,
    allow: Sequence[str] = (),
    published: str = "",
) -> None:
    """Load the weights into a network that its setting `weights` names.

    Call it in a build function before stages are copied or replaced. What was loaded is told to the
    user. Where weights are not there, a run stops and a check goes on with random ones.

    Args:
        network: The network.
        context: The build function's context.
        weights: Value of the setting: "" for random weights, "imagenet" for torchvision's, or a
            checkpoint's path.
        allow: Value of the setting `allow`, see `load_weights`.
        published: torchvision's name of the model, such as "resnet50".

    Raises:
        DataError: The weights are absent in a run, damaged, or made for another network.

    Example:
        >>> from reidcore.api import Given
        >>> from reidcore.modules import Context
        >>> from reidcore.networks import ResNet, initial_weights
        >>> context = Context(Given((256, 128)), "backbone")
        >>> initial_weights(ResNet(18, width=0.125), context, weights="", published="resnet18")
    """
    source = context.weights("weights", weights)
    if not source:
        return
    path = published_file(published) if source == IMAGENET else Path(source)
    if path.is_file():
        state = read_weights(path)
    elif context.initial == "need" and source == IMAGENET:
        state = download_weights(published)
    elif context.initial == "need":
        raise DataError(f"weights not found at {path}")
    else:
        later = "; a run downloads them" if source == IMAGENET else ""
        context.say(f"weights not found at {path}; the dry run uses random ones{later}")
        return
    context.say(str(load_weights(network, state, network.own_name, allow, str(path))))
