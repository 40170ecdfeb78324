"""Programs of `torch.export` as ONNX files, and 8-bit ones."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch.export import ExportedProgram

from reid_export.tracing import one_line
from reidcore.errors import UsageError

OPSET, LEAST_OPSET, LARGEST_OPSET = 20, 18, 23
"""The opset that is written, and those that torch's exporter can write."""


def check_opset(opset: int) -> None:
    """Raise UsageError for an opset that cannot be written."""
    if not LEAST_OPSET <= opset <= LARGEST_OPSET:
        raise UsageError(
            f"--opset must be from {LEAST_OPSET} to {LARGEST_OPSET}, which torch's exporter "
            f"writes, got {opset}"
        )


def write_onnx(
    program: ExportedProgram,
    path: Path,
    names: tuple[Sequence[str], Sequence[str]],
    opset: int,
) -> None:
    """Write a program as an ONNX file.

    names: of the inputs and of the outputs. Raises UsageError naming the part whose operation ONNX
    does not have.
    """
    import torch

    inputs, outputs = names
    with quiet():
        try:
            found: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=opset,
                verbose=False,
            )
        except Exception as error:
            raise _untranslated(program, error) from error
        found.save(str(path), external_data=False)


def drop_unread(path: Path) -> tuple[str, ...]:
    """Remove from an ONNX file the inputs that nothing reads; return the names of the others."""
    model = onnx.load(path)
    read = {name for node in model.graph.node for name in node.input}
    kept = [one for one in model.graph.input if one.name in read]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    onnx.save(model, path)
    return tuple(one.name for one in kept)


def _untranslated(program: ExportedProgram, error: BaseException) -> UsageError:
    """Return the error for an operation that ONNX does not have, with the module it stands in."""
    deepest = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    missing = re.search(r"OpOverload\(op='([^']+)'", str(deepest))
    if missing is None:
        return UsageError(f"the run cannot be exported to ONNX: {one_line(deepest)}")
    # What is missing may be a piece of the operation that stands in the program.
    operation = missing[1].split(".")[1]
    nodes = (node for node in program.graph.nodes if operation in str(node.target))
    stacks = (node.meta.get("nn_module_stack", {}).values() for node in nodes)
    paths = next(([path for path, _ in stack if path] for stack in stacks), [])
    role = paths[-1].removeprefix("module.").removeprefix("model.") if paths else "the run"
    kind, _, name = role.partition("_")
    if kind in ("head", "matcher"):
        role = f"{kind} {name.partition('.')[0]!r}"
    return UsageError(
        f"{role} cannot be exported to ONNX, which has no operation for torch's {missing[1]}; "
        "--format torch keeps it"
    )


class Calibration:
    """Batches of pictures for onnxruntime's calibration, of which each is asked once.

    batches: {input: array} of each.
    """

    def __init__(self, batches: Sequence[dict[str, np.ndarray]]):
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)


def quantize(path: Path, batches: Sequence[dict[str, np.ndarray]]) -> None:
    """Make the convolutions and products of an ONNX file 8-bit, in its place: weights by channel,
    activations by the ranges that these batches have. The first convolution and depthwise ones,
    which are few of the weights and most of the error, keep their 32 bits."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    made = path.with_suffix(".float.onnx")
    with quiet():
        quant_pre_process(str(path), str(made), skip_symbolic_shape=True)
        quantize_static(
            str(made),
            str(path),
            Calibration(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=_sensitive(made),
            per_channel=True,
            # Products of unsigned and signed numbers overflow on processors without VNNI.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
        )
    os.remove(made)


def _sensitive(path: Path) -> list[str]:
    """Return the names of the first convolution and of those with groups."""
    found = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    grouped = (
        node
        for node in found[1:]
        if any(one.name == "group" and one.i > 1 for one in node.attribute)
    )
    return [node.name for node in (*found[:1], *grouped)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters say to developers from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
