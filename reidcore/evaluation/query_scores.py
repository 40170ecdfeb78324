"""The scores of single queries, as the lines of queries.csv."""

from __future__ import annotations

from reidcore.evaluation.metrics import PerQuery
from reidcore.evaluation.trial import Place, Trial
from reidcore.runfolder.query_files import COLUMNS
from reidcore.support.text_table import csv_text


class QueryScores:
    """Gathers the scores of every query under every ranking and stage of one evaluation."""

    def __init__(self) -> None:
        self._parts = [csv_text([COLUMNS])]

    def add(self, place: Place, trial: Trial, scores: PerQuery) -> None:
        """Add the scores of a trial's queries, in their order."""
        pictures = trial.pictures
        rows = pictures.labelled.rows
        # Of lists that were drawn for a query, the share with a match first, and the mean rank.
        lists = scores.first.reshape(len(scores.matches), -1)
        found, first = (lists == 1).double().mean(1), lists.double().mean(1)
        columns = (pictures.query, scores.matches, scores.ap, found, first, scores.inp)
        lines = zip(*(one.tolist() for one in columns), strict=True)
        written = []
        for number, matches, ap, share, rank, inp in lines:
            identity = rows.names[int(rows.pid[number])]
            name = rows.picture(number).name
            at = (*place, pictures.number, number, name, identity)
            rates = f"{ap:.6f}", f"{share:.6g}", f"{rank:g}", f"{inp:.6f}"
            written.append((*at, matches, *rates))
        self._parts.append(csv_text(written))

    def text(self) -> str:
        """Return the whole file."""
        return "".join(self._parts)
