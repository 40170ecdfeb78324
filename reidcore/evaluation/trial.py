"""One trial of a protocol under one ranking: blocks of distances become scores."""

from __future__ import annotations

import functools
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from reidcore.distributed.processes import ALONE, Processes
from reidcore.evaluation.evaluation_job import EvaluationJob
from reidcore.evaluation.labelled_set import LabelledSet
from reidcore.evaluation.relevance import Judgements, Relevance
from reidcore.evaluation.trial_scores import TrialScores
from reidcore.ranking.blocks import ROWS
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.scales import Scale

PLAIN = "plain"
"""The stage before all postprocessors."""
Place = tuple[str, str, str]
"""The place of scores in scores.json: test set (or task of it), ranking and stage."""


@attrs.frozen(eq=False)
class TrialPictures:
    """The pictures of a trial.

    number: the trial's among those of its task, from 0. labelled: the test set. query, gallery:
    int64 [Q] and [G], numbers of the test set's pictures. places: int64 [Q], of the queries among
    those of all trials of the task.
    """

    number: int
    labelled: LabelledSet
    query: Tensor
    gallery: Tensor
    places: Tensor

    @functools.cached_property
    def relevance(self) -> Relevance:
        """The judge of pairs of these pictures."""
        return self.labelled.relevance(self.query, self.gallery)


@attrs.frozen(eq=False)
class DistanceBlock:
    """Distances of some queries of a trial to its whole gallery, as they are scored.

    distances: [q, G] of the queries from place `start` on, not to be changed. judged: these
    queries' matches, and what does not count.
    """

    place: Place
    trial: TrialPictures
    start: int
    distances: Tensor
    judged: Judgements


Watcher = Callable[[DistanceBlock], None]
"""A function that gets every block of distances that is scored."""


@attrs.frozen(eq=False)
class Trial:
    """A trial under one ranking.

    name: the name that its scores stand under, and the ranking's. probability: of one identity,
    from distances before postprocessors; None where it is not scored.
    """

    job: EvaluationJob
    name: tuple[str, str]
    pictures: TrialPictures
    ranking: MatcherRanking
    watcher: Watcher | None = None
    probability: Scale | None = None

    def new_scores(self, stage: str) -> TrialScores:
        """Return scores of a stage to which nothing is added yet."""
        pictures = self.pictures
        return TrialScores(
            self.job.settings,
            pictures.labelled.protocol,
            pictures.labelled.identity[pictures.gallery],
            len(pictures.query) * len(pictures.gallery),
            self.job.ranks,
            self.probability if stage == PLAIN else None,
        )

    def add(self, scores: TrialScores, stage: str, distances: Tensor, start: int) -> None:
        """Add the distances [q, G] of the queries from `start` on."""
        judged = self.pictures.relevance.rows(start, start + len(distances))
        scores.add(distances, judged, start)
        if self.watcher is not None:
            place = (*self.name, stage)
            self.watcher(DistanceBlock(place, self.pictures, start, distances, judged))

    def scored(self, stage: str, distances: Callable[[slice], Tensor]) -> TrialScores:
        """Return the scores of all queries. distances: gives some rows of distances."""
        scores = self.new_scores(stage)
        processes = sharing([scores], self.ranking.resources.processes)
        queries = len(self.pictures.query)
        for _, start in processes.share(range(0, queries, ROWS)):
            rows = slice(start, min(start + ROWS, queries))
            self.add(scores, stage, distances(rows), start)
        scores.gather(processes)
        return scores


def sharing(scores: list[TrialScores], processes: Processes) -> Processes:
    """Return the processes that may share the queries of these scores."""
    return processes if all(one.divisible for one in scores) else ALONE


def streamed(trials: list[Trial], queries: int, rows_at_once: int) -> list[TrialScores]:
    """Return the scores of trials of one task, whose distances are computed by blocks of queries:
    no postprocessor needs the matrix, so none is held. All trials take what they need of a block
    before the next one is computed.

    queries: the number of the task's queries.
    """
    scores = [trial.new_scores(PLAIN) for trial in trials]
    processes = sharing(scores, trials[0].ranking.resources.processes)
    for _, start in processes.share(range(0, queries, rows_at_once)):
        for trial, found in zip(trials, scores, strict=True):
            ends = torch.searchsorted(
                trial.pictures.places, torch.tensor([start, start + rows_at_once])
            )
            first, stop = ends.tolist()
            if first < stop:
                distances = trial.ranking.between("query", "gallery", first, stop)
                trial.add(found, PLAIN, distances, first)
    for found in scores:
        found.gather(processes)
    return scores
