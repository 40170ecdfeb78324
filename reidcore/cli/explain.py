"""`reid explain`: pictures and numbers that say why pictures match."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reidcore.cli.options import PICTURES, device_argument


def add_parser(
    commands: Any, evaluation_argument: Callable[[argparse.ArgumentParser], None]
) -> None:
    """The command's options."""
    parser = commands.add_parser(
        "explain",
        help="draw why a trained run matches pictures",
        description="Rank gallery pictures for query pictures and draw, for each query and its "
        "first matches, where features are strong (channel norm), what brings the two together "
        "(Grad-CAM), and what the run's parts explain themselves. Writes PNG and CSV files.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN_DIR")
    evaluation_argument(parser)
    parser.add_argument("--query", type=Path, required=True, metavar="PICTURES", help=PICTURES)
    parser.add_argument("--gallery", type=Path, required=True, metavar="PICTURES", help=PICTURES)
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
    parser.add_argument(
        "--ranking", metavar="NAME", help="a ranking of the run (default: its first)"
    )
    parser.add_argument(
        "--losses",
        action="store_true",
        help="let losses explain too; needs the plugins that train and the data sets' lists",
    )
    device_argument(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the folder to make"
    )
    parser.set_defaults(func=_explain)


def _explain(options: argparse.Namespace) -> int:
    from reidcore.search.explain_files import write_explanations
    from reidcore.search.search import load
    from reidcore.support.files import check_new

    check_new(options.output)
    run = load(options.folder, options.file, options.device, options.losses)
    explained = run.explain(
        options.query,
        options.gallery,
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
