"""The command `reid data`: listing and checking one's own pictures."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reidcore.contracts.component import Row
    from reidcore.data.check import Counts, Findings

_SHOWN = 10  # findings of one kind that are printed without --all
_SECONDS = 10.0  # between two lines of progress, where stdout is no terminal


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """Add the command `data`; returns its own subparsers, to which further commands can be added.

    Every command sets `func(options) -> exit code`, which may raise `ReidError`.
    """
    data = subparsers.add_parser(
        "data",
        help="list, check or make a data set",
        description="List, check or make a data set.",
    )
    commands = data.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    _add_index(commands)
    _add_check(commands)
    return commands


def _add_index(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    index = commands.add_parser(
        "index",
        help="write the manifest of a folder of pictures",
        description=(
            "Write the manifest (CSV: path,pid,camera,split) of a folder of pictures, from\n"
            "their names, or of a published data set, from its reader. Pictures are not opened;\n"
            "`reid data check` does that."
        ),
        epilog=(
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
            "  reid data index Market-1501-v15.09.15 --read core.market1501"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    index.add_argument("folder", metavar="FOLDER", help="folder of pictures, with sub-folders")
    index.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the manifest to write (default: FOLDER/manifest.csv)",
    )
    index.add_argument(
        "--pattern",
        metavar="TEXT",
        help="layout of the paths below FOLDER (default: '{pid}/*', one folder per identity)",
    )
    index.add_argument(
        "--split",
        metavar="FRACTION",
        type=_fraction,
        help="fraction of the identities that trains, 0 to 1; 0 makes a pure test set "
        "(default: every picture is 'train')",
    )
    index.add_argument(
        "--seed", metavar="N", type=int, default=0, help="seed of the split (default: 0)"
    )
    _add_reader(index)
    index.add_argument("--force", action="store_true", help="replace an existing manifest")
    index.set_defaults(func=run_index)


def _add_reader(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--read",
        metavar="READER",
        help="the reader of the published data set in the folder, such as core.market1501, which "
        "knows its names and numbers",
    )
    command.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the reader, such as counts=any",
    )


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check",
        help="find damaged pictures and queries that can never match",
        description=(
            "Read every picture of a manifest and check that each query has a match. The exit code "
            "is 0 if the data can be used, 4 if a picture is missing or damaged or a query can "
            "never match. Identities seen by one camera, identical files under two identities and "
            "identities both in train and test are warnings only."
        ),
    )
    check.add_argument(
        "manifest",
        metavar="MANIFEST",
        help="CSV file, a folder that holds manifest.csv, or with --read a data set's folder",
    )
    _add_reader(check)
    check.add_argument(
        "--fast",
        action="store_true",
        help="only look whether the pictures exist and are not empty; identical files are not "
        "looked for",
    )
    check.add_argument(
        "--all", action="store_true", help=f"list all findings, not the first {_SHOWN} of a kind"
    )
    check.set_defaults(func=run_check)


def run_index(options: argparse.Namespace) -> int:
    """`reid data index`; returns 0 or raises `ReidError`."""
    from reidcore.data.check import count_rows
    from reidcore.data.index import ONE_FOLDER_EACH, compile_pattern, index_folder, some
    from reidcore.data.manifest import write_manifest
    from reidcore.data.splits import draw_splits
    from reidcore.errors import UsageError

    _check_sets(options)
    if options.read is not None and (options.pattern is not None or options.split is not None):
        raise UsageError("a reader knows names and splits; leave away --pattern and --split")
    pattern = options.pattern if options.pattern is not None else ONE_FOLDER_EACH
    compile_pattern(pattern)
    if options.split is not None and "{split}" in pattern:
        raise UsageError("--split draws the splits, but the pattern reads them with {split}")
    folder = _locate(options.folder)
    output = Path(options.output).absolute() if options.output else folder / "manifest.csv"
    if output.is_dir():
        raise UsageError(f"{output} is a folder; -o takes the manifest's file name")
    if output.exists() and not options.force:
        raise UsageError(f"{output} exists already; replace it with --force, or choose -o FILE")
    if options.read is not None:
        rows = _read(options.read, options.sets, folder)
        write_manifest(output, rows)
        _print_counts(count_rows(rows))
        print(f"wrote {output}")
        return 0

    index = index_folder(folder, pattern)
    rows = index.rows
    without: Sequence[str] = ()
    if options.split is not None:
        draw = draw_splits(rows, options.split, options.seed)
        rows, without = draw.rows, draw.without_query
    write_manifest(output, rows)

    _print_counts(count_rows(rows))
    if index.unmatched:
        print(
            f"left out: {_number(len(index.unmatched), 'picture')} that did not fit "
            f"{pattern!r}: {some(index.unmatched)}"
        )
    if index.others:
        print(f"left out: {_number(index.others, 'file')} without a picture's ending")
    if without:
        reason = "one camera" if any(row.camera for row in rows) else "one picture"
        print(
            f"{_number(len(without), 'test identity', 'test identities')} with only {reason} "
            f"(gallery, no query): {some(without)}"
        )
    if options.split is not None and options.split < 1 and all(r.split != "query" for r in rows):
        print("warning: there is no query, so this data set cannot be evaluated")
    if options.split is None and "{split}" not in pattern:
        print("every picture is 'train'; --split 0.5 keeps half of the identities for testing")
    print(f"wrote {output}")
    return 0


def _check_sets(options: argparse.Namespace) -> None:
    from reidcore.errors import UsageError

    if options.read is None and options.sets:
        raise UsageError("--set changes a key of a reader, which --read names")


def _read(reader: str, sets: Sequence[str], folder: Path) -> list[Row]:
    """What the reader of this full name finds in `folder`."""
    from reidcore.errors import DataError
    from reidcore.plugins.loading import Plugins

    config = configured(Plugins().component("reader", reader).component.config, sets)
    try:
        return list(config.rows(folder))
    except OSError as error:
        raise DataError(f"{folder}: {error}") from error


def configured(config: type, sets: Sequence[str]) -> Any:
    """An instance of a reader's class with the keys that `--set` gives. Raises `RunFileError`."""
    from reidcore.errors import RunFileError
    from reidcore.runfiles.overrides import apply_sets
    from reidcore.runfiles.strict import structure
    from reidcore.runfiles.value_words import dotted

    table: dict[str, Any] = {"data": {}}
    apply_sets(table, [f"data.{item}" for item in sets])
    made, faults = structure(config, table["data"])
    if made is None:
        raise RunFileError(
            f"--set: {fault.text}{' at ' + dotted(fault.path) if fault.path else ''}"
            for fault in faults
        )
    return made


def run_check(options: argparse.Namespace) -> int:
    """`reid data check`; returns 0, or 4 if the data must be mended."""
    from reidcore.data.check import check_rows
    from reidcore.data.manifest import read_manifest, unused_columns
    from reidcore.errors import DataError

    _check_sets(options)
    path = _locate(options.manifest)
    if path.is_dir() and options.read is None:
        path /= "manifest.csv"
        if not path.exists():
            raise DataError(
                f"there is no {path}; make it with: reid data index {shlex.quote(options.manifest)}"
            )
    read = options.read is not None
    rows = _read(options.read, options.sets, path) if read else read_manifest(path)
    with _progress(len({row.path for row in rows})) as advance:
        report = check_rows(rows, decode=not options.fast, advance=advance)
    print(path)
    _print_counts(report.counts)
    if not read and (unused := unused_columns(path)):
        print(f"warning: columns that are not used: {'; '.join(unused)}")
    _print_report(report, None if options.all else _SHOWN)
    return DataError.exit_code if report.failed else 0


def _locate(text: str) -> Path:
    """What a command's argument names: as a shell would take it, or else under REID_DATA."""
    from reidcore.data.manifest import find_data
    from reidcore.errors import DataError

    here = Path(os.path.expanduser(text)).absolute()
    there = find_data(text)
    if here.exists():
        return here
    if there.exists():
        return there
    tried = str(here) if here == there else f"{here}, nor (REID_DATA) at {there}"
    raise DataError(f"{text!r} not found at {tried}")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction from 0 to 1, got {text!r}")
    return value


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _print_counts(counts: Mapping[str, Counts]) -> None:
    print(f"{'split':<8}{'pictures':>11}{'identities':>12}{'cameras':>9}")
    for split, held in counts.items():
        print(f"{split:<8}{held.pictures:>11,}{held.identities:>12,}{held.cameras or '-':>9}")


def _print_report(report: Findings, most: int | None) -> None:
    """Findings by kind, what must be mended last, so that it is what a terminal still shows."""
    identity = ("identity", "identities")
    _print_list("warning: {} in both train and test", identity, report.overlap, most)
    _print_list("warning: {} seen by one camera only", identity, report.one_camera, most)
    _print_list(
        "warning: {} under several identities",
        ("identical file", "identical files"),
        [
            " = ".join(f"{row.path} ({row.listed}, {row.pid})" for row in group)
            for group in report.duplicates
        ],
        most,
    )
    _print_list(
        "error: {} without a match",
        ("query", "queries"),
        [f"{found.row.listed}: {found.reason}" for found in report.unmatched],
        most,
    )
    _print_list(
        "error: {} missing or damaged",
        ("picture", "pictures"),
        [f"{found.row.listed}: {found.row.path} {found.reason}" for found in report.damaged],
        most,
    )
    if not report.failed:
        print("no errors")


def _print_list(title: str, noun: tuple[str, str], items: Sequence[str], most: int | None) -> None:
    if not items:
        return
    print(title.format(_number(len(items), *noun)))
    for item in items[:most]:
        print(f"  {item}")
    if most is not None and len(items) > most:
        print(f"  and {len(items) - most:,} more (--all lists them)")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Progress with rate and time left: a bar in a terminal, else a line every few seconds."""
    start = said = time.monotonic()
    done = 0

    def rate(count: int) -> float:
        nonlocal done
        done += count
        return done / max(time.monotonic() - start, 1e-6)

    if sys.stdout.isatty():
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        speed = TextColumn("{task.fields[rate]:,.0f}/s")
        columns = (BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
        with Progress(TextColumn("pictures"), *columns, transient=True) as bar:
            task = bar.add_task("", total=total, rate=0.0)
            yield lambda count: bar.update(task, advance=count, rate=rate(count))
        return

    def advance(count: int) -> None:
        nonlocal said
        speed = rate(count)
        now = time.monotonic()
        if now - said >= _SECONDS and done < total:
            said = now
            left = (total - done) / speed
            print(f"{done:,} of {total:,} pictures, {speed:,.0f}/s, {left:.0f} s left", flush=True)

    yield advance


def _data_demo(options: argparse.Namespace) -> int:
    from reidcore.builtin.readers.demo import Demo
    from reidcore.cli.data import configured
    from reidcore.errors import UsageError

    if options.folder.exists():
        raise UsageError(f"{options.folder.absolute()} exists already; name a new folder")
    rows = configured(Demo, options.sets).rows(options.folder)
    print(f"drew {len(rows)} pictures into {options.folder}")
    return 0
