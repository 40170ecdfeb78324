"""`reid rank`: unlabelled pictures in, ranked matches out."""

from __future__ import annotations

import csv
import io
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidcore.cli.as_json import as_text
from reidcore.cli.data_sets import add_reader, pictures
from reidcore.cli.options import (
    add_device,
    add_evaluation,
    add_pictures,
    add_ranking,
    add_run_folder,
)
from reidcore.contracts.commands import RunCommand

if TYPE_CHECKING:
    from reidcore.search.results import Ranked


def add_arguments(parser: ArgumentParser) -> RunCommand:
    parser.description = (
        "Rank gallery pictures for every query picture; nothing has to be labelled. A query's own "
        "file is left out of its list."
    )
    add_run_folder(parser)
    add_evaluation(parser)
    add_pictures(parser)
    add_reader(parser, "--set-reader")
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="matches listed of each query (default 10)"
    )
    add_ranking(parser)
    add_device(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write CSV there, not to the terminal"
    )
    parser.add_argument("--json", action="store_true", help="JSON in place of CSV")
    return rank_command


def rank_command(options: Namespace) -> int:
    """`reid rank`; returns 0 or raises `ReidError`."""
    from reidcore.support.files import check_output, write_atomically

    check_output(options.output)
    from reidcore.search.search import load

    run = load(options.folder, options.file, options.device)
    query = run.templates(pictures(options, options.query, "query"))
    gallery = run.templates(pictures(options, options.gallery, "gallery"))
    ranked = run.rank(query, gallery, options.top, options.ranking)
    text = as_text(_lists(ranked)) if options.json else _csv(ranked)
    if options.output is None:
        sys.stdout.write(text)
        return 0
    write_atomically(options.output, text)
    print(
        f"wrote {options.output}: the first {ranked.index.shape[1]} of {len(gallery)} gallery "
        f"pictures for {len(query)} queries"
    )
    return 0


def _csv(ranked: Ranked) -> str:
    """A line for every match."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "rank", "gallery", "distance"])
    for match in ranked:
        distance = f"{match.distance:.6g}"
        writer.writerow([_shown(match.query), match.rank, _shown(match.gallery), distance])
    return text.getvalue()


def _lists(ranked: Ranked) -> list[dict[str, Any]]:
    """A query with the list of its matches, for every query; paths are whole."""
    names = [row.name for row in ranked.gallery]
    rows = zip(ranked.query, ranked.index.tolist(), ranked.distance.tolist(), strict=True)
    return [
        {
            "query": query.name,
            "matches": [
                {"rank": rank, "gallery": names[place], "distance": distance}
                for rank, (place, distance) in enumerate(zip(places, distances, strict=True), 1)
                if place >= 0
            ],
        }
        for query, places, distances in rows
    ]


def _shown(path: str) -> str:
    """The path from the current folder, where it lies in it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
