"""Helpers of the commands `reid data ...`: readers, places of data sets, and counts."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from reidcore.contracts.component import Row
    from reidcore.data.check import Counts


def add_reader(parser: ArgumentParser, keys: str = "--set") -> None:
    """Add `--read`, which names a reader, and an option for its keys.

    keys: name of that option; where `--set` changes the run, it is "--set-reader".
    """
    parser.add_argument(
        "--read",
        metavar="READER",
        help="the reader of the data set in the folder, such as core.market1501, which knows its "
        "names and numbers",
    )
    parser.add_argument(
        keys,
        dest="reader_sets",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the reader, such as counts=any; may be given several times",
    )


def check_sets(options: Namespace, keys: str = "--set") -> None:
    """Raise UsageError for keys of a reader where none is named."""
    from reidcore.errors import UsageError

    if options.read is None and options.reader_sets:
        raise UsageError(f"{keys} changes a key of a reader, which --read names")


def read_rows(reader: str, sets: Sequence[str], folder: Path) -> list[Row]:
    """Return the rows that the reader of this full name finds in `folder`."""
    from reidcore.data.ask_reader import ask_reader
    from reidcore.plugins.loading import Plugins

    config = configured(Plugins().component("reader", reader).component.config, sets)
    return ask_reader(f"--read {reader}", reader, config, "rows", folder)


def pictures(
    options: Namespace, given: Path, side: Literal["query", "gallery"]
) -> Path | list[Row]:
    """Return the pictures of one side that a command is given: a path, or, where `--read` names a
    reader, its rows of this side, all rows if it has none. An index stays one."""
    check_sets(options, "--set-reader")
    if options.read is None or (given / "index.json").is_file():
        return given
    rows = read_rows(options.read, options.reader_sets, locate(str(given)))
    return [row for row in rows if row.split == side] or rows


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


def locate(text: str) -> Path:
    """Return the path that an argument names: as a shell would take it, or else under REID_DATA."""
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


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun, such as `1,204 pictures`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def counts_as_data(counts: Mapping[str, Counts]) -> dict[str, dict[str, int]]:
    """Return the numbers of every split as plain data."""
    return {
        split: {"pictures": one.pictures, "identities": one.identities, "cameras": one.cameras}
        for split, one in counts.items()
    }


def print_counts(counts: Mapping[str, Counts]) -> None:
    """Print a line for every split."""
    print(f"{'split':<8}{'pictures':>11}{'identities':>12}{'cameras':>9}")
    for split, held in counts.items():
        print(f"{split:<8}{held.pictures:>11,}{held.identities:>12,}{held.cameras or '-':>9}")
