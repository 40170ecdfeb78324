"""Starts or resumes the training of a plan in a run folder."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import attrs
import torch

from reidcore.distributed.processes import ALONE, Processes
from reidcore.errors import UsageError
from reidcore.evaluation.labelled_set import require_scorable
from reidcore.model.building import build_model, choose_device, make_loader
from reidcore.model.model import Model
from reidcore.model.state_files import load_sections
from reidcore.plugins.loading import Plugins
from reidcore.runfolder.drawn_galleries import drawn_as_text
from reidcore.runfolder.folder import DRAWS, OBSERVED, RESUME, RUN_FILE, SCORES, WEIGHTS
from reidcore.runfolder.make_record import make_record, start_weights
from reidcore.runfolder.record import RECORD, check_resumable, is_finished, read_record
from reidcore.runfolder.score_files import read_scores
from reidcore.support.files import remove_file, write_atomically, write_json
from reidcore.support.progress import Reporter
from reidcore.training.dry_run import dry_run
from reidcore.training.needed_weights import have_weights
from reidcore.training.observing import Observing, observers_of
from reidcore.training.options import TrainingOptions
from reidcore.training.saves import is_trained
from reidcore.training.teachers import find_run
from reidcore.training.training_run import TrainingRun, training_rows
from reidcore.wiring.make_plan import make_plan
from reidcore.wiring.plan import Plan, require_teachers


def run_training(
    plan: Plan,
    plugins: Plugins,
    options: TrainingOptions,
    reporter: Reporter,
    processes: Processes = ALONE,
) -> dict[str, Any] | None:
    """Train and evaluate a plan in its folder, from where the last save stopped; return the scores.

    A dry run is made if the run is new. processes: those that all call this and share the work.
    They compute what one does, up to rounding, but for random numbers that layers of the network
    draw. The caller holds the folder by `runfolder.folder.prepared`.
    """
    settings, folder = plan.runfile.train, options.folder
    started, another = (folder / RECORD).exists(), False
    if started:
        plan = _numbered_as_before(plan, plugins, folder)
    device = choose_device(settings.device)
    _set_determinism(settings.deterministic)
    if settings.compile and processes.count > 1:
        raise UsageError(
            "[train]: compile: torch cannot compile norms that several processes share; start one "
            "process, or set train.compile = false"
        )
    observers = observers_of(plugins, plan.observers if processes.first else {})
    observing = Observing(observers, folder, reporter, options.traceback)
    record = make_record(plan, options.sets, device, processes.count)
    if started:
        if processes.first:
            watching = _only_watching(plan, plugins)
            another = _check_resumable(plan, folder, record, reporter, watching)
        if is_finished(folder):
            if observers and (folder / OBSERVED).exists():
                _catch_up(plan, device, folder, observing, reporter)
            return _finished_scores(folder, reporter)
    require_scorable(plan)
    require_teachers(plan)
    saved = (folder / RESUME).exists()
    if not saved:
        have_weights(plan)
    processes.wait()  # before the first one changes what the others look at
    model = build_model(plan, settings.seed, "none" if saved else "need").to(device)
    model.freeze_norms(settings.frozen_norm)
    loader = make_loader(plan, device, processes)
    _say_notes(model, reporter, options.check and processes.first and not saved)
    if processes.first and (not saved or another):
        record["weights"] = read_record(folder).get("weights", {}) if saved else start_weights(plan)
        _write_start(plan, folder, record)
    reporter.say(_headline(model, record))
    if settings.amp and device.type != "cuda":
        reporter.say("note: amp acts on CUDA only; this run computes in float32")
    return TrainingRun(model, loader, training_rows(plan), folder, observing, reporter).run()


def _numbered_as_before(plan: Plan, plugins: Plugins, folder: Path) -> Plan:
    """Return the plan with the numbers of cameras and modalities that its run has had so far, which
    other test sets would change."""
    numbered = read_record(folder).get("training", {})
    if attrs.evolve(plan.data, numbered=numbered).numbering == plan.data.numbering:
        return plan
    return make_plan(plan.runfile, plugins, numbered=numbered, find_run=find_run)


def _catch_up(
    plan: Plan, device: torch.device, folder: Path, observing: Observing, reporter: Reporter
) -> None:
    """Tell observers what they have missed of a run that is finished."""
    model = build_model(plan, plan.runfile.train.seed, "none").to(device)
    load_sections(model, folder / WEIGHTS)
    loader = make_loader(plan, device)
    TrainingRun(model, loader, training_rows(plan), folder, observing, reporter).catch_up()


def _only_watching(plan: Plan, plugins: Plugins) -> set[str]:
    """Return the distributions of plugins that only observe the run."""
    used = {wired.component.distribution for wired in plan.parts}
    readers = [one.source.reader for one in plan.data.loaded if one.source.reader is not None]
    used |= {plugins.component("reader", one.use).distribution for one in readers}
    return {plugins.load(name).found.distribution for name in plan.runfile.plugins} - used


def _check_resumable(
    plan: Plan,
    folder: Path,
    record: dict[str, Any],
    reporter: Reporter,
    watching: Collection[str],
) -> bool:
    """Refuse to go on with what would be another run; return whether it has another evaluation."""
    epochs = plan.runfile.train.epochs

    def trained() -> bool:
        return not is_finished(folder) and is_trained(folder, epochs)

    notes, another = check_resumable(folder, record, trained, watching)
    if another:
        notes.append("the run is trained; it is evaluated as the run file says now")
    for note in () if is_finished(folder) else notes:
        reporter.say(note)
    return another


def _set_determinism(on: bool) -> None:
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # `use_deterministic_algorithms` would import torch's compiler, which takes seconds.
    torch.set_deterministic_debug_mode("warn" if on else "default")
    torch.backends.cudnn.benchmark = not on


def _finished_scores(folder: Path, reporter: Reporter) -> dict[str, Any] | None:
    remove_file(folder / RESUME)  # of a run that was killed before it removed it
    reporter.say(f"{folder} is finished; nothing to resume")
    scores = folder / SCORES
    return read_scores(scores) if scores.exists() else None


def _say_notes(model: Model, reporter: Reporter, dry: bool) -> None:
    """Say what building the parts had to say, and what the dry run has, if one is made."""
    for note in [*model.notes, *(dry_run(model.plan, model) if dry else ())]:
        reporter.say(f"note: {note}")


def _write_start(plan: Plan, folder: Path, record: dict[str, Any]) -> None:
    """Write the files that a run folder has from the start."""
    write_atomically(folder / RUN_FILE, plan.runfile.text)
    if drawn := drawn_as_text(plan.data.test):
        write_atomically(folder / DRAWS, drawn)
    else:
        remove_file(folder / DRAWS)
    write_json(folder / RECORD, record)


def _headline(model: Model, record: dict[str, Any]) -> str:
    """Return the line that says what is trained, and where."""
    where = f"on {record['device']}"
    if model.device.type == "cpu":
        where += f" with {record['threads']} threads"
    if record["processes"] > 1:
        where += f" in each of {record['processes']} processes"
    size = sum(parameter.numel() for parameter in model.parameters())
    identities = model.plan.given.identities
    return f"{record['name']}: {size / 1e6:.2f} M parameters, {identities} identities, {where}"
