"""`reid explain`: pictures and numbers that say why pictures match."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from reidcore.cli.data_sets import add_reader, pictures
from reidcore.cli.options import (
    add_device,
    add_evaluation,
    add_pictures,
    add_ranking,
    add_run_folder,
    add_set,
)
from reidcore.contracts.commands import RunCommand


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Rank gallery pictures for query pictures and draw, for each query and its first matches, "
        "where features are strong (channel norm), what brings the two together (Grad-CAM), and "
        "what the run's parts explain themselves. Writes PNG and CSV files."
    )
    add_run_folder(parser)
    add_evaluation(parser)
    add_set(parser)
    add_pictures(parser)
    add_reader(parser, "--set-reader")
    parser.add_argument(
        "--map",
        dest="maps",
        action="append",
        metavar="NAME",
        help="a map to look at, such as backbone.layer3; may be given several times (default: the "
        "last map that the ranking computes)",
    )
    parser.add_argument(
        "--feature",
        dest="vectors",
        action="append",
        default=[],
        metavar="NAME",
        help="a vector, such as neck.bn: draw where in the maps it comes from; may be given "
        "several times",
    )
    parser.add_argument(
        "--identity",
        metavar="NAME",
        help="with --feature and --losses, the training identity that is spoken for (default: each "
        "picture's likeliest)",
    )
    parser.add_argument(
        "--top", type=int, default=3, metavar="N", help="matches of each query (default 3)"
    )
    parser.add_argument(
        "--limit", type=int, default=10, metavar="N", help="queries to explain (default 10)"
    )
    add_ranking(parser)
    parser.add_argument(
        "--losses",
        action="store_true",
        help="let losses explain too; needs the plugins that train and the data sets' lists",
    )
    add_device(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the folder to make"
    )
    return explain_command


def explain_command(options: Namespace) -> int:
    """`reid explain`; returns 0 or raises `ReidError`."""
    from reidcore.search.explain_files import write_explanations
    from reidcore.search.search import load
    from reidcore.support.files import check_new

    check_new(options.output)
    run = load(options.folder, options.file, options.device, options.losses, options.sets)
    explained = run.explain(
        pictures(options, options.query, "query"),
        pictures(options, options.gallery, "gallery"),
        options.top,
        options.ranking,
        options.maps,
        options.limit,
        options.vectors,
        options.identity,
    )
    pairs, files = write_explanations(options.output, explained)
    print(f"wrote {options.output}: {files} files on {pairs} pairs, listed in index.csv")
    return 0
