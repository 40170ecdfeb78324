"""Model and training state in safetensors: tensors plus JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, contiguous_format

from reidcore.errors import DataError
from reidcore.model.finite import faults, is_finite
from reidcore.model.training_pairs import read_pairs
from reidcore.support.files import not_there, write_atomically
from reidcore.support.wording import few

SKELETON = "reidcore"
"""Key of a file's metadata under which nested state stands, with names in place of tensors."""


def copied(value: Tensor) -> Tensor:
    """Return a copy in main memory, in row-major order, as a file keeps it."""
    return value.detach().cpu().clone(memory_format=contiguous_format)


def pack(value: Any, tensors: dict[str, Tensor], key: str = "") -> Any:
    """Return nested dicts, lists, numbers and texts as JSON values; put tensors into `tensors`.

    Raises TypeError for anything else, so that state which would be lost is noticed when saved.
    """
    if isinstance(value, Tensor):
        name = key or "tensor"
        tensors[name] = copied(value)
        return {"tensor": name}
    if isinstance(value, Mapping):
        items = [[k, pack(v, tensors, f"{key}/{k}")] for k, v in value.items()]
        for k, _ in items:
            if not isinstance(k, str | int):
                raise TypeError(f"state {key!r} has a key of type {type(k).__name__}")
        return {"items": items}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [pack(v, tensors, f"{key}/{i}") for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"state {key!r} is a {type(value).__name__}, which cannot be saved")


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what `pack` was given."""
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "items":
        return {k: unpack(v, tensors) for k, v in value}
    if kind in ("list", "tuple"):
        items = [unpack(v, tensors) for v in value]
        return items if kind == "list" else tuple(items)
    return value


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Save nested state to one file, atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = pack(state, tensors)
    write_atomically(path, save(tensors, {SKELETON: json.dumps(skeleton)}))


def load_state(path: Path) -> Any:
    """Return what `save_state` saved. Raises DataError if the file is missing or damaged."""
    tensors, metadata = read_tensors(path)
    try:
        return unpack(json.loads(metadata[SKELETON]), tensors)
    except (KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error!r}") from None


def load_value(path: Path, key: str) -> Any:
    """Return one entry of what `save_state` saved, which holds no tensor, without reading those.
    Raises DataError if the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            (items,) = json.loads(file.metadata()[SKELETON]).values()
        return unpack(dict(items)[key], {})
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path.absolute()} is damaged: {error!r}") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's tensors and metadata. Raises DataError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise not_there(path) from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path.absolute()} is damaged: {error}") from None


def save_sections(path: Path, sections: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Save the tensors of every part as `role.key`, such as `backbone.layer1.0.conv1.weight` or
    `loss.id.classifier.weight`; so weights.safetensors is made."""
    tensors = {
        f"{role}.{key}": copied(value)
        for role, section in sections.items()
        for key, value in section.items()
    }
    write_atomically(path, save(tensors, {"layout": "1"}))


def load_sections(model: Any, path: Path) -> None:
    """Load the tensors of the model's parts from what `save_sections` saved. What the file has
    beyond them is left alone: evaluation builds less than training did.

    Raises DataError naming the first keys that are missing, of another shape or not finite.
    """
    tensors, _ = read_tensors(path)
    for role, module in model.parts():
        own = module.state_dict()
        section = {
            key.removeprefix(f"{role}."): value
            for key, value in tensors.items()
            if key.startswith(f"{role}.")
        }
        missing = [key for key in own if key not in section]
        wrong = [
            f"{key} {list(section[key].shape)} for {list(own[key].shape)}"
            for key in own
            if key in section and section[key].shape != own[key].shape
        ]
        damaged = [
            f"{key} ({faults(section[key])})"
            for key in own
            if key in section and not is_finite(section[key])
        ]
        for what, keys in (
            ("lacks", missing),
            ("has other shapes:", wrong),
            ("is not finite:", damaged),
        ):
            if keys:
                raise DataError(f"{path}: the section of {role} {what} {few(keys)}")
        module.load_state_dict({key: section[key] for key in own})
    model.pairs = read_pairs(tensors)
