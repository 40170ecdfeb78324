"""`reid index`: keep the templates of a gallery for later ranking."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from reidcore.cli.data_sets import add_reader, pictures
from reidcore.cli.options import (
    PICTURES,
    add_device,
    add_evaluation,
    add_run_folder,
)
from reidcore.contracts.commands import RunCommand


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Compute the templates of a gallery's pictures once and keep them in a folder, for reid "
        "rank --gallery."
    )
    add_run_folder(parser)
    parser.add_argument("pictures", type=Path, metavar="PICTURES", help=PICTURES)
    add_reader(parser, "--set-reader")
    add_evaluation(parser)
    add_device(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the folder to make"
    )
    return index_command


def index_command(options: Namespace) -> int:
    """`reid index`; returns 0 or raises `ReidError`."""
    from reidcore.support.files import check_new

    check_new(options.output)  # before torch is imported
    from reidcore.search.search import load

    run = load(options.folder, options.file, options.device)
    started = time.monotonic()
    found = run.index(pictures(options, options.pictures, "gallery"), options.output)
    seconds = time.monotonic() - started
    size = sum(value.nbytes for part in found.parts.values() for value in part.values())
    print(
        f"wrote {options.output}: {len(found)} pictures, {size / 2**20:.1f} MiB of templates, "
        f"{len(found) / max(seconds, 1e-9):.0f} pictures/s"
    )
    return 0
