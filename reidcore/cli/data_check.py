"""The command `reid data check`: damaged pictures, and queries that can never match."""

from __future__ import annotations

import shlex
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

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
from reidcore.support.wording import readable

if TYPE_CHECKING:
    from reidcore.contracts.component import Row
    from reidcore.data.check import Finding, Findings

SHOWN = 10
"""Findings of one kind that are printed without --all."""
BETWEEN = 10.0
"""Seconds between two lines of progress, where stdout is no terminal."""


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Read every picture of a manifest and check that each query has a match. The exit code "
        "is 0 if the data can be used, 4 if a picture is missing or damaged or a query can "
        "never match. Identities seen by one camera, identical files under two identities or as "
        "query and gallery of one, identities both in train and test, and labels that are probably "
        "not what they seem are warnings only."
    )
    parser.add_argument(
        "manifest",
        metavar="MANIFEST",
        help="CSV file, a folder that holds manifest.csv, or with --read a data set's folder",
    )
    add_reader(parser)
    parser.add_argument(
        "--fast",
        action="store_true",
        help="only look whether the pictures exist and are not empty; identical files are not "
        "looked for",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"list all findings, not the first {SHOWN} of a kind"
    )
    add_json(parser, ", with all findings; progress goes to stderr")
    return check_command


def check_command(options: Namespace) -> int:
    """`reid data check`; returns 0, or 4 if the data must be mended."""
    from reidcore.data.archives import is_archive
    from reidcore.data.check import check_rows
    from reidcore.data.labels import nobody_warnings
    from reidcore.data.manifest import read_manifest, unused_columns
    from reidcore.errors import DataError

    check_sets(options)
    path = locate(options.manifest)
    if path.is_dir() and options.read is None:
        path /= "manifest.csv"
        if not path.exists():
            raise DataError(
                f"there is no {path}; make it with: reid data index {shlex.quote(options.manifest)}"
            )
    if is_archive(path) and options.read is None:
        raise DataError(
            f"{path} is a zip, expected a manifest; --read core.zip reads what it lists"
        )
    read = options.read is not None
    rows = read_rows(options.read, options.reader_sets, path) if read else read_manifest(path)
    stream = sys.stderr if options.json else sys.stdout
    with _progress(len({row.name for row in rows}), stream) as advance:
        report = check_rows(rows, decode=not options.fast, advance=advance)
    warnings = [] if read else list(nobody_warnings(rows))
    if not read and (unused := unused_columns(path)):
        warnings.insert(0, f"columns that are not used: {'; '.join(unused)}")
    if options.json:
        print_json(_as_data(path, report, warnings))
        return DataError.exit_code if report.failed else 0
    print(path)
    print_counts(report.counts)
    for text in warnings:
        _print_line(f"warning: {text}")
    _print_report(report, None if options.all else SHOWN)
    return DataError.exit_code if report.failed else 0


def _as_data(path: Path, report: Findings, warnings: Sequence[str]) -> dict[str, Any]:
    """All findings as plain data; rows by where they are listed."""

    def listed(row: Row) -> dict[str, str]:
        return {"listed": row.listed, "picture": row.name, "pid": row.pid, "split": row.split}

    def findings(found: Sequence[Finding]) -> list[dict[str, str]]:
        return [{**listed(one.row), "reason": one.reason} for one in found]

    return {
        "manifest": str(path),
        "splits": counts_as_data(report.counts),
        "warnings": [*warnings, *report.labels],
        "converted": {what: [*map(listed, rows)] for what, rows in report.converted.items()},
        "in_train_and_test": list(report.overlap),
        "seen_by_one_camera": list(report.one_camera),
        "identical_of_several_identities": [[*map(listed, rows)] for rows in report.duplicates],
        "identical_query_and_gallery": [[*map(listed, rows)] for rows in report.copies],
        "without_match": findings(report.unmatched),
        "damaged": findings(report.damaged),
        "usable": not report.failed,
    }


def _print_report(report: Findings, most: int | None) -> None:
    """Print findings by kind; what must be mended is last, where a terminal still shows it."""
    from reidcore.data.opening import DARK

    identity = ("identity", "identities")
    few = None if most is None else 3
    for what, rows in report.converted.items():
        listed = [f"{row.listed}: {row.name}" for row in rows]
        level = "warning" if what == DARK else "note"
        _print_list(f"{level}: {{}} {what}", ("picture", "pictures"), listed, few)
    _print_list("warning: {} in both train and test", identity, report.overlap, most)
    _print_list("warning: {} seen by one camera only", identity, report.one_camera, most)
    _print_list(
        "warning: {} under several identities",
        ("identical file", "identical files"),
        [
            " = ".join(f"{row.name} ({row.listed}, {row.pid})" for row in group)
            for group in report.duplicates
        ],
        most,
    )
    _print_list(
        "warning: {} both as query and in the gallery, under one identity, which raises scores",
        ("identical file", "identical files"),
        [
            " = ".join(f"{row.name} ({row.listed}, {row.split})" for row in group)
            for group in report.copies
        ],
        most,
    )
    for text in report.labels:
        _print_line(f"warning: {text}")
    _print_list(
        "error: {} without a match",
        ("query", "queries"),
        [f"{found.row.listed}: {found.reason}" for found in report.unmatched],
        most,
    )
    if report.keep_camera:
        print('  With one camera, set eval.same_camera = "keep" in the run file.')
    _print_list(
        "error: {} missing or damaged",
        ("picture", "pictures"),
        [f"{found.row.listed}: {found.row.name} {found.reason}" for found in report.damaged],
        most,
    )
    if not report.failed:
        print("no errors")


def _print_list(title: str, noun: tuple[str, str], items: Sequence[str], most: int | None) -> None:
    if not items:
        return
    print(title.format(counted(len(items), *noun)))
    for item in items[:most]:
        _print_line(f"  {item}")
    if most is not None and len(items) > most:
        print(f"  and {len(items) - most:,} more (--all lists them)")


def _print_line(text: str) -> None:
    """Print what holds names of a manifest, which may be of any length and in any characters."""
    print(readable(text.replace("\n", "\\n")))


@contextmanager
def _progress(total: int, stream: TextIO) -> Iterator[Callable[[int], None]]:
    """Progress in a stream, with rate and time left: a bar in a terminal, else a line every few
    seconds."""
    start = said = time.monotonic()
    done = 0

    def rate(count: int) -> float:
        nonlocal done
        done += count
        return done / max(time.monotonic() - start, 1e-6)

    if stream.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        speed = TextColumn("{task.fields[rate]:,.0f}/s")
        columns = (BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
        shown = Progress(
            TextColumn("pictures"), *columns, console=Console(file=stream), transient=True
        )
        with shown as bar:
            task = bar.add_task("", total=total, rate=0.0)
            yield lambda count: bar.update(task, advance=count, rate=rate(count))
        return

    def advance(count: int) -> None:
        nonlocal said
        speed = rate(count)
        now = time.monotonic()
        if now - said >= BETWEEN and done < total:
            said = now
            left = (total - done) / speed
            text = f"{done:,} of {total:,} pictures, {speed:,.0f}/s, {left:.0f} s left"
            print(text, file=stream, flush=True)

    yield advance
