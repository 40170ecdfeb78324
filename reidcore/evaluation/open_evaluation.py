"""Evaluates a trained run from its folder: `reid eval`, and `reidcore.tools.open_evaluation`.

Torch-free at import: what is wrong with the run or the new evaluation is told before torch is
imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from reidcore.contracts.component import Row
from reidcore.errors import UsageError, nearest
from reidcore.runfolder.opening import load_model, read_plan
from reidcore.wiring.plan import Plan

if TYPE_CHECKING:
    from reidcore.distributed.processes import Processes
    from reidcore.evaluation.query_scores import QueryScores
    from reidcore.evaluation.trial import DistanceBlock
    from reidcore.model.model import Model
    from reidcore.runfiles.tables import Eval
    from reidcore.support.progress import Reporter


@attrs.frozen(eq=False)
class Evaluation:
    """A trained run with its test sets, ready to be evaluated; see `open_evaluation`.

    folder: the run folder. plan: the run, with what its rankings reach.
    """

    folder: Path
    plan: Plan

    @property
    def settings(self) -> Eval:
        """The table [eval] of the run: how scores are counted."""
        return self.plan.runfile.eval

    @property
    def test_sets(self) -> Mapping[str, Sequence[Row]]:
        """{test set: its pictures}; the places of pictures in these lists are their numbers."""
        return {one.source.name: one.rows or () for one in self.plan.data.test}

    @property
    def hashes(self) -> Mapping[str, str]:
        """{"test NAME": hash of that test set's pictures, as the run record has it}."""
        return self.plan.data.hashes

    def load_model(self, device: str = "") -> Model:
        """Return the trained network in eval mode.

        device: auto, cpu, cuda or cuda:N; "" is that of the run file. Raises `ReidError` for
        weights that are missing or do not fit.
        """
        return load_model(self.folder, self.plan, device or self.plan.runfile.train.device)

    def scores(
        self,
        model: Model,
        reporter: Reporter,
        watcher: Callable[[DistanceBlock], None] | None = None,
        processes: Processes | None = None,
        queries: QueryScores | None = None,
    ) -> dict[str, Any]:
        """Return {test set: {ranking: {stage: {metric: fraction}}}}.

        A test set whose protocol has several tasks stands there once for each, as `name/task`.
        Stages are "plain" and, after each postprocessor, the chain so far, such as "rerank+tlift".
        A score of several trials is {mean, deviation, values}. Distances of long jobs are kept in
        the run folder until the end, so that a killed evaluation goes on with them.

        reporter: is told what happens. watcher: called with blocks of all distances as they are
        scored. processes: all that share the work, None for one alone.
        queries: gets the scores of single queries.
        """
        from reidcore.distributed.processes import ALONE
        from reidcore.evaluation.evaluate import evaluate
        from reidcore.evaluation.evaluation_job import evaluation_job
        from reidcore.model.building import make_loader
        from reidcore.ranking.comparer import make_comparer

        loader = make_loader(self.plan, model.device)
        comparer = make_comparer(model, loader, processes or ALONE)
        kept = comparer.kept_blocks(self.folder, reporter)
        return evaluate(evaluation_job(self.plan), comparer, kept, reporter, watcher, queries)


def open_evaluation(
    folder: str | os.PathLike[str],
    other: str | os.PathLike[str] | None = None,
    sets: Sequence[str] = (),
    ranking: str = "",
) -> Evaluation:
    """Open a run folder to evaluate it on its test sets.

    folder: of a trained run. other: a file whose test sets, rankings, postprocessors and [eval]
    replace the run's, as in `reid eval RUN_DIR FILE`. sets: changes such as "eval.ties=grouped".
    ranking: the only ranking that is evaluated, "" for all. Data that the core can draw are drawn.

    Raises `reidcore.errors.ReidError` where plugins, pictures or that ranking are not there, or
    where there is nothing to score.

    >>> from reidcore.tools import open_evaluation, reporter
    >>> evaluation = open_evaluation("runs/demo")  # doctest: +SKIP
    >>> model = evaluation.load_model("cpu")  # doctest: +SKIP
    >>> scores = evaluation.scores(model, reporter())  # doctest: +SKIP
    """
    from reidcore.evaluation.labelled_set import require_scorable

    folder = Path(folder)
    evaluation = Path(other) if other is not None else None
    plan = read_plan(folder, "eval", evaluation=evaluation, sets=sets, make_data=True)
    require_scorable(plan)
    if ranking:
        chosen = tuple(one for one in plan.rankings if one.name == ranking)
        if not chosen:
            known = [one.name for one in plan.rankings]
            raise UsageError(
                f"the run has no ranking {ranking!r}{nearest(ranking, known)}; there are "
                f"{', '.join(known)}"
            )
        plan = attrs.evolve(plan, rankings=chosen)
    return Evaluation(folder, plan)
