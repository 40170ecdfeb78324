"""`reid compare RUN_DIR...`: the scores of several runs side by side. Torch-free."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from reidcore.cli.as_json import add_json
from reidcore.contracts.commands import RunCommand
from reidcore.errors import DataError, ReidError, UsageError
from reidcore.runfolder.comparison import ComparisonRow, make_comparison
from reidcore.runfolder.comparison_tables import as_csv, as_json, as_text
from reidcore.runfolder.results import Results, read_results
from reidcore.runfolder.shared import run_folder
from reidcore.support.files import check_output, write_atomically

MANY = 12
"""Columns of settings beyond which a note tells how to choose."""


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Put the scores of several runs side by side, with the settings that tell the runs apart. "
        "A folder of repeats is one run, with mean and deviation. * marks the best value of a "
        "test set."
    )
    parser.add_argument("folders", nargs="+", type=run_folder, metavar="RUN_DIR")
    parser.add_argument("--test", metavar="NAME", help="only this test set")
    parser.add_argument("--ranking", metavar="NAME", help="only this ranking")
    parser.add_argument(
        "--settings",
        action="append",
        metavar="PATTERN",
        help="of the settings that differ, only these, such as 'optim.*' or '*.use'; may be given "
        "several times",
    )
    parser.add_argument(
        "--median", action="store_true", help="of repeats, show the median in place of the mean"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a CSV file")
    parser.add_argument(
        "--paired",
        action="store_true",
        help="add how mAP and rank-1 differ from those of each test set's first row, with 95%% "
        "intervals and p, from a paired bootstrap over identities",
    )
    parser.add_argument(
        "--against",
        metavar="RANKING/STAGE",
        default="",
        help="with --paired, compare with the first row of this ranking and stage, such as "
        "reranked/rerank",
    )
    add_json(parser, ", scores as fractions")
    return compare_command


def compare_command(options: Namespace) -> int:
    """`reid compare`; returns 0. Folders that cannot be compared are named in one error at the
    end, after the others have been shown."""
    check_output(options.csv)
    if options.against and not options.paired:
        raise UsageError("--against says what --paired compares with; give --paired too")
    runs: list[Results] = []
    problems: list[ReidError] = []
    for folder in options.folders:
        try:
            runs.append(read_results(folder))
        except ReidError as error:
            problems.append(error)
    if runs:
        rows = _chosen(make_comparison(runs, options.settings), options)
        if options.paired:
            from reidcore.runfolder.paired import with_differences

            rows = with_differences(rows, options.against)
        if options.csv is not None:
            write_atomically(options.csv, as_csv(rows))
        print(as_json(rows) if options.json else as_text(rows, options.median), flush=True)
        count = len({key for row in rows for key in row.settings})
        if count > MANY and not options.json and options.settings is None:
            text = f"note: {count} settings differ; --settings PATTERN chooses those to show"
            print(text, file=sys.stderr)
    if problems:
        worst = DataError if any(isinstance(one, DataError) for one in problems) else UsageError
        raise worst("\n".join(map(str, problems)))
    return 0


def _chosen(rows: Sequence[ComparisonRow], options: Namespace) -> list[ComparisonRow]:
    chosen = list(rows)
    for level, option in enumerate(("test", "ranking")):
        name = getattr(options, option)
        if name is None:
            continue
        known = list(dict.fromkeys(row.place[level] for row in rows))
        if name not in known:
            raise UsageError(f"--{option} {name}: the runs have {', '.join(known) or 'none'}")
        chosen = [row for row in chosen if row.place[level] == name]
    return chosen
