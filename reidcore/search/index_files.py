"""Indexes of galleries: templates on disk, written batch by batch and mapped when they are read.

A folder of layout 1: index.json (layout, who made it, counts), manifest.csv (the pictures) and
templates.safetensors (`MATCHER.KEY`, leading axis: the pictures). A digest of manifest.csv in the
other two ties the files together; older indexes have none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reidcore.contracts.component import Row, TensorSpec
from reidcore.contracts.parts import Template
from reidcore.data.manifest import read_manifest, write_manifest
from reidcore.errors import DataError, PluginError, ReidError, UsageError
from reidcore.model.state_files import opened
from reidcore.ranking.templates import require_finite
from reidcore.support.files import new_folder, reserve, write_json
from reidcore.support.json_files import read_found
from reidcore.support.wording import one_line_of
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

INDEX = "index.json"
TEMPLATES = "templates.safetensors"
Specs = Mapping[str, TensorSpec]
"""Shape and dtype of each key of a matcher's templates."""


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

    def __init__(self, folder: Path, specs: Mapping[str, Specs], pictures: int):
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
        write_json(partial / INDEX, content)


def is_index(folder: Path) -> bool:
    """Return whether a folder is an index, be it damaged."""
    return folder.is_dir() and any((folder / name).exists() for name in (INDEX, TEMPLATES))


def read_index(folder: Path) -> tuple[tuple[Row, ...], dict[str, Template], str]:
    """Return (pictures, {matcher: template}, who made it). The tensors are mapped, not read.

    Raises DataError if the folder is damaged, UsageError if it is of a newer layout.
    """
    content = read_found(folder / INDEX)
    layout = content["layout"].integer(1)
    if layout > LAYOUT:
        raise UsageError(
            f"{folder} has layout {layout}, and this core reads layout {LAYOUT}; upgrade reidcore"
        )
    count, made_by = content["pictures"].integer(1), content["made_by"].text()
    content["run"].text()
    digest = content.get("manifest")
    rows = tuple(read_manifest(folder / "manifest.csv", labelled=False))
    parts: dict[str, dict[str, Tensor]] = {}
    path = folder / TEMPLATES
    with opened(path) as file:
        metadata = file.metadata() or {}
        for name in file.keys():  # noqa: SIM118
            matcher, _, key = name.partition(".")
            parts.setdefault(matcher, {})[key] = file.get_tensor(name)
    values = [value for template in parts.values() for value in template.values()]
    sizes = {len(value) if value.ndim else 0 for value in values}
    if sizes != {count} or len(rows) != count:
        raise DataError(
            f"{folder.absolute()} is damaged: its files differ in number of pictures: {INDEX} says "
            f"{count}, manifest.csv lists {len(rows)}, {TEMPLATES} has templates of "
            f"{' and '.join(map(str, sorted(sizes))) or 'none'}"
        )
    _check_manifest(folder, digest.text() if digest is not None else None, metadata)
    for matcher, template in parts.items():
        try:
            require_finite(matcher, template, [row.name for row in rows])
        except ReidError as error:
            raise DataError(f"{path.absolute()} is damaged: {error}") from None
    return rows, {name: dict(template) for name, template in parts.items()}, made_by


def check_templates(folder: Path, matcher: str, template: Template, specs: Specs) -> None:
    """Raise DataError if the templates of an index are not what the matcher declares: its keys, and
    the shape and dtype of each."""

    def named(keys: Iterable[str]) -> str:
        return ", ".join(one_line_of(f"{matcher}.{key}") for key in keys) or "none"

    path = (folder / TEMPLATES).absolute()
    if set(template) != set(specs):
        raise DataError(
            f"{path} is damaged: it has the templates {named(template)}, expected {named(specs)}"
        )
    for key, spec in specs.items():
        found = template[key]
        kind, shape = str(found.dtype).removeprefix("torch."), tuple(found.shape[1:])
        if kind != spec.dtype or shape != tuple(spec.shape):
            raise DataError(
                f"{path} is damaged: the template {named([key])} is {kind} {list(shape)} of each "
                f"picture, expected {spec.dtype} {list(spec.shape)}"
            )


def _digest(folder: Path) -> str:
    return sha256((folder / "manifest.csv").read_bytes()).hexdigest()


def _check_manifest(folder: Path, digest: str | None, metadata: Mapping[str, str]) -> None:
    """Raise DataError if the three files are not of one index. An older index has no digest.

    digest: that of manifest.csv, as index.json has it.
    """
    own = _digest(folder)
    for file, known in ((INDEX, digest), (TEMPLATES, metadata.get("manifest"))):
        if known not in (None, own):
            raise DataError(
                f"{folder.absolute()}: manifest.csv is not the one that {file} was written with, "
                "so templates would stand for other pictures; put the file back as it was, or "
                "index the pictures again"
            )
    if (digest is None) != ("manifest" not in metadata):
        raise DataError(
            f"{folder.absolute()}: {INDEX} and {TEMPLATES} are not of one index; put the files "
            "back as they were, or index the pictures again"
        )
