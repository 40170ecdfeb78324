"""Evaluation: distances of the test sets' pictures, postprocessors, scores."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reidcore.contracts.parts import Template
from reidcore.data.pictures import meta_of
from reidcore.evaluation.evaluation_job import EvaluationJob
from reidcore.evaluation.labelled_set import LabelledSet, Pools, pools_of
from reidcore.evaluation.query_scores import QueryScores
from reidcore.evaluation.trial import PLAIN, Trial, TrialPictures, Watcher, streamed
from reidcore.evaluation.trial_scores import TrialScores, over_trials
from reidcore.protocols.base import SIDES, scored_name
from reidcore.protocols.open_set import OpenSet
from reidcore.ranking.blocks import rows_at_once
from reidcore.ranking.comparer import Comparer
from reidcore.ranking.kept_blocks import KeptBlocks
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.postprocess import Postprocessor
from reidcore.ranking.probability import match_probability
from reidcore.ranking.sides import Sides
from reidcore.ranking.templates import Storage, take
from reidcore.runfiles.tables import RankingTable
from reidcore.support.device_memory import CPU, fits
from reidcore.support.progress import Reporter
from reidcore.support.seeds import seeded


def evaluate(
    job: EvaluationJob,
    comparer: Comparer,
    kept: KeptBlocks,
    reporter: Reporter,
    watcher: Watcher | None = None,
    queries: QueryScores | None = None,
) -> dict[str, Any]:
    """Return {test set: {ranking: {stage: scores}}} of every test set and ranking.

    A test set whose protocol has several tasks stands there once for each, as `name/task`. Stages
    are "plain" and, after each postprocessor, the chain so far, such as "rerank+tlift". A score of
    several trials is {mean, deviation, values}.

    Random numbers are seeded anew, so that a part that draws some gives the same scores every time.
    The processes of the comparer must all call this; they share templates, distances and queries,
    and each gets all scores, which are those of one process alone.

    kept: where the distances of long jobs are kept until all scores are there, so that an
    evaluation that was killed goes on. watcher: gets all distances that are scored, block by block.
    queries: gets the scores of single queries.
    """
    results: dict[str, Any] = {}
    with seeded(job.seed, "evaluate"):
        evaluation = _Evaluation(job, comparer, kept, reporter, watcher, queries)
        for labelled in job.sets:
            results |= evaluation.scores(labelled)
    comparer.processes.wait()
    kept.discard()
    return results


class _Evaluation:
    """One evaluation of all test sets, with its postprocessors built."""

    def __init__(
        self,
        job: EvaluationJob,
        comparer: Comparer,
        kept: KeptBlocks,
        reporter: Reporter,
        watcher: Watcher | None,
        queries: QueryScores | None,
    ):
        self._job, self._comparer, self._kept = job, comparer, kept
        self._reporter, self._watcher, self._queries = reporter, watcher, queries
        self._posts = {name: build() for name, build in job.posts.items()}
        self._device = comparer.model.device

    def scores(self, labelled: LabelledSet) -> dict[str, Any]:
        """Return {name: {ranking: {stage: scores}}} of a test set's tasks."""
        pools = [pools_of(task) for task in labelled.tasks]
        with self._folder() as folder:
            stored = self._templates(labelled, pools, folder)
            return {
                scored_name(labelled.name, task): self._of_task(
                    labelled, scored_name(labelled.name, task), pool, stored
                )
                for task, pool in zip(labelled.tasks, pools, strict=True)
            }

    def _of_task(
        self, labelled: LabelledSet, name: str, pool: Pools, stored: StoredTemplates
    ) -> dict[str, Any]:
        """{ranking: {stage: scores}} of one task."""
        comparer = self._comparer.keeping(self._kept.of_set(name))
        pictures = [
            TrialPictures(number, labelled, pool.query[query], pool.gallery[gallery], query)
            for number, (query, gallery) in enumerate(pool.trials)
        ]
        found = {}
        for table in self._job.rankings:
            self._reporter.say(f"{name}: ranking {table.name}{_extent(table, pool)}")
            ranking = comparer.ranking(table, self._sides(labelled, pool, stored, table))
            # One trial of the whole pool needs no blocks to be held for others.
            alone = len(pool.trials) == 1
            asked = isinstance(labelled.protocol, OpenSet)
            probability = match_probability(table, comparer.model) if asked else None
            trials = [
                Trial(
                    self._job,
                    (name, table.name),
                    some,
                    ranking if alone else ranking.part(*places),
                    self._watcher,
                    probability,
                )
                for some, places in zip(pictures, pool.trials, strict=True)
            ]
            found[table.name] = self._stages(trials, table, pool)
        return found

    def _folder(self) -> contextlib.AbstractContextManager[Path | None]:
        """A folder for templates, if they are to be on disk."""
        on_disk = self._job.settings.templates == "disk"
        return self._kept.scratch() if on_disk else contextlib.nullcontext()

    def _templates(
        self, labelled: LabelledSet, pools: Sequence[Pools], folder: Path | None
    ) -> StoredTemplates:
        """Templates of all pictures that some trial takes, each made once."""
        query, gallery = (
            torch.cat([getattr(pool, side) for pool in pools]).unique() for side in SIDES
        )
        parts = {"query ": query, "gallery ": gallery}
        if torch.isin(query, gallery).any():
            parts = {"": torch.cat([query, gallery]).unique()}
        groups = []
        host = self._on_host(sum(map(len, parts.values())))
        for side, index in parts.items():
            place = folder and folder / (side.strip() or "all")
            if place:
                place.mkdir()
            self._reporter.say(
                f"{labelled.name}: templates of {len(index)} {side}pictures"
                f"{', in the memory of the CPU' if host else ''}"
            )
            rows = labelled.rows.take(index.numpy())
            storage = Storage(self._device, host, place)
            groups.append((index, self._comparer.templates(self._job.matchers, rows, storage)))
        return StoredTemplates(groups)

    def _on_host(self, pictures: int) -> bool:
        """True if the templates of so many pictures are kept in the memory of the CPU."""
        asked, plan = self._job.settings.templates, self._comparer.model.plan
        specs = [
            one for name in self._job.matchers for one in plan.matching(name).template.values()
        ]
        size = pictures * sum(spec.bytes for spec in specs)
        return asked == "host" or (asked == "auto" and not fits(size, self._device))

    def _sides(
        self, labelled: LabelledSet, pool: Pools, stored: StoredTemplates, table: RankingTable
    ) -> Sides:
        """The pictures that any trial of a task takes."""
        # A postprocessor's matrix that does not fit is the CPU's, and so is all that is done to it.
        matrix = 4 * max(len(mine) * len(theirs) for mine, theirs in pool.trials)
        place = self._device if not table.post or fits(matrix, self._device) else CPU
        pools = {side: getattr(pool, side) for side in SIDES}
        query, gallery = (meta_of(labelled.rows, index).to(place) for index in pools.values())
        names = {
            side: [labelled.rows.picture(number).name for number in index.tolist()]
            for side, index in pools.items()
        }
        templates = {side: stored.of(index) for side, index in pools.items()}
        return Sides(query, gallery, templates, names=names)

    def _stages(self, trials: list[Trial], table: RankingTable, pool: Pools) -> dict[str, Any]:
        """{stage: scores} over all trials."""
        if not table.post:
            rows = rows_at_once(len(pool.gallery), self._job.settings.memory, self._device)
            found = streamed(trials, len(pool.query), rows)
            return {PLAIN: self._over_trials(PLAIN, trials, found)}
        posts = {name: self._posts[name] for name in table.post}
        chains = [_chain(trial, posts) for trial in trials]
        return {
            stage: self._over_trials(stage, trials, [chain[stage] for chain in chains])
            for stage in chains[0]
        }

    def _over_trials(
        self, stage: str, trials: list[Trial], found: list[TrialScores]
    ) -> dict[str, Any]:
        if self._queries is not None:
            for trial, scores in zip(trials, found, strict=True):
                self._queries.add((*trial.name, stage), trial, scores.per_query())
        return over_trials(found)


def _chain(trial: Trial, posts: Mapping[str, Postprocessor]) -> dict[str, TrialScores]:
    """{stage: scores} before each postprocessor and at the end."""
    ranking = trial.ranking
    distances = ranking.whole()
    stages = {PLAIN: trial.scored(PLAIN, distances.__getitem__)}
    distances = ranking.before_postprocessing(distances)
    stage = ""
    for name, post in posts.items():
        distances = post(distances, ranking)
        stage = f"{stage}+{name}" if stage else name
        stages[stage] = trial.scored(stage, functools.partial(_as_ranked, ranking, distances))
    return stages


def _as_ranked(ranking: MatcherRanking, distances: Tensor, rows: slice) -> Tensor:
    return ranking.after_postprocessing(distances[rows], rows.start)


class StoredTemplates:
    """Templates by matcher of groups of pictures: (their numbers, ascending; templates)."""

    def __init__(self, groups: Sequence[tuple[Tensor, Mapping[str, Template]]]):
        self._groups = tuple(groups)

    def of(self, wanted: Tensor) -> Mapping[str, Template]:
        """Return {matcher: template} of pictures, by ascending numbers, that are all in one
        group."""
        for numbers, templates in self._groups:
            if torch.isin(wanted, numbers).all():
                if len(wanted) == len(numbers):
                    return templates
                index = torch.searchsorted(numbers, wanted)
                return {name: take(template, index) for name, template in templates.items()}
        raise ValueError("some pictures have no template")


def _extent(table: RankingTable, pool: Pools) -> str:
    """Return the number of trials, and the share of pairs that a shortlist leaves, as words for the
    line that announces the ranking."""
    text = f", {len(pool.trials)} trials" if len(pool.trials) > 1 else ""
    if table.shortlist is None:
        return text
    gallery = len(pool.trials[0][1])
    top = min(table.shortlist.top, gallery)
    return (
        f"{text}, {top} of {gallery} gallery pictures of each query, the nearest by "
        f"{table.shortlist.by}: {top / gallery:.1%} of all pairs"
    )
