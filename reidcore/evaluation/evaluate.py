"""Evaluation: protocol, distances, postprocessors, scores."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from reidcore.contracts.parts import Template
from reidcore.data.pictures import PictureLoader, meta_of
from reidcore.distributed.processes import ALONE, Processes
from reidcore.errors import DataError
from reidcore.evaluation.labelled_set import Pools, TestSet, make_test_set, pools_of
from reidcore.evaluation.relevance import Judged, Relevance
from reidcore.evaluation.trial_scores import Tally, over_trials, wanted_ranks
from reidcore.model.building import build_part
from reidcore.model.model import Model
from reidcore.protocols.base import SIDES, scored_name
from reidcore.ranking.kept_blocks import CPU, KeptBlocks
from reidcore.ranking.matcher_ranking import ROWS, MatcherRanking, ranking_of, rows_at_once
from reidcore.ranking.postprocess import apply_post
from reidcore.ranking.templates import make_templates, take
from reidcore.runfiles.tables import RankingTable
from reidcore.support.device_memory import fits
from reidcore.support.progress import Reporter
from reidcore.support.seeds import seeded
from reidcore.wiring.plan import Plan

PLAIN = "plain"
"""The stage before all postprocessors."""


def evaluate(
    plan: Plan,
    model: Model,
    loader: PictureLoader,
    reporter: Reporter,
    kept: KeptBlocks,
    processes: Processes = ALONE,
    watch: Callable[[Seen], None] | None = None,
) -> dict[str, Any]:
    """{test set: {ranking: {stage: scores}}} for every test set and ranking.

    A test set whose protocol has several tasks stands there once for each, as `name/task`. Stages
    are "plain" and, after each postprocessor, the chain so far, such as "rerank+tlift". A score of
    several trials is {mean, deviation, values}. kept: where the distances of long jobs are kept
    until all scores are there, so that an evaluation that was killed goes on. Seeded anew, so that
    a part that draws random numbers gives the same scores every time. processes: that all call this
    and share templates, distances and queries; each gets all scores, and they are those of one.
    watch: is shown all distances that are scored, block by block.
    """
    with seeded(plan.runfile.train.seed, "evaluate"):
        results: dict[str, Any] = {}
        evaluation = _Evaluation(plan, model, loader, reporter, kept, processes, watch)
        for loaded in plan.data.test:
            if loaded.rows is None:
                raise DataError(
                    f"[data] test {loaded.source.name!r}: data not found at {loaded.missing}"
                )
            results |= evaluation.scores(make_test_set(loaded, plan))
    processes.wait()
    kept.discard()
    return results


class _Evaluation:
    def __init__(
        self,
        plan: Plan,
        model: Model,
        loader: PictureLoader,
        reporter: Reporter,
        kept: KeptBlocks,
        processes: Processes,
        watch: Callable[[Seen], None] | None,
    ):
        self._plan, self._model, self._loader = plan, model, loader
        self._watch = watch
        self._reporter, self._kept, self._processes = reporter, kept, processes
        self._posts = {wired.part.name: (wired, build_part(plan, wired)) for wired in plan.posts}

    def scores(self, test: TestSet) -> dict[str, Any]:
        """{name: {ranking: {stage: scores}}} of a test set's tasks."""
        with contextlib.ExitStack() as stack:
            folder = None
            if self._plan.runfile.eval.templates == "disk":
                folder = stack.enter_context(self._kept.scratch())
            return self._scores(test, folder)

    def _scores(self, test: TestSet, folder: Path | None) -> dict[str, Any]:
        pools = [pools_of(task) for task in test.tasks]
        stored = self._templates(test, pools, folder)
        found: dict[str, Any] = {}
        for task, pool in zip(test.tasks, pools, strict=True):
            name = scored_name(test.name, task)
            self._kept.begin(name)
            found[name] = {}
            for ranking in self._plan.rankings:
                self._reporter.say(f"{name}: ranking {ranking.name}{_share(ranking, pool)}")
                trials = self._trials(test, pool, stored, ranking, name)
                found[name][ranking.name] = self._stages(trials, ranking, pool)
        return found

    def _templates(self, test: TestSet, pools: Sequence[Pools], folder: Path | None) -> Stored:
        """Templates of all pictures that some trial takes, each made once."""
        settings = self._plan.runfile.eval
        names = list(dict.fromkeys(name for one in self._plan.rankings for name in one.matchers))
        query, gallery = (
            torch.cat([getattr(pool, side) for pool in pools]).unique() for side in SIDES
        )
        parts = {"query ": query, "gallery ": gallery}
        if torch.isin(query, gallery).any():
            parts = {"": torch.cat([query, gallery]).unique()}
        groups = []
        pictures = sum(map(len, parts.values()))
        host = self._on_host(names, pictures)
        for side, index in parts.items():
            place = folder and folder / (side.strip() or "all")
            if place:
                place.mkdir()
            self._reporter.say(
                f"{test.name}: templates of {len(index)} {side}pictures"
                f"{', in the memory of the CPU' if host else ''}"
            )
            rows = test.rows.take(index.numpy())
            made = make_templates(
                self._model,
                names,
                self._loader,
                rows,
                settings.views,
                settings.batch,
                self._processes,
                place,
                host,
            )
            groups.append((index, made))
        return Stored(groups)

    def _on_host(self, names: Sequence[str], pictures: int) -> bool:
        """Whether the templates of so many pictures are kept in the memory of the CPU."""
        asked = self._plan.runfile.eval.templates
        specs = [one for name in names for one in self._plan.matching(name).template.values()]
        size = pictures * sum(spec.bytes for spec in specs)
        return asked == "host" or (asked == "auto" and not fits(size, self._model.device))

    def _trials(
        self, test: TestSet, pool: Pools, stored: Stored, ranking: RankingTable, name: str
    ) -> list[_Trial]:
        run, model = self._plan.runfile, self._model
        sides = {side: stored.of(getattr(pool, side)) for side in SIDES}
        # A postprocessor's matrix that does not fit is the CPU's, and so is all that is done to it.
        matrix = 4 * max(len(mine) * len(theirs) for mine, theirs in pool.trials)
        place = model.device if not ranking.post or fits(matrix, model.device) else CPU
        query, gallery = (meta_of(test.rows, getattr(pool, side)).to(place) for side in SIDES)
        whole = ranking_of(
            model,
            ranking,
            query,
            gallery,
            sides,
            run.eval.memory,
            model.pairs,
            self._kept,
            processes=self._processes,
        )
        ranks = wanted_ranks(run.eval, run.train.best)
        # One trial of the whole pool needs no blocks to be held for others.
        return [
            _Trial(
                whole if len(pool.trials) == 1 else whole.part(of_query, of_gallery),
                test,
                pool.query[of_query],
                pool.gallery[of_gallery],
                of_query,
                functools.partial(Tally, run.eval, test.protocol, ranks=ranks),
                self._processes,
                (name, ranking.name),
                number,
                self._watch,
            )
            for number, (of_query, of_gallery) in enumerate(pool.trials)
        ]

    def _stages(
        self, trials: Sequence[_Trial], ranking: RankingTable, pool: Pools
    ) -> dict[str, Any]:
        """{stage: scores} over all trials."""
        if not ranking.post:
            memory = self._plan.runfile.eval.memory
            rows = rows_at_once(len(pool.gallery), memory, self._model.device)
            return {PLAIN: over_trials(self._streamed(trials, len(pool.query), rows))}
        chains = [self._chain(trial, ranking.post) for trial in trials]
        return {stage: over_trials([chain[stage] for chain in chains]) for stage in chains[0]}

    def _streamed(self, trials: Sequence[_Trial], queries: int, rows_at_once: int) -> list[Tally]:
        """Scores by blocks of queries: no postprocessor needs the matrix, so none is held. All
        trials take what they need of a block before the next one is computed."""
        tallies = [trial.begin() for trial in trials]
        processes = self._processes if all(tally.divisible for tally in tallies) else ALONE
        for _, start in processes.share(range(0, queries, rows_at_once)):
            for trial, tally in zip(trials, tallies, strict=True):
                ends = torch.searchsorted(trial.places, torch.tensor([start, start + rows_at_once]))
                rows = slice(*ends.tolist())
                if rows.start < rows.stop:
                    distances = trial.context.between("query", "gallery", rows.start, rows.stop)
                    trial.add(tally, PLAIN, distances, rows)
        for tally in tallies:
            tally.gather(processes)
        return tallies

    def _chain(self, trial: _Trial, posts: Sequence[str]) -> dict[str, Tally]:
        """{stage: scores} before each postprocessor and at the end."""
        context = trial.context
        distances = context.whole()
        stages = {PLAIN: trial.tally(PLAIN, lambda rows: distances[rows])}
        distances = context.offered(distances)
        done: list[str] = []
        for name in posts:
            distances = apply_post(*self._posts[name], distances, context)
            done.append(name)
            complete = functools.partial(_complete, context, distances)
            stage = "+".join(done)
            stages[stage] = trial.tally(stage, complete)
        return stages


def _complete(context: MatcherRanking, distances: Tensor, rows: slice) -> Tensor:
    return context.complete(distances[rows], rows.start)


class Stored:
    """Templates by matcher of groups of pictures: (their numbers, ascending; templates)."""

    def __init__(self, groups: Sequence[tuple[Tensor, Mapping[str, Template]]]):
        self._groups = tuple(groups)

    def of(self, wanted: Tensor) -> Mapping[str, Template]:
        """Templates of pictures, by ascending numbers, that are all in one group."""
        for numbers, templates in self._groups:
            if torch.isin(wanted, numbers).all():
                if len(wanted) == len(numbers):
                    return templates
                index = torch.searchsorted(numbers, wanted)
                return {name: take(template, index) for name, template in templates.items()}
        raise ValueError("some pictures have no template")


@attrs.frozen(eq=False)
class Seen:
    """Distances of some queries of a trial to its whole gallery, as they are scored.

    place: (name that the scores stand under, ranking, stage). trial: its number, from 0. query,
    gallery: int64 [Q] and [G], numbers of all the trial's pictures in the test set. distances: [q,
    G] of the queries from place `start` on, not to be changed; judged: what of them counts.
    """

    place: tuple[str, str, str]
    trial: int
    test: TestSet
    query: Tensor
    gallery: Tensor
    start: int
    distances: Tensor
    judged: Judged


@attrs.frozen(eq=False)
class _Trial:
    """A trial under one ranking.

    query, gallery: int64 [Q] and [G], numbers of the test set's pictures. places: int64 [Q], of the
    queries in the task's pool. counting: makes a `Tally` of gallery identities and pairs. name: of
    the scores and of the ranking.
    """

    context: MatcherRanking
    test: TestSet
    query: Tensor
    gallery: Tensor
    places: Tensor
    counting: Callable[..., Tally]
    processes: Processes
    name: tuple[str, str]
    number: int
    watch: Callable[[Seen], None] | None

    def begin(self) -> Tally:
        pairs = len(self.query) * len(self.gallery)
        return self.counting(identity=self.test.identity[self.gallery], pairs=pairs)

    @functools.cached_property
    def relevance(self) -> Relevance:
        return self.test.relevance(self.query, self.gallery)

    def add(self, tally: Tally, stage: str, distances: Tensor, rows: slice) -> None:
        """Counts some queries' distances to the whole gallery."""
        judged = self.relevance.rows(rows.start, rows.stop)
        tally.add(distances, judged, rows.start)
        if self.watch is not None:
            self.watch(
                Seen(
                    (*self.name, stage),
                    self.number,
                    self.test,
                    self.query,
                    self.gallery,
                    rows.start,
                    distances,
                    judged,
                )
            )

    def tally(self, stage: str, distances: Callable[[slice], Tensor]) -> Tally:
        """The scores of all queries, whose rows of distances come block by block."""
        found = self.begin()
        processes = self.processes if found.divisible else ALONE
        for _, start in processes.share(range(0, len(self.query), ROWS)):
            rows = slice(start, min(start + ROWS, len(self.query)))
            self.add(found, stage, distances(rows), rows)
        found.gather(processes)
        return found


def _share(ranking: RankingTable, pool: Pools) -> str:
    """How many trials there are, and what a shortlist leaves of the pairs, for the line that
    announces the ranking."""
    text = f", {len(pool.trials)} trials" if len(pool.trials) > 1 else ""
    if ranking.shortlist is None:
        return text
    gallery = len(pool.trials[0][1])
    top = min(ranking.shortlist.top, gallery)
    return (
        f"{text}, {top} of {gallery} gallery pictures of each query, the nearest by "
        f"{ranking.shortlist.by}: {top / gallery:.1%} of all pairs"
    )
