"""Evaluates a run again, and keeps of its distances what the page shows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reid_report.folder import Place
from reid_report.looking import RATES, Wanted, Watcher
from reid_report.stage import Stage
from reidcore.api import Row
from reidcore.tools import Reporter, Search, open_evaluation


@attrs.frozen(eq=False)
class Evaluated:
    """Everything that the evaluation of one run showed.

    search: the run, for explanations. stages: by place. test_of: {name that scores stand under:
    test set}. rows: {test set: its pictures}. folder: {test set: the folder that holds them}.
    hashes: {test set: its manifest's}. scores: as an evaluation returns them.
    """

    search: Search
    stages: Mapping[Place, Stage]
    test_of: Mapping[str, str]
    rows: Mapping[str, Sequence[Row]]
    folder: Mapping[str, str]
    hashes: Mapping[str, str]
    scores: Mapping[str, Any]


def evaluated(
    run: Path, reporter: Reporter, device: str = "auto", near: int = 10, ranking: str = ""
) -> Evaluated:
    """Evaluate a run folder and return what the page shows of its distances.

    near: gallery pictures of each ranked list. ranking: the only one that is looked at, "" for all.
    Raises `ReidError` where weights, plugins, pictures or that ranking are not there.
    """
    evaluation = open_evaluation(run, ranking=ranking)
    model = evaluation.load_model(device)
    rows, settings = evaluation.test_sets, evaluation.settings
    wanted = Wanted(near, settings.tar_at or RATES, settings.ties, settings.ap)
    watcher = Watcher(wanted, rows)
    scores = evaluation.scores(model, reporter, watcher)
    folders = {
        name: os.path.commonpath([os.path.dirname(row.path) for row in some])
        for name, some in rows.items()
    }
    search = Search(run, evaluation.plan, model)
    stages, test_of = watcher.stages(), watcher.test_of
    return Evaluated(search, stages, test_of, rows, folders, evaluation.hashes, scores)
