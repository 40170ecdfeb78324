"""The command `reid data index`: the manifest of a folder of pictures."""

from __future__ import annotations

import argparse
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reidcore.cli.as_json import add_json, print_json
from reidcore.cli.data_sets import (
    add_reader,
    check_sets,
    counted,
    counts_as_data,
    locate,
    print_counts,
    read_rows,
)
from reidcore.contracts.commands import RunCommand

if TYPE_CHECKING:
    from reidcore.contracts.component import Row
    from reidcore.data.index import Index


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Write the manifest (CSV: path,pid,camera,split) of a folder or zip of pictures,\n"
        "from their names, or of a published data set, from its reader; or draw the splits\n"
        "of a list that has none. Pictures are not opened; `reid data check` does that."
    )
    parser.epilog = (
        "patterns:\n"
        "  Fields: {pid} (needed) {camera} {time} (seconds) {modality} {split}.\n"
        "  * stands for any characters, ? for one, none of them for '/'; **/ for any\n"
        "  sub-folders. Fields and * take as few characters as possible, from the left.\n"
        "\n"
        "splits:\n"
        "  Without --split and {split} every picture is 'train'. With --split, identities\n"
        "  are divided: one side is 'train', the other is 'query' (one picture from each of\n"
        "  an identity's cameras) and 'gallery' (the rest). Every query has a match in\n"
        "  another camera, or in another picture where the pattern has no {camera};\n"
        "  identities without such a match are in the gallery only.\n"
        "\n"
        "examples:\n"
        "  reid data index people --split 0.5\n"
        "  reid data index shots --pattern '{pid}_c{camera}_*.jpg' --split 0.7\n"
        "  reid data index cars --pattern '{split}/cam{camera}/{pid}_*.png' -o cars.csv\n"
        "  reid data index list.csv --split 0.5 -o people.csv\n"
        "  reid data index shots.zip --pattern '{pid}_c{camera}_*.jpg' --split 0.5\n"
        "  reid data index frames --read core.coco --set camera=camera_id -o boxes.csv\n"
        "  reid data index Market-1501-v15.09.15 --read core.market1501"
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="folder, with sub-folders, or zip, or a CSV list"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the manifest to write (default: FOLDER/manifest.csv, or beside a zip)",
    )
    parser.add_argument(
        "--pattern",
        metavar="TEXT",
        help="layout of the paths below FOLDER (default: '{pid}/*', one folder per identity)",
    )
    parser.add_argument(
        "--split",
        metavar="FRACTION",
        type=_fraction,
        help="fraction of the identities that trains, 0 to 1; 0 makes a pure test set "
        "(default: every picture is 'train')",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="seed of the split (default: 0)"
    )
    add_reader(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing manifest")
    add_json(parser)
    return index_command


def index_command(options: Namespace) -> int:
    """`reid data index`; returns 0 or raises `ReidError`."""
    from reidcore.data.check import count_rows
    from reidcore.data.index import ONE_FOLDER_EACH, Index, compile_pattern, index_folder
    from reidcore.data.manifest import read_manifest, write_manifest
    from reidcore.errors import UsageError
    from reidcore.support.files import check_output

    check_sets(options)
    if options.read is not None and (options.pattern is not None or options.split is not None):
        raise UsageError("a reader knows names and splits; leave away --pattern and --split")
    pattern = options.pattern if options.pattern is not None else ONE_FOLDER_EACH
    compile_pattern(pattern)
    if options.split is not None and "{split}" in pattern:
        raise UsageError("--split draws the splits, but the pattern reads them with {split}")
    folder = locate(options.folder)
    if is_list(folder):
        _check_list(options, folder)
    beside = folder.with_suffix(".csv") if folder.is_file() else folder / "manifest.csv"
    output = Path(options.output).absolute() if options.output else beside
    if os.path.isdir(output):
        raise UsageError(f"{output} is a folder; -o takes the manifest's file name")
    if os.path.exists(output) and not options.force:
        raise UsageError(f"{output} exists already; replace it with --force, or choose -o FILE")
    if options.output:
        check_output(output)
    notes: list[str] = []
    if options.read is not None:
        rows = _rows_of_reader(options, folder)
    elif is_list(folder):
        index = Index(read_manifest(folder, split="train"), unmatched=[], others=0)
        rows, notes = _with_splits(options, index, folder, "")
    else:
        rows, notes = _with_splits(options, index_folder(folder, pattern), folder, pattern)
    write_manifest(output, rows)
    counts = count_rows(rows)
    if options.json:
        found = {"manifest": str(output), "splits": counts_as_data(counts), "notes": notes}
        print_json(found)
        return 0
    print_counts(counts)
    for note in notes:
        print(note)
    print(f"wrote {output}")
    return 0


def is_list(place: Path) -> bool:
    """Return whether a place is a CSV file, which lists pictures."""
    return place.is_file() and place.suffix.lower() == ".csv"


def _check_list(options: Namespace, place: Path) -> None:
    """Raise UsageError for options that a list cannot have, and without those that it needs."""
    from reidcore.errors import UsageError

    if options.split is None or options.output is None or options.pattern is not None:
        raise UsageError(
            f"{place} is a list already. To draw train, query and gallery of its identities, write "
            f"another one: reid data index {options.folder} --split 0.5 -o NEW.csv"
        )
    if options.read is not None:
        raise UsageError(f"{place} is a list; --read takes a data set's folder")
    if os.path.exists(options.output) and os.path.samefile(options.output, place):
        raise UsageError(f"-o names the list itself, {place}; name another file")


def _rows_of_reader(options: Namespace, folder: Path) -> list[Row]:
    """The rows of the reader that is named; UsageError if a manifest cannot say them."""
    from reidcore.data.opening import has_path
    from reidcore.errors import UsageError

    rows = read_rows(options.read, options.reader_sets, folder)
    if own := [row for row in rows if not has_path(row)]:
        raise UsageError(
            f"{counted(len(own), 'picture')} of {options.read}, such as {own[0].name}, can be "
            "opened by the reader only, which a manifest cannot say; name the reader in the "
            "run file instead"
        )
    return rows


def _with_splits(
    options: Namespace, index: Index, folder: Path, pattern: str
) -> tuple[list[Row], list[str]]:
    """The rows, with drawn splits if so asked, and notes on what is left out or odd."""
    from reidcore.data.index import some
    from reidcore.data.labels import is_junk, nobody_warnings, same_number_warnings
    from reidcore.data.splits import draw_splits
    from reidcore.errors import DataError

    junk = [row for row in index.rows if is_junk(row.pid)]
    rows = [row for row in index.rows if not is_junk(row.pid)]
    if not rows:
        fit = f"under {folder} that fit {pattern!r}" if pattern else f"in {folder}"
        raise DataError(
            f"all {counted(len(junk), 'picture')} {fit} have the "
            f"identity {junk[0].pid!r}, which is junk in Market-1501; give them another name"
        )
    without: Sequence[str] = ()
    if options.split is not None:
        draw = draw_splits(rows, options.split, options.seed)
        rows, without = list(draw.rows), draw.without_query

    notes = []
    if index.unmatched:
        notes.append(
            f"left out: {counted(len(index.unmatched), 'picture')} that did not fit "
            f"{pattern!r}: {some(index.unmatched)}"
        )
    if junk:
        notes.append(
            f"left out: {counted(len(junk), 'picture')} of identity {junk[0].pid!r}, which is junk "
            f"in Market-1501, not one person: {some([row.listed for row in junk])}"
        )
    warnings = (*nobody_warnings(rows), *same_number_warnings(rows))
    notes += [f"warning: {text}" for text in warnings]
    if index.others:
        notes.append(f"left out: {counted(index.others, 'file')} without a picture's ending")
    if without:
        reason = "one camera" if any(row.camera for row in rows) else "one picture"
        notes.append(
            f"{counted(len(without), 'test identity', 'test identities')} with only {reason} "
            f"(gallery, no query): {some(without)}"
        )
    if options.split is not None and options.split < 1 and all(r.split != "query" for r in rows):
        notes.append("warning: there is no query, so this data set cannot be evaluated")
    if options.split is None and "{split}" not in pattern:
        half = "--split 0.5 keeps half of the identities for testing"
        notes.append(f"every picture is 'train'; {half}")
    return rows, notes


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction from 0 to 1, got {text!r}")
    return value
