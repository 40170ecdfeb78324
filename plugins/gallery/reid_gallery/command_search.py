"""`reid gallery search` and `info`. Torch-free at import."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reid_gallery.options import (
    PICTURES,
    add_filter,
    add_gallery,
    add_ray,
    add_run,
    opened,
    show,
    shown_path,
)
from reidcore.errors import UsageError
from reidcore.tools import aligned

if TYPE_CHECKING:
    from reid_gallery.answers import Answer


def search_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `search` takes; return what runs it."""
    parser.description = (
        "Find the nearest pictures of a gallery for each picture, by the rankings of its run. A "
        "picture's own file is left out of its list. The probability that two pictures show one "
        "identity is fitted on the run's training pairs, or on those of --calibrate, and holds "
        "where half of all compared pairs show one identity."
    )
    add_gallery(parser)
    parser.add_argument("pictures", metavar="PICTURES", help=PICTURES)
    add_filter(parser)
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="matches of each picture (default 10)"
    )
    parser.add_argument(
        "--ranking", metavar="NAME", help="a ranking of the run (default: its first)"
    )
    parser.add_argument(
        "--candidates",
        type=int,
        default=200,
        metavar="N",
        help="nearest pictures of each that the ranking's postprocessors order (default 200)",
    )
    parser.add_argument(
        "--unknown-above",
        type=float,
        metavar="P",
        help="a picture is unknown unless a match has at least this probability",
    )
    parser.add_argument(
        "--calibrate",
        metavar="PAIRS",
        help="fit probabilities on pairs of your own: a CSV file with the columns first, second "
        "(paths) and same (1 or 0), or path and identity",
    )
    parser.add_argument(
        "--ann",
        action="store_true",
        help="take approximate neighbours, for tens of millions; see compact --ann",
    )
    parser.add_argument(
        "--ann-share",
        type=float,
        metavar="SHARE",
        help="--ann, with another share of the gallery to look through than 0.2, up to 1; more "
        "finds more, and takes longer",
    )
    add_run(parser)
    add_ray(parser)
    return search


def search(options: Namespace) -> int:
    """Search; returns 0 or raises `ReidError`."""
    gallery = opened(options)
    ann = options.ann if options.ann_share is None else options.ann_share
    if options.ray and ann is not False:
        raise UsageError("--ray searches exactly and --ann does not; name one of them")
    if options.ray:
        from reid_gallery.ray_search import RayScan

        gallery.scan = RayScan(gallery, options.ray)
    if options.calibrate:
        gallery.calibrate(options.calibrate)
    answers = gallery.search(
        options.pictures,
        options.cameras,
        options.after,
        options.before,
        options.where,
        options.top,
        options.ranking,
        options.candidates,
        options.unknown_above,
        ann,
    )
    for answer in answers:
        print(json.dumps(answer.table(), ensure_ascii=False) if options.json else _text(answer))
    return 0


def _text(answer: Answer) -> str:
    """The answer as a terminal shows it."""
    head = shown_path(answer.query) + (": unknown" if answer.unknown else "")
    if not answer.matches:
        return f"{head}: no match"
    names = ["rank", "source", "camera", "time", "identity", "distance", "probability"]
    rows = [
        [
            str(match.rank),
            shown_path(match.source) + (f"[{match.box}]" if match.box else ""),
            match.camera or "-",
            _time(match.time),
            match.identity or "-",
            f"{match.distance:.6g}",
            "-" if match.probability is None else f"{match.probability:.3f}",
        ]
        for match in answer.matches
    ]
    return f"{head}\n{aligned([names, *rows], left=2)}"


def _time(seconds: float | None) -> str:
    """Seconds as they are or, where they count from 1970, as a date and time in UTC."""
    if seconds is None:
        return "-"
    if 1e8 <= seconds < 1e11:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{seconds:.10g}"


def info_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add what `info` takes; return what runs it."""
    parser.description = "Show what a gallery holds, how large it is, and which run made it."
    add_gallery(parser)
    return info


def info(options: Namespace) -> int:
    """Show; returns 0 or raises `ReidError`."""
    from reid_gallery.information import lines

    found = opened(options).info()
    width = max(map(len, found))
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in lines(found))
    show(options, found, text)
    return 0
