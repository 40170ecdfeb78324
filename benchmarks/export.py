"""Exports of trained runs beside torch: sizes, differences, times, ranked lists, and scores.

    OMP_NUM_THREADS=1 python benchmarks/export.py RUN_DIR... [--formats onnx torch half int8]
    OMP_NUM_THREADS=1 python benchmarks/export.py RUN_DIR --resize
    OMP_NUM_THREADS=1 python benchmarks/export.py RUN_DIR --scores [--set KEY=VALUE]

The first exports every run in every format and tells the milliseconds of one picture and of 32, of
the export and of torch, on one thread: medians of 7 in turns, in seconds of the process, so that
other jobs on the machine hardly count. `--resize` compares Pillow's resizing with that of a graph.
`--scores` tells the mAP of a test set by the run and by its exports, on vectors and matchers of the
first ranking.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from PIL import Image
from startup import processor

from reid_runtime import Embedder, Matcher
from reidcore.cli.main import main as reid
from reidcore.tools import (
    DistanceBlock,
    Silent,
    load,
    open_evaluation,
    open_picture,
    ranking_modules,
)

FORMATS = {
    "onnx": [],
    "torch": ["--format", "torch"],
    "half": ["--half"],
    "int8": ["--int8"],
}
REPEATS = 7


def exported(run: Path, options: list[str], folder: Path) -> str:
    """Export a run; return what went wrong, "" if nothing."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = reid(["export", str(run), "-o", str(folder), *options])
    return "" if code == 0 else said.getvalue().strip().splitlines()[-1][:160]


def milliseconds(*calls: Callable[[], object]) -> list[float]:
    """Return the median of each call, which take turns."""
    seconds: list[list[float]] = [[] for _ in calls]
    for repeat in range(REPEATS + 1):
        for call, found in zip(calls, seconds, strict=True):
            start = time.process_time()
            call()
            if repeat:
                found.append(time.process_time() - start)
    return [1000 * statistics.median(found) for found in seconds]


def times(run: Path, folder: Path, manifest: dict) -> list[float]:
    """Return (export's, torch's) milliseconds of one picture, then of 32."""
    search = load(run, device="cpu")
    module = ranking_modules(search.model, search.plan.rankings[0])[0].eval()
    draw = np.random.default_rng(0)
    found = []
    for count in (1, 32):
        shape = (count, *manifest["preprocessing"]["size"], 3)
        pictures = draw.integers(0, 256, shape, dtype=np.uint8)
        zeros = np.zeros(count, np.int64)
        given = {"pictures": pictures, "modality": zeros, "camera": zeros - 1}
        tensors = [torch.from_numpy(value) for value in given.values()]
        if manifest["kind"] == "torch":
            program = torch.export.load(folder / "extractor.pt2").module()
            own = lambda program=program, tensors=tensors: program(*tensors)  # noqa: E731
        else:
            session = Embedder(folder, threads=1)._session
            asked = {name: given[name] for name in manifest["inputs"]}
            own = lambda session=session, asked=asked: session.run(None, asked)  # noqa: E731
        with torch.no_grad():
            found += milliseconds(own, lambda tensors=tensors: module(*tensors))
    return found


def table(runs: list[Path], formats: list[str]) -> None:
    """Print a line for each run and format."""
    print("run  format  MB  difference  distances  export 1  torch 1  export 32  torch 32  lists")
    for run in runs:
        for name in formats:
            with tempfile.TemporaryDirectory() as above:
                folder = Path(above, "export")
                if wrong := exported(run, FORMATS[name], folder):
                    print(f"{run.name}  {name}  {wrong}", flush=True)
                    continue
                manifest = json.loads((folder / "export.json").read_text())
                found = manifest["verification"]["largest_differences"]
                share = {key: one["difference"] / one["of"] for key, one in found.items()}
                distances = share.pop("distances")
                size = sum(one["bytes"] for one in manifest["graphs"].values()) / 2**20
                lists = manifest["verification"]["lists"]
                equal = 100 * lists["equal"] / lists["queries"]
                each = "  ".join(f"{value:.1f}" for value in times(run, folder, manifest))
                print(
                    f"{run.name}  {name}  {size:.1f}  {max(share.values()):.1e}  {distances:.1e}  "
                    f"{each}  {equal:.1f} %",
                    flush=True,
                )


def resizing(run: Path) -> None:
    """Print what a graph that resizes would change."""
    rows = next(iter(open_evaluation(run).test_sets.values()))[:200]
    search = load(run, device="cpu")
    height, width = search.plan.runfile.data.image
    how = Image.Resampling[search.plan.runfile.data.interpolation.upper()]
    mode = {"bilinear": "linear", "bicubic": "cubic"}[search.plan.runfile.data.interpolation]
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 3, height, width])
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode=mode, antialias=1, cubic_coeff_a=-0.5
    )
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, height, width])],
        [sizes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    pictures = [open_picture(row) for row in rows]

    def by_pillow() -> list[np.ndarray]:
        return [np.asarray(one.resize((width, height), how)) for one in pictures]

    def by_graph() -> list[np.ndarray]:
        found = []
        for one in pictures:
            pixels = np.asarray(one).transpose(2, 0, 1)[None].astype(np.float32)
            (made,) = session.run(None, {"x": pixels})
            found.append(made[0].transpose(1, 2, 0).round().clip(0, 255).astype(np.uint8))
        return found

    ours, theirs = by_pillow(), by_graph()
    apart = np.abs(np.stack(ours).astype(int) - np.stack(theirs))
    print(f"pixels: {100 * (apart > 0).mean():.1f} % differ, by at most {apart.max()} of 255")
    a, b = (search.templates(list(map(Image.fromarray, side))) for side in (ours, theirs))
    for matcher, template in a.parts.items():
        for key, value in template.items():
            difference = (value - b.parts[matcher][key]).abs().max() / value.abs().max()
            print(f"{matcher}.{key}: largest difference {difference:.1e} of the largest number")
    pillow, graph_time = (value / len(rows) for value in milliseconds(by_pillow, by_graph))
    print(f"Pillow {pillow:.2f} ms a picture, the graph {graph_time:.2f}")


def scores(run: Path, sets: list[str], formats: list[str]) -> None:
    """Print the mAP of the first test set by the run and by its exports."""
    evaluation = open_evaluation(run, sets=sets, ranking=load(run, device="cpu").rankings[0])
    rows = next(iter(evaluation.test_sets.values()))
    blocks: list[DistanceBlock] = []

    def watch(block: DistanceBlock) -> None:
        if block.place[2] == "plain":
            blocks.append(block)

    evaluation.scores(evaluation.load_model("cpu"), Silent(), watch)
    first = blocks[0].place
    blocks = [block for block in blocks if block.place == first]
    print(f"{first[0]}, {len(rows)} pictures; torch: mAP {mean_precision(blocks, None):.2f}")
    pictures = [open_picture(row) for row in rows]
    for name in formats:
        with tempfile.TemporaryDirectory() as above:
            folder = Path(above, "export")
            if wrong := exported(run, [*FORMATS[name], "--no-lists", "--tolerance", "10"], folder):
                print(f"{name}: {wrong}")
                continue
            found = Embedder(folder, threads=1).templates(pictures)
            matcher = Matcher(folder, threads=1)
            print(f"{name}: mAP {mean_precision(blocks, (found, matcher)):.2f}", flush=True)


def mean_precision(blocks: list[DistanceBlock], by: tuple | None) -> float:
    """Return the mAP, in percent, by the blocks' distances or those of an export."""
    every = []
    for block in blocks:
        start, stop = block.start, block.start + len(block.distances)
        distances = block.distances.numpy()
        if by is not None:
            found, matcher = by
            sides = (block.trial.query[start:stop].numpy(), block.trial.gallery.numpy())
            a, b = ({name: value[side] for name, value in found.items()} for side in sides)
            distances = matcher(a, b)
        match, ignored = (mask.numpy() for mask in block.judged.masks())
        for row in range(len(distances)):
            kept = ~ignored[row]
            hits = match[row][kept][np.argsort(distances[row][kept], kind="stable")]
            places = np.flatnonzero(hits)
            if len(places):
                every.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
    return 100 * float(np.mean(every))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--resize", action="store_true")
    parser.add_argument("--scores", action="store_true")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")
    if options.resize:
        resizing(options.runs[0])
    elif options.scores:
        scores(options.runs[0], options.sets, [x for x in options.formats if x != "torch"])
    else:
        table(options.runs, options.formats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
