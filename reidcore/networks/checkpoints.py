"""Checkpoints: files of tensors, read without executing code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from reidcore.errors import DataError


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by key, on the CPU.

    It reads `.safetensors` files and files that `torch.save` wrote of tensors alone. A dict under
    the key state_dict or model, and a prefix `module.` of every key, are unwrapped. Where keys
    begin with `backbone.`, as in a run's weights, only these are taken, without the prefix.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing, damaged, or would have to execute code to be read.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from reidcore.networks import read_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"module.fc.weight": torch.eye(2)}}, f"{folder}/a.pth")
        ...     read_weights(f"{folder}/a.pth")
        {'fc.weight': tensor([[1., 0.],
                [0., 1.]])}
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise DataError(f"weights not found at {path}")
    found = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickled(path)
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise DataError(f"{path} holds {_kind(found)}, not tensors by name")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise DataError(f"{path} holds {_kind(value)} as {key!r}, not tensors alone")
    return _unwrapped(found)


def _kind(value: Any) -> str:
    return f"an empty {type(value).__name__}" if value == {} else f"a {type(value).__name__}"


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from None


def _load_pickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise DataError(f"{path} is damaged or no file of torch.save") from None
        raise DataError(
            f"{path} holds more than tensors ({refused[1]}); reading that would execute code from "
            "the file, so it is refused. Where you trust it, load it in Python and save its "
            "state_dict alone."
        ) from None
    except Exception as error:  # torch raises almost anything for a damaged file
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path} is damaged or no file of torch.save: {reason}") from None


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefixes of torch.nn.DataParallel and of a run's backbone."""
    own = {key: value for key, value in state.items() if key.startswith("backbone.")} or dict(state)
    for prefix in ("module.", "backbone.", "network."):
        if all(key.startswith(prefix) for key in own):
            own = {key.removeprefix(prefix): value for key, value in own.items()}
    return own
