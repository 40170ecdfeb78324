"""`reid COMMAND-best`: which of several runs has the best score. Torch-free, as run folders are."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from reidcore.errors import UsageError, nearest
from reidcore.tools import in_order, scores_of


def add_arguments(parser: ArgumentParser) -> Callable[[Namespace], int]:
    """Add the arguments of the command; return what runs it."""
    parser.description = "Print the run, test set, ranking and stage with the largest score."
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--metric", default="mAP", help="the score that counts (default mAP)")
    return best


def best(options: Namespace) -> int:
    """Print one line and return the exit code."""
    found = {
        (str(folder), *place): score
        for folder in options.folders
        for place, scores in scores_of(folder).items()
        for name, score in scores.items()
        if name == options.metric
    }
    if not found:
        every = (scores_of(folder).values() for folder in options.folders)
        known = in_order(name for places in every for scores in places for name in scores)
        near = nearest(options.metric, known) or "."
        raise UsageError(f"no run has {options.metric!r}{near} There are {', '.join(known)}.")
    place, score = max(found.items(), key=lambda item: item[1].mean)
    print(f"{' '.join(place)}: {options.metric} {100 * score.mean:.1f} %")
    return 0
