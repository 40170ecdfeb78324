"""The command `reid data` with its own commands `index`, `check` and `demo`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from reidcore.cli import data_check, data_index
from reidcore.cli.data_sets import configured
from reidcore.cli.options import add_set
from reidcore.contracts.commands import RunCommand


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = "List, check or make a data set."
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    for name, add, summary in (
        ("index", data_index.add_arguments, "write the manifest of a folder of pictures"),
        (
            "check",
            data_check.add_arguments,
            "find damaged pictures and queries that can never match",
        ),
        ("demo", _add_demo_arguments, "draw the demo data set"),
    ):
        own = commands.add_parser(name, help=summary)
        own.set_defaults(run=add(own))
    return lambda options: int(options.run(options))


def _add_demo_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = "Draw the demo data set into a folder."
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    add_set(parser, "a setting of core.demo, such as seed=1; see reid plugins core")
    return demo_command


def demo_command(options: Namespace) -> int:
    """`reid data demo`; returns 0 or raises `ReidError`."""
    from reidcore.builtin.readers.demo import Demo
    from reidcore.support.files import check_new

    check_new(options.folder)
    rows = configured(Demo, options.sets).rows(options.folder)
    print(f"drew {len(rows)} pictures into {options.folder}")
    return 0
