"""The scores of single queries, as the lines of queries.csv."""

from __future__ import annotations

import csv
import io

from reidcore.evaluation.metrics import PerQuery
from reidcore.evaluation.trial import Place, Trial
from reidcore.runfolder.query_files import COLUMNS


class QueryScores:
    """Gathers the scores of every query under every ranking and stage of one evaluation."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def add(self, place: Place, trial: Trial, scores: PerQuery) -> None:
        """Add the scores of a trial's queries, in their order."""
        pictures = trial.pictures
        rows = pictures.labelled.rows
        # Of lists that were drawn for a query, the mean rank.
        first = scores.first.double().reshape(len(scores.matches), -1).mean(1)
        columns = (pictures.query, scores.matches, scores.ap, first, scores.inp)
        for number, matches, ap, rank, inp in zip(*(one.tolist() for one in columns), strict=True):
            identity = rows.names[int(rows.pid[number])]
            name = rows.picture(number).name
            at = (*place, pictures.number, number, name, identity)
            self._writer.writerow([*at, matches, f"{ap:.6f}", f"{rank:g}", f"{inp:.6f}"])

    def text(self) -> str:
        """Return the whole file."""
        return self._text.getvalue()
