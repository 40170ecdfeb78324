"""Indexes of galleries: templates on disk, written batch by batch and mapped when they are read.

A folder of layout 1: index.json (layout, who made it, counts), manifest.csv (the pictures) and
templates.safetensors (`MATCHER.KEY`, leading axis: the pictures). A digest of manifest.csv in the
other two ties the files together; older indexes have none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reidcore.contracts.component import Row, TensorSpec
from reidcore.contracts.parts import Template
from reidcore.data.manifest import read_manifest, write_manifest
from reidcore.errors import DataError, PluginError, ReidError, UsageError
from reidcore.ranking.templates import require_finite
from reidcore.support.files import new_folder, not_there, read_json, reserve, write_json
from reidcore.wiring.plan import Plan

LAYOUT = 1
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
"""torch's names of dtypes and those of safetensors."""

TEMPLATES = "templates.safetensors"


def made_by(folder: Path, plan: Plan) -> str:
    """Return the `Templates.made_by` of templates that a run makes: its name, and a digest that
    differs with weights, picture size and views."""
    digest = sha256()
    with open(folder / "weights.safetensors", "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    data, views = plan.runfile.data, plan.runfile.eval.views
    digest.update(repr((data.image, data.interpolation, data.normalize, views)).encode())
    return f"{plan.runfile.name} ({digest.hexdigest()[:12]})"


class TemplateWriter:
    """Writes the templates of so many pictures into a folder that has their manifest.csv as they
    come, so that they need not fit into memory. specs: {matcher: {key: shape and dtype}}."""

    def __init__(self, folder: Path, specs: Mapping[str, Mapping[str, TensorSpec]], pictures: int):
        self.pictures = pictures
        self.done = 0
        every = {
            f"{matcher}.{key}": spec
            for matcher, keys in specs.items()
            for key, spec in keys.items()
        }
        # Whoever opens the index can tell that these templates are of that manifest's pictures.
        header: dict[str, object] = {"__metadata__": {"manifest": _digest(folder)}}
        places: dict[str, tuple[int, int, TensorSpec]] = {}
        end = 0
        # The format has no gaps; with the widest numbers first, all begin at a multiple of theirs.
        for name, spec in sorted(every.items(), key=lambda item: -_width(item[1])):
            start, end = end, end + pictures * prod(spec.shape) * _width(spec)
            header[name] = {
                "dtype": DTYPES[spec.dtype],
                "shape": [pictures, *spec.shape],
                "data_offsets": [start, end],
            }
            places[name] = (start, end, spec)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        offset = 8 + len(text)
        # Not mapped: where a disk is full, writing into a mapped file kills the process.
        self._file = open(folder / TEMPLATES, "wb")  # noqa: SIM115
        reserve(self._file.fileno(), offset + end)
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._places = {name: (offset + start, spec) for name, (start, _, spec) in places.items()}

    def add(self, templates: Mapping[str, Template]) -> None:
        """Append the next pictures' templates, {matcher: template}."""
        count = 0
        for matcher, template in templates.items():
            for key, value in template.items():
                start, spec = self._places[f"{matcher}.{key}"]
                dtype = getattr(torch, spec.dtype)
                if value.shape[1:] != spec.shape or value.dtype != dtype:
                    raise PluginError(
                        f"matcher {matcher!r}: template {key!r} is {value.dtype} "
                        f"{list(value.shape)}, declared is {dtype} {[len(value), *spec.shape]}"
                    )
                self._file.seek(start + self.done * prod(spec.shape) * _width(spec))
                self._file.write(_bytes_of(value))
                count = len(value)
        self.done += count

    def close(self) -> None:
        """Let go of the file. Raises DataError unless every picture has been added."""
        if self.done != self.pictures:
            raise DataError(f"{self.done} of {self.pictures} pictures have templates")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _bytes_of(value: Tensor) -> Any:
    return value.cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _width(spec: TensorSpec) -> int:
    return int(torch.empty((), dtype=getattr(torch, spec.dtype)).element_size())


@contextmanager
def write_index(folder: Path, rows: tuple[Row, ...], made_by: str, run: str) -> Iterator[Path]:
    """Make a folder with manifest.csv to write templates into, which becomes `folder`, complete
    with index.json, when the `with` block ends well.

    rows: the pictures. made_by, run: see `Templates.made_by`, and the run's name. Raises UsageError
    if the folder exists, OutputError if it cannot be written.
    """
    with new_folder(folder) as partial:
        write_manifest(partial / "manifest.csv", rows, for_index=True)
        yield partial
        content = {
            "layout": LAYOUT,
            "made_by": made_by,
            "run": run,
            "pictures": len(rows),
            "manifest": _digest(partial),
        }
        write_json(partial / "index.json", content)


def read_index(folder: Path) -> tuple[tuple[Row, ...], dict[str, Template], str]:
    """Return (pictures, {matcher: template}, who made it). The tensors are mapped, not read.

    Raises DataError if the folder is damaged, UsageError if it is of a newer layout.
    """
    content = read_json(folder / "index.json")
    try:
        layout, count, made_by = content["layout"], content["pictures"], str(content["made_by"])
    except (KeyError, TypeError):
        raise DataError(f"{folder / 'index.json'} is damaged") from None
    if layout > LAYOUT:
        raise UsageError(
            f"{folder} has layout {layout}, and this core reads layout {LAYOUT}; upgrade reidcore"
        )
    rows = tuple(read_manifest(folder / "manifest.csv", labelled=False))
    path = folder / TEMPLATES
    parts: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118
                matcher, _, key = name.partition(".")
                parts.setdefault(matcher, {})[key] = file.get_tensor(name)
    except FileNotFoundError:
        raise not_there(path) from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path.absolute()} is damaged: {error}") from None
    values = [value for template in parts.values() for value in template.values()]
    sizes = {len(value) if value.ndim else -1 for value in values}
    if sizes != {count} or len(rows) != count:
        raise DataError(f"{folder.absolute()} is damaged: its files differ in number of pictures")
    _check_manifest(folder, content, metadata)
    for matcher, template in parts.items():
        try:
            require_finite(matcher, template, [row.name for row in rows])
        except ReidError as error:
            raise DataError(f"{path.absolute()} is damaged: {error}") from None
    return rows, {name: dict(template) for name, template in parts.items()}, made_by


def _digest(folder: Path) -> str:
    return sha256((folder / "manifest.csv").read_bytes()).hexdigest()


def _check_manifest(folder: Path, content: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Raise DataError if the three files are not of one index. An older index has no digest."""
    own = _digest(folder)
    for file, known in (("index.json", content), (TEMPLATES, metadata)):
        if known.get("manifest", own) != own:
            raise DataError(
                f"{folder.absolute()}: manifest.csv is not the one that {file} was written with, "
                "so templates would stand for other pictures; put the file back as it was, or "
                "index the pictures again"
            )
    if ("manifest" in content) != ("manifest" in metadata):
        raise DataError(
            f"{folder.absolute()}: index.json and {TEMPLATES} are not of one index; put the files "
            "back as they were, or index the pictures again"
        )
