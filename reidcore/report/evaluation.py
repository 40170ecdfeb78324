"""The distances of a run, computed anew where its weights, plugins and pictures are there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reidcore.contracts.component import Row
from reidcore.errors import UsageError, nearest
from reidcore.evaluation.evaluate import evaluate
from reidcore.evaluation.job import evaluation_job
from reidcore.evaluation.labelled_set import require_scorable
from reidcore.model.building import make_loader
from reidcore.model.model import Model
from reidcore.ranking.scorer import make_scorer
from reidcore.report.folder import Place
from reidcore.report.looking import RATES, Wanted, Watcher
from reidcore.report.stage import Stage
from reidcore.runfiles.tables import RankingTable
from reidcore.runfolder.opening import load_model, read_plan
from reidcore.support.progress import Reporter
from reidcore.wiring.plan import Plan


@attrs.frozen(eq=False)
class Evaluated:
    """What a run's evaluation showed.

    stages: by place. test_of: {name that scores stand under: test set}. rows: {test set: its
    pictures}. folder: {test set: the folder that holds them}. hashes: {test set: its manifest's}.
    scores: as `evaluate` returns them.
    """

    plan: Plan
    model: Model
    stages: Mapping[Place, Stage]
    test_of: Mapping[str, str]
    rows: Mapping[str, Sequence[Row]]
    folder: Mapping[str, str]
    hashes: Mapping[str, str]
    scores: Mapping[str, Any]


def evaluated(
    run: Path, reporter: Reporter, device: str = "auto", near: int = 10, ranking: str = ""
) -> Evaluated:
    """Scores a run folder again and keeps what a report shows.

    near: gallery pictures of each ranked list. ranking: the only one that is looked at, "" for all.
    Raises `ReidError` where weights, plugins, pictures or that ranking are not there.
    """
    plan = read_plan(run, "eval", make_data=True)
    require_scorable(plan)
    if ranking:
        plan = attrs.evolve(plan, rankings=_chosen(plan, ranking))
    model = load_model(run, plan, device)
    rows = {one.source.name: one.rows or () for one in plan.data.test}
    settings = plan.runfile.eval
    wanted = Wanted(near, settings.tar_at or RATES, settings.ties, settings.ap)
    watcher = Watcher(wanted, rows)
    scorer = make_scorer(model, make_loader(plan, model.device))
    kept = scorer.kept_blocks(run, reporter)
    scores = evaluate(evaluation_job(plan), scorer, kept, reporter, watcher)
    folders = {
        name: os.path.commonpath([os.path.dirname(row.path) for row in some])
        for name, some in rows.items()
    }
    return Evaluated(
        plan, model, watcher.stages(), watcher.test_of, rows, folders, plan.data.hashes, scores
    )


def _chosen(plan: Plan, name: str) -> tuple[RankingTable, ...]:
    chosen = tuple(one for one in plan.rankings if one.name == name)
    if not chosen:
        known = [one.name for one in plan.rankings]
        raise UsageError(
            f"the run has no ranking {name!r}{nearest(name, known)}; there are {', '.join(known)}"
        )
    return chosen
