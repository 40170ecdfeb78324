"""The command `reid export`: its options and steps. Torch-free at import."""

from __future__ import annotations

import argparse
import importlib.util
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from reidcore.api import how_to_install
from reidcore.errors import UsageError
from reidcore.tools import check_new, read_record

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "reid_runtime")


def add_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add the command's options; return what runs it."""
    parser.description = (
        "Write the network and the distance of a trained run as graphs that need no reidcore: "
        "uint8 pictures to templates, and templates to distances, both for any number of "
        "pictures. Before the folder appears, the graphs' numbers are compared with the run's."
    )
    parser.add_argument("folder", type=Path, metavar="RUN_DIR", help="a finished run")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the folder to make"
    )
    parser.add_argument(
        "--format",
        choices=("onnx", "torch"),
        default="onnx",
        help="ONNX, which reid-runtime reads, or programs of torch.export (default onnx)",
    )
    parser.add_argument(
        "--ranking", default="", metavar="NAME", help="a ranking of the run (default its first)"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--half", action="store_true", help="a backbone of 16-bit numbers")
    size.add_argument(
        "--int8", action="store_true", help="a network of 8-bit numbers, calibrated on pictures"
    )
    parser.add_argument("--opset", type=int, metavar="N", help="of ONNX (default 20)")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="PICTURES",
        help="a folder, zip or CSV file to calibrate --int8 and to compare numbers with, in place "
        "of the run's training and test pictures",
    )
    parser.add_argument(
        "--license", default="", metavar="TEXT", help="of the weights, for the manifest"
    )
    parser.add_argument(
        "--tolerance",
        type=_fraction,
        metavar="X",
        help="the largest difference, as a share of the largest number, that is not refused "
        "(default 0.001, with --half 0.1, with --int8 1)",
    )
    parser.add_argument(
        "--no-lists", action="store_true", help="do not compare ranked lists of the test set"
    )
    return export


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0 or math.isinf(value):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def export(options: Namespace) -> int:
    """Export the run; returns 0 or raises `ReidError`."""
    check_new(options.output)
    _check(options)
    record = read_record(options.folder)
    if not record.get("finished"):
        raise UsageError(
            f"the run in {options.folder} is unfinished; go on with it by --resume first"
        )
    from reid_export.exporting import write_export

    write_export(options)
    return 0


def _check(options: Namespace) -> None:
    """Refuses what cannot be done before any work."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise UsageError(
            f"`reid export` needs {', '.join(absent)}, not installed here. To install: "
            + how_to_install("reid-plugin-export")
        )
    if options.format == "torch":
        if options.int8:
            raise UsageError("--int8 is for --format onnx alone")
        if options.opset is not None:
            raise UsageError("--opset is for --format onnx alone")
        return
    if options.opset is not None:
        from reid_export.onnx_files import check_opset

        check_opset(options.opset)
