"""Trains what a run file describes in a run folder: `reid run`, and `train` and `plan_run` of
`reidcore.tools`.

Torch-free at import: what is wrong with a run file is told before torch is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidcore.data.load_data import require_data
from reidcore.errors import ReidError, UsageError
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import run_source
from reidcore.runfiles.parse import parse_runfile
from reidcore.runfiles.runfile import RunFile
from reidcore.runfolder.folder import prepared
from reidcore.support.progress import Reporter, Silent
from reidcore.support.too_much import is_too_much, largest
from reidcore.support.wording import in_words, shortened
from reidcore.training.needed_weights import have_weights
from reidcore.training.options import TrainingOptions
from reidcore.training.teachers import find_run
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan, require_teachers

if TYPE_CHECKING:
    from reidcore.distributed.processes import Processes


def train(
    file: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    sets: Sequence[str] = (),
    resume: bool = False,
    check: bool = True,
    reporter: Reporter | None = None,
) -> dict[str, Any] | None:
    """Train and evaluate what a run file describes, as `reid run FILE --out FOLDER` does.

    file: a run file, or the name of a packaged one, such as "demo" or "qaconv:demo". folder: the
    run folder, new or empty. sets: changes such as "train.epochs=2". resume: go on with the run in
    the folder, if there is one. check: make a dry run on a random batch first. reporter: is told
    what happens; nothing is printed without one.

    Returns the scores, {test set: {ranking: {stage: {metric: fraction}}}}, or None where the run
    has no test set. Raises `reidcore.errors.ReidError` with what is wrong, before the folder is
    made where it is the run file; UsageError for a file with [repeat], whose runs are trained one
    by one, each with its own `sets`.

    >>> from reidcore.tools import train
    >>> scores = train("demo", "runs/short", ["train.epochs=1"])  # doctest: +SKIP
    >>> scores["demo"]["main"]["plain"]["mAP"]  # doctest: +SKIP
    0.231
    """
    plugins = Plugins()
    run = parse_runfile(*run_source(os.fspath(file), plugins), sets)
    if run.repeat:
        raise UsageError(f"{run.path}: train each run of [repeat] by its own changes of keys")
    shown = reporter or Silent()
    plan = plan_training(run, plugins, resume)
    options = TrainingOptions(Path(folder), sets, resume, check)
    return train_plan(plan, plugins, options, lambda: shown)


def plan_run(file: str | os.PathLike[str], sets: Sequence[str] = ()) -> Plan:
    """Return the plan of a run file: its parts, which fit together, its settings and its pictures.

    file: a run file, or the name of a packaged one. sets: changes such as "data.test=[]", after
    which no test set is looked at. Nothing is trained and no picture is opened; data that the core
    can draw are drawn. What [repeat] lists is not looked at.

    Raises `reidcore.errors.ReidError` with what is wrong, as `reid run` would.

    >>> from reidcore.tools import plan_run, settings_of
    >>> plan = plan_run("demo", ["data.test=[]"])  # doctest: +SKIP
    >>> settings_of(plan.resolved())["loss.id.smoothing"]  # doctest: +SKIP
    0.1
    >>> len(plan.data.training_rows())  # doctest: +SKIP
    840
    """
    plugins = Plugins()
    run = parse_runfile(*run_source(os.fspath(file), plugins), sets)
    return _with_data(plan_training(run, plugins, resume=False), plugins)


def plan_training(run: RunFile, plugins: Plugins, resume: bool) -> Plan:
    """Return the plan of a run file whose data and published weights are there, or can be made.

    Raises `ReidError` with what is wrong; nothing has been written and no data have been drawn.
    """
    plan = make_plan(run, plugins, allow_missing=True, find_run=find_run)
    require_data(plan.data)
    if not resume:
        have_weights(plan)
        require_teachers(plan)
    return plan


def train_plan(
    plan: Plan,
    plugins: Plugins,
    options: TrainingOptions,
    reporter: Callable[[], Reporter],
    processes: Processes | None = None,
) -> dict[str, Any] | None:
    """Train a plan of `plan_training` in its folder and return the scores.

    reporter: returns the reporter, which may be made late. processes: all that share the work, None
    for one alone; the first of them prepares the folder and draws data that are still to be made.
    """
    with ExitStack() as stack:
        if processes is None or processes.first:
            stack.enter_context(prepared(options.folder, options.resume))
            reporter().say(f"run folder {options.folder}")
            plan = _with_data(plan, plugins)
        if processes is not None:
            processes.wait()
        plan = _with_data(plan, plugins)  # the first process has drawn them meanwhile
        for note in plan.notes:
            reporter().say(f"note: {note}")
        from reidcore.distributed.processes import ALONE
        from reidcore.training.start import run_training

        try:
            return run_training(plan, plugins, options, reporter(), processes or ALONE)
        except Exception as error:
            settings = plan.resolved()
            if isinstance(error, ReidError) or not is_too_much(error, settings):
                raise
            raise UsageError(
                f"the run needs more than this machine can hold: {shortened(in_words(error), 300)}."
                f" Its largest setting is {largest(settings['parts'], 0)}; data.image and "
                "data.batch decide what training takes, eval.batch and eval.memory what "
                "evaluation does"
            ) from error


def _with_data(plan: Plan, plugins: Plugins) -> Plan:
    """The plan, made again where data are still to be drawn, now that they may be."""
    if all(one.rows is not None for one in plan.data.loaded):
        return plan
    return make_plan(plan.runfile, plugins, make_data=True, find_run=find_run)
