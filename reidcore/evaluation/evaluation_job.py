"""The evaluation that a run's plan asks for, and no more of the plan than it needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import attrs

from reidcore.data.datasets import Loaded
from reidcore.errors import DataError
from reidcore.evaluation.labelled_set import LabelledSet, make_labelled_set
from reidcore.evaluation.trial_scores import wanted_ranks
from reidcore.ranking.postprocess import Postprocessor, build_postprocessor
from reidcore.runfiles.tables import Eval, RankingTable
from reidcore.wiring.plan import Plan


@attrs.frozen(eq=False)
class EvaluationJob:
    """The test sets and rankings that are evaluated, and the settings of their evaluation.

    settings: the table [eval]. seed: of what parts draw while they rank. ranks: those of the CMC
    curve that are reported. sets: the test sets. rankings: what each of them is ranked by. posts:
    {name: function that builds the postprocessor}.
    """

    settings: Eval
    seed: int
    ranks: tuple[int, ...]
    sets: tuple[LabelledSet, ...]
    rankings: tuple[RankingTable, ...]
    posts: Mapping[str, Callable[[], Postprocessor]]

    @property
    def matchers(self) -> list[str]:
        """Every matcher whose templates some ranking needs."""
        return list(dict.fromkeys(name for one in self.rankings for name in one.matchers))


def evaluation_job(plan: Plan) -> EvaluationJob:
    """Return the evaluation that a run's plan asks for. Raises DataError where a test set's
    pictures are absent."""
    run = plan.runfile
    return EvaluationJob(
        run.eval,
        run.train.seed,
        tuple(wanted_ranks(run.eval, run.train.best)),
        tuple(_labelled(loaded, plan) for loaded in plan.data.test),
        plan.rankings,
        {post.part.name: functools.partial(build_postprocessor, plan, post) for post in plan.posts},
    )


def _labelled(loaded: Loaded, plan: Plan) -> LabelledSet:
    if loaded.rows is None:
        raise DataError(f"[data] test {loaded.source.name!r}: data not found at {loaded.missing}")
    return make_labelled_set(loaded, plan.data.numbering, plan.runfile.eval.same_camera)
