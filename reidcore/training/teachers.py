"""Finds the trained runs that parts learn from. Torch-free at import.

`reidcore.training.teacher` computes with them.
"""

from __future__ import annotations

import os
from pathlib import Path

from reidcore.contracts.component import Feature
from reidcore.contracts.trained_run import Seen, Teacher, TrainedRun
from reidcore.errors import DataError
from reidcore.runfolder.folder import WEIGHTS
from reidcore.runfolder.opening import read_plan
from reidcore.runfolder.record import read_record, unfinished
from reidcore.wiring.plan import Plan, seen_by


def find_run(name: str) -> TrainedRun | None:
    """Return the finished run in a folder, looked up under the current one, else under
    REID_WEIGHTS; None if there is no such folder.

    Raises ReidError where it holds no finished run, or a plugin is missing that its rankings need.
    """
    own = Path(name).expanduser().absolute()
    folders = [own, *(Path(base, name) for base in [os.environ.get("REID_WEIGHTS")] if base)]
    folder = next((one.absolute() for one in folders if one.is_dir()), None)
    if folder is None:
        return None
    if not read_record(folder).get("finished"):
        raise unfinished(folder)
    if not (folder / WEIGHTS).exists():
        raise DataError(f"{folder / WEIGHTS} is missing, the weights of the run in that folder")
    plan = read_plan(folder, "rank", allow_missing=True)

    def make(run: TrainedRun, student: Seen) -> Teacher:
        from reidcore.training.teacher import TrainedTeacher

        return TrainedTeacher(run, plan, student)

    return TrainedRun(
        folder=str(folder),
        seen=seen_by(plan.runfile.data, plan.given.modalities),
        features=_features(plan),
        matchers=plan.given.matchers,
        reads={one.part.name: tuple(name for _, name in one.reads) for one in plan.matchers},
        rankings={one.name: tuple(one.weights) for one in plan.rankings},
        by_row=frozenset(one.name for one in plan.rankings if one.scale == "row_minmax"),
        make=make,
    )


def _features(plan: Plan) -> dict[str, Feature]:
    return {
        f"{wired.instance}.{output}": feature
        for wired in (plan.backbone, *plan.heads)
        for output, feature in wired.outputs.items()
    }
