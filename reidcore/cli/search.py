"""`reid index` and `reid rank`: unlabelled pictures in, ranked matches out."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reidcore.cli.options import PICTURES, device_argument


def add_parsers(
    commands: Any, evaluation_argument: Callable[[argparse.ArgumentParser], None]
) -> None:
    """The commands' options."""
    rank = commands.add_parser(
        "rank",
        help="rank unlabelled pictures by a trained run",
        description="Rank gallery pictures for every query picture; nothing has to be labelled. "
        "A query's own file is left out of its list.",
    )
    rank.add_argument("folder", type=Path, metavar="RUN_DIR")
    evaluation_argument(rank)
    rank.add_argument("--query", type=Path, required=True, metavar="PICTURES", help=PICTURES)
    rank.add_argument("--gallery", type=Path, required=True, metavar="PICTURES", help=PICTURES)
    rank.add_argument(
        "--top", type=int, default=10, metavar="N", help="matches listed of each query (default 10)"
    )
    rank.add_argument("--ranking", metavar="NAME", help="a ranking of the run (default: its first)")
    device_argument(rank)
    rank.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write CSV there, not to the terminal"
    )
    rank.set_defaults(func=_rank)

    index = commands.add_parser(
        "index",
        help="keep the templates of a gallery for later ranking",
        description="Compute the templates of a gallery's pictures once and keep them in a folder, "
        "for reid rank --gallery.",
    )
    index.add_argument("folder", type=Path, metavar="RUN_DIR")
    index.add_argument("pictures", type=Path, metavar="PICTURES", help=PICTURES)
    evaluation_argument(index)
    device_argument(index)
    index.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="the folder to make"
    )
    index.set_defaults(func=_index)


def _rank(options: argparse.Namespace) -> int:
    from reidcore.support.files import check_output, write_atomically

    check_output(options.output)
    from reidcore.search.search import load

    run = load(options.folder, options.file, options.device)
    query, gallery = run.templates(options.query), run.templates(options.gallery)
    ranked = run.rank(query, gallery, options.top, options.ranking)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["query", "rank", "gallery", "distance"])
    for match in ranked:
        distance = f"{match.distance:.6g}"
        writer.writerow([_shown(match.query), match.rank, _shown(match.gallery), distance])
    if options.output is None:
        sys.stdout.write(text.getvalue())
        return 0
    write_atomically(options.output, text.getvalue())
    print(
        f"wrote {options.output}: the first {ranked.index.shape[1]} of {len(gallery)} gallery "
        f"pictures for {len(query)} queries"
    )
    return 0


def _shown(path: str) -> str:
    """The path from the current folder, where it lies in it."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _index(options: argparse.Namespace) -> int:
    from reidcore.search.search import load

    run = load(options.folder, options.file, options.device)
    started = time.monotonic()
    found = run.index(options.pictures, options.output)
    seconds = time.monotonic() - started
    size = sum(value.nbytes for part in found.parts.values() for value in part.values())
    print(
        f"wrote {options.output}: {len(found)} pictures, {size / 2**20:.1f} MiB of templates, "
        f"{len(found) / max(seconds, 1e-9):.0f} pictures/s"
    )
    return 0
