"""The command `reid eval`, in one process or in the several that torchrun has started."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from reidcore.cli.as_json import add_json, print_json
from reidcore.cli.options import add_evaluation, add_run_folder, add_set
from reidcore.contracts.commands import RunCommand


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Evaluate a run folder's weights on its test sets, or as FILE says. Loads only what its "
        "rankings reach, so plugins that only train may be missing."
    )
    add_run_folder(parser)
    add_evaluation(parser)
    add_set(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write scores as JSON")
    parser.add_argument(
        "--queries", type=Path, metavar="FILE", help="write the scores of every query as CSV"
    )
    add_json(parser, ", scores as fractions; progress goes to stderr")
    return evaluate_command


def evaluate_command(options: Namespace) -> int:
    """`reid eval`; returns 0 or raises `ReidError`."""
    from reidcore.evaluation.open_evaluation import open_evaluation
    from reidcore.support.files import check_output, write_atomically, write_json
    from reidcore.support.progress import Silent, reporter

    check_output(options.output)
    check_output(options.queries)
    stream = sys.stderr if options.json else sys.stdout
    evaluation = open_evaluation(options.folder, options.file, options.sets)
    from reidcore.distributed.processes import together
    from reidcore.evaluation.query_scores import QueryScores
    from reidcore.evaluation.score_table import score_table

    with together() as processes:
        shown = reporter(stream) if processes.first else Silent()
        try:
            model, queries = evaluation.load_model(), QueryScores()
            scores = evaluation.scores(model, shown, processes=processes, queries=queries)
        finally:
            shown.close()
        if not processes.first:
            return 0
    if options.json:
        print_json(scores)
    else:
        print(score_table(scores))
    if options.output is not None:
        write_json(options.output, scores)
    if options.queries is not None:
        write_atomically(options.queries, queries.text())
    return 0
