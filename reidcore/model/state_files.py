"""Model and training state in safetensors: tensors plus JSON, never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, contiguous_format

from reidcore.errors import DataError
from reidcore.model.finite import faults, is_finite
from reidcore.model.training_pairs import read_pairs
from reidcore.support.files import not_there, write_atomically
from reidcore.support.json_files import parsed
from reidcore.support.wording import few, in_words

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
    """Return what `pack` was given. Raises what Python does where it is nothing of the kind."""
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "items":
        return {k: unpack(v, tensors) for k, v in value}
    if kind in ("list", "tuple"):
        items = [unpack(v, tensors) for v in value]
        return items if kind == "list" else tuple(items)
    if kind != "value":
        raise ValueError(f"{kind!r} is no kind of value")
    return value


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Save nested state to one file, atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = pack(state, tensors)
    write_atomically(path, save(tensors, {SKELETON: json.dumps(skeleton)}))


def load_state(path: Path) -> Any:
    """Return what `save_state` saved. Raises DataError if the file is missing or damaged."""
    tensors, metadata = read_tensors(path)
    packed = _skeleton(metadata, path)
    try:
        return unpack(packed, tensors)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is damaged: {in_words(error)}") from None


def load_value(path: Path, key: str) -> Any:
    """Return one entry of what `save_state` saved, which holds no tensor, without reading those.
    Raises DataError if the file is missing or damaged."""
    with opened(path) as file:
        packed = _skeleton(file.metadata() or {}, path)
    try:
        (items,) = packed.values()
        return unpack(dict(items)[key], {})
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is damaged: {in_words(error)}") from None


def _skeleton(metadata: Mapping[str, str], path: Path) -> Any:
    """Return the nested state in a file's metadata, with names in place of tensors."""
    if SKELETON not in metadata:
        raise DataError(f"{path} is damaged: it holds no state of a run")
    return parsed(metadata[SKELETON], path).value


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a file's tensors and metadata. Raises DataError if it is missing or damaged."""
    with opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file of tensors; whatever is wrong with it becomes DataError."""
    if path.is_dir():
        raise DataError(f"{path.absolute()} is damaged: it is a folder, expected a file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise not_there(path) from None
    # A header may name types and sizes that torch does not have.
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
        raise DataError(f"{path.absolute()} is damaged: {in_words(error)}") from None


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

    Raises DataError as `load_section` and `read_pairs` do.
    """
    tensors, _ = read_tensors(path)
    for role, module in model.parts():
        start = f"{role}."
        section = {
            key.removeprefix(start): value
            for key, value in tensors.items()
            if key.startswith(start)
        }
        load_section(role, module, section, path)
    model.pairs = read_pairs(tensors, path)


def load_section(role: str, module: Any, section: Mapping[str, Any], path: Path) -> None:
    """Load the tensors of one part. What the section has beyond them is left alone.

    Raises DataError naming the first keys that are missing, of another shape, of a kind of numbers
    that the part does not hold, or not finite. path: of the file they come from.
    """
    own = module.state_dict()
    found = {key: section[key] for key in own if isinstance(section.get(key), Tensor)}
    for what, keys in (
        ("lacks", [key for key in own if key not in found]),
        (
            "has other shapes:",
            [
                f"{key} {list(value.shape)} for {list(own[key].shape)}"
                for key, value in found.items()
                if value.shape != own[key].shape
            ],
        ),
        (
            "has other numbers:",
            [
                f"{key} {_type(value)} for {_type(own[key])}"
                for key, value in found.items()
                if _kind(value) != _kind(own[key])
            ],
        ),
        (
            "is not finite:",
            [f"{key} ({faults(value)})" for key, value in found.items() if not is_finite(value)],
        ),
    ):
        if keys:
            raise DataError(f"{path}: the section of {role} {what} {few(keys)}")
    module.load_state_dict(found)


def _kind(value: Tensor) -> str:
    """Return what kind of numbers a tensor has, among which a copy changes no more than digits."""
    if value.dtype == torch.bool:
        return "bool"
    if value.is_complex():
        return "complex"
    return "float" if value.is_floating_point() else "int"


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
