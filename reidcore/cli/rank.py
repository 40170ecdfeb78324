"""`reid rank`: unlabelled pictures in, ranked matches out."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
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
from reidcore.errors import UsageError

if TYPE_CHECKING:
    from reidcore.search.results import Match, Ranked


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
    parser.add_argument(
        "--unknown-above",
        type=float,
        metavar="P",
        help="give the probability, from 0 to 1, that two pictures show one identity, and answer "
        "'unknown' for a query whose nearest picture has less than P",
    )
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
    least = options.unknown_above
    if least is not None and not 0 <= least <= 1:
        raise UsageError(f"--unknown-above is a probability from 0 to 1, got {least:g}")
    from reidcore.search.search import load

    run = load(options.folder, options.file, options.device)
    run.check_asked(options.top, options.ranking)  # before templates, which may take hours
    query = run.templates(pictures(options, options.query, "query"))
    gallery = run.templates(pictures(options, options.gallery, "gallery"))
    ranked = run.rank(query, gallery, options.top, options.ranking)
    found = None
    if least is not None:
        found = run.probabilities(query, gallery, ranked.index, options.ranking).tolist()
    text = as_text(_lists(ranked, found, least)) if options.json else _csv(ranked, found, least)
    if options.output is None:
        sys.stdout.write(text)
        return 0
    write_atomically(options.output, text)
    print(
        f"wrote {options.output}: the first {ranked.index.shape[1]} of {len(gallery)} gallery "
        f"pictures for {len(query)} queries"
    )
    return 0


Probabilities = Sequence[Sequence[float]] | None
"""Of each query's matches, that they show its identity; None where they are not asked for."""


def _csv(ranked: Ranked, probabilities: Probabilities, least: float | None) -> str:
    """A line for every match."""
    from reidcore.support.text_table import csv_text

    header = ["query", "rank", "gallery", "distance"]
    if probabilities is None:
        return csv_text([header, *map(_line, ranked)])
    return csv_text([[*header, "probability"], *_known(ranked, probabilities, least or 0.0)])


def _line(match: Match) -> list[str | int]:
    distance = f"{match.distance:.6g}"
    return [_shown(match.query), match.rank, _shown(match.gallery), distance]


def _known(
    ranked: Ranked, probabilities: Sequence[Sequence[float]], least: float
) -> Iterator[list[str | int]]:
    """Yield lines with a probability; of a query whose first one is below `least`, one line alone,
    which names no picture."""
    own = iter(ranked)
    for places, found in zip(ranked.index.tolist(), probabilities, strict=True):
        for place, probability in zip(places, found, strict=True):
            if place < 0:
                continue
            line = [*_line(next(own)), f"{probability:.6g}"]
            if found[0] >= least:
                yield line
            elif line[1] == 1:
                yield [*line[:2], "unknown", *line[3:]]


def _lists(
    ranked: Ranked, probabilities: Probabilities, least: float | None
) -> list[dict[str, Any]]:
    """A query with the list of its matches, for every query; paths are whole. With probabilities,
    also whether the query is unknown."""
    names = [row.name for row in ranked.gallery]
    rows = zip(ranked.query, ranked.index.tolist(), ranked.distance.tolist(), strict=True)
    lists = []
    for number, (query, places, distances) in enumerate(rows):
        matches: list[dict[str, Any]] = [
            {"rank": rank, "gallery": names[place], "distance": distance}
            for rank, (place, distance) in enumerate(zip(places, distances, strict=True), 1)
            if place >= 0
        ]
        listed: dict[str, Any] = {"query": query.name, "matches": matches}
        if probabilities is not None:
            for match, probability in zip(matches, probabilities[number], strict=False):
                match["probability"] = probability
            listed["unknown"] = probabilities[number][0] < (least or 0.0)
        lists.append(listed)
    return lists


def _shown(path: str) -> str:
    """The path from the current folder, where it lies in it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
