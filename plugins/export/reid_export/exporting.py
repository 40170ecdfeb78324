"""Exports a run: graphs are traced, written, compared with the run, and described."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.export import ExportedProgram

from reid_export.compare import compare
from reid_export.graphs import Graphs, OnnxGraphs, TorchGraphs
from reid_export.manifest import Written, make_manifest, sealed
from reid_export.onnx_files import OPSET, drop_unread, quantize, quiet, write_onnx
from reid_export.pictures import (
    Pictures,
    calibration_pictures,
    compared_pictures,
    network_inputs,
    numbers_of,
)
from reid_export.tracing import pair_bytes, trace_distances, trace_templates
from reidcore.errors import UsageError, nearest
from reidcore.modules import at_least_float32
from reidcore.tools import (
    DistanceModule,
    Reporter,
    Search,
    TemplateModule,
    load,
    new_folder,
    ranking_modules,
    read_record,
    reporter,
    write_json,
)

INPUTS = "pictures", "modality", "camera"
TOGETHER = 16
"""Pictures of a batch while 8 bits are calibrated."""
SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}


def write_export(options: Namespace) -> None:
    """Write the folder of an export; nothing is left of it where the numbers differ too much."""
    search = load(options.folder, device="cpu")
    ranking = _ranking(search, options.ranking)
    shown = reporter()
    try:
        if ranking.post:
            shown.say(
                f"note: the postprocessors of ranking {ranking.name!r} are left out: "
                f"{', '.join(ranking.post)}"
            )
        with new_folder(options.output) as folder:
            _write(options, search, ranking, folder, shown)
        shown.say(f"wrote {options.output}")
    finally:
        shown.close()


def _ranking(search: Search, name: str) -> Any:
    for ranking in search.plan.rankings:
        if name in ("", ranking.name):
            return ranking
    raise UsageError(
        f"--ranking {name}: the run has no such ranking{nearest(name, search.rankings)}; there are "
        f"{', '.join(search.rankings)}"
    )


def _write(options: Namespace, search: Search, ranking: Any, folder: Path, shown: Reporter) -> None:
    templates, distances, coarse = ranking_modules(search.model, ranking)
    precision = "float16" if options.half else "int8" if options.int8 else "float32"
    numbers = numbers_of(read_record(search.folder))
    pictures = compared_pictures(search, options.pictures)
    files = _Files(folder, options.format, options.opset or OPSET)
    shown.working("tracing the network")
    traced = templates
    if options.half:
        traced = TemplateModule(_halved(search.model), templates.matchers)
    program = trace_templates(traced)
    graphs = {"extractor": files.write("extractor", program, (INPUTS, templates.names))}
    inputs: tuple[str, ...] = INPUTS
    if options.format == "onnx":
        path = folder / graphs["extractor"]["file"]
        inputs = drop_unread(path)
        if options.int8:
            shown.working("calibrating 8 bits")
            _quantize(path, calibration_pictures(search, options.pictures), search, numbers, inputs)
    for name, module in (("matcher", distances), ("shortlist", coarse)):
        if module is not None:
            shown.working(f"tracing the {name}")
            graphs[name] = files.write_distances(name, module, templates.specs)
    if ranking.shortlist is not None:
        graphs["shortlist"]["top"] = ranking.shortlist.top
    for said in graphs.values():
        said["sha256"] = sha256((folder / said["file"]).read_bytes()).hexdigest()
        said["bytes"] = (folder / said["file"]).stat().st_size
    written = Written(options.format, precision, graphs, templates, distances)
    known = {kind: numbers[kind] for kind in inputs if kind in numbers}
    manifest = make_manifest(search, ranking, written, known, options.license)
    write_json(folder / "export.json", sealed(manifest))
    size = sum(said["bytes"] for said in graphs.values()) / 2**20
    shown.say(f"{search.plan.runfile.name}, ranking {ranking.name}: {size:.1f} MB, {precision}")
    opened: Graphs = (
        OnnxGraphs(folder) if options.format == "onnx" else TorchGraphs(folder, search, manifest)
    )
    found = compare(options, search, ranking, opened, pictures, precision, shown)
    write_json(folder / "export.json", sealed({**manifest, "verification": found}))


def _halved(model: Any) -> Any:
    """A copy of a model whose backbone computes in 16 bits. Heads, small beside it, keep 32: some
    convert what they are given, so that their own numbers must match."""
    made = copy.deepcopy(model)
    made.backbone.half()
    for head in made.heads.values():
        head.register_forward_pre_hook(_widened)
    return made


def _widened(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a head is given, (features, images), with features of 32 bits."""
    features, *rest = given
    return {name: at_least_float32(value) for name, value in features.items()}, *rest


def _quantize(
    path: Path,
    pictures: Pictures,
    search: Search,
    numbers: Mapping[str, Mapping[str, int]],
    inputs: Sequence[str],
) -> None:
    batches = []
    for start in range(0, len(pictures), TOGETHER):
        some = attrs.evolve(pictures, rows=pictures.rows[start : start + TOGETHER])
        given = network_inputs(some, search, numbers)
        batches.append({name: given[name] for name in inputs})
    quantize(path, batches)


@attrs.frozen
class _Files:
    """Where graphs are written and how."""

    folder: Path
    kind: str
    opset: int

    def write(
        self, name: str, program: ExportedProgram, names: tuple[Sequence[str], Sequence[str]]
    ) -> dict[str, Any]:
        """Write a graph and return what the manifest says of it."""
        file = name + SUFFIX[self.kind]
        if self.kind == "torch":
            with quiet():
                torch.export.save(program, self.folder / file)
            return {"file": file}
        write_onnx(program, self.folder / file, names, self.opset)
        return {"file": file, "opset": self.opset}

    def write_distances(
        self, name: str, module: DistanceModule, specs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write the graph of distances."""
        program = trace_distances(module, specs)
        inputs = [f"{side}.{key}" for side in ("a", "b") for key in module.names]
        said = self.write(name, program, (inputs, ("distances",)))
        return {**said, "pair_bytes": pair_bytes(program), "whole_gallery": module.whole_gallery}
