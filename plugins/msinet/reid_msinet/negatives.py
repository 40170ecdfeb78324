"""Prints how far each query's most similar negatives are (figure 1), as a trained run ranks.

python -m reid_msinet.negatives RUN_DIR [RUN_DIR ...] [--nearest COUNT]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from reidcore.errors import ReidError
from reidcore.tools import DistanceBlock, open_evaluation, reporter, smallest


def nearest_negatives(distances: Tensor, negative: Tensor, count: int) -> Tensor:
    """Mean distance of each query to its `count` nearest negatives, or to all that it has; NaN
    where it has none.

    distances: [Q, G]. negative: bool [Q, G], neither of the query's identity nor left out.
    """
    index, value = smallest(distances.masked_fill(~negative, torch.inf), count)
    found = index >= 0
    return value.double().masked_fill(~found, 0).sum(1) / found.sum(1)


class Gathered:
    """A watcher that keeps `nearest_negatives` of all queries, by test set, ranking and stage."""

    def __init__(self, count: int):
        self.count = count
        self.parts: dict[tuple[str, str, str], list[Tensor]] = {}

    def __call__(self, block: DistanceBlock) -> None:
        match, ignored = block.judged.to(block.distances.device).masks()
        found = nearest_negatives(block.distances, ~(match | ignored), self.count)
        self.parts.setdefault(block.place, []).append(found)

    def lines(self) -> list[str]:
        """One for each test set, ranking and stage: mean and deviation over queries."""
        lines = []
        for place, parts in self.parts.items():
            values = torch.cat(parts)
            values = values[~values.isnan()]
            mean, deviation = values.mean(), values.std(correction=0)
            lines.append(
                f"{'  '.join(place)}  {mean:.4f} ± {deviation:.4f} of {len(values)} queries"
            )
        return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reid_msinet.negatives", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_DIR")
    parser.add_argument("--nearest", type=int, default=10, metavar="COUNT")
    options = parser.parse_args(arguments)
    if options.nearest < 1:
        parser.error(f"--nearest is {options.nearest}; expected at least 1")
    try:
        for folder in options.folders:
            gathered = Gathered(options.nearest)
            evaluation = open_evaluation(folder)
            evaluation.scores(evaluation.load_model(), reporter(), gathered)
            for line in gathered.lines():
                print(f"{folder}  {line}")
    except ReidError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
