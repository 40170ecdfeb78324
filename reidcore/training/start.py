"""Starts or resumes the training of a plan in a run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reidcore.data.pictures import make_rows
from reidcore.distributed.processes import ALONE, Processes
from reidcore.errors import UsageError
from reidcore.evaluation.labelled_set import require_scorable
from reidcore.model.building import build_model, choose_device, make_loader
from reidcore.plugins.loading import Plugins
from reidcore.runfolder.folder import DRAWS, is_finished
from reidcore.runfolder.lock import check_resumable, drawn_as_text, make_lock
from reidcore.support.files import read_json, write_atomically, write_json
from reidcore.support.progress import Reporter
from reidcore.training.run import TrainingRun
from reidcore.wiring.plan import Plan


def run_training(
    plan: Plan,
    plugins: Plugins,
    folder: Path,
    sets: Sequence[str],
    reporter: Reporter,
    check: bool = True,
    processes: Processes = ALONE,
) -> dict[str, Any] | None:
    """Runs a plan in its folder, inside `runfolder.prepared`, from where the last save stopped.
    Returns the scores. processes: that all call this and share the work; they compute what one
    does, up to rounding, but for random numbers that layers of the network draw."""
    from reidcore.training.dry_run import dry_run

    settings = plan.runfile
    device = choose_device(settings.train.device)
    _set_determinism(settings.train.deterministic)
    if settings.train.compile and processes.count > 1:
        raise UsageError(
            "[train]: compile: torch cannot compile norms that several processes share; start one "
            "process, or set train.compile = false"
        )
    lock = make_lock(plan, sets, device, processes)
    started = (folder / "lock.json").exists()
    if started:
        for note in check_resumable(folder, lock) if processes.first else ():
            reporter.say(note)
        if is_finished(folder):
            (folder / "resume.safetensors").unlink(missing_ok=True)  # killed before it was removed
            reporter.say(f"{folder} is finished; nothing to resume")
            scores = folder / "scores.json"
            return dict(read_json(scores)) if scores.exists() else None
    require_scorable(plan)
    saved = (folder / "resume.safetensors").exists()
    processes.wait()  # before the first one changes what the others look at
    model = build_model(plan, settings.train.seed, "none" if saved else "need").to(device)
    model.freeze_norms(settings.train.frozen_norm)
    loader = make_loader(plan, device, processes)
    check = check and processes.first and not saved
    for note in [*model.notes, *(dry_run(plan, model) if check else ())]:
        reporter.say(f"note: {note}")
    if processes.first and not started:
        write_atomically(folder / "run.toml", settings.text)
        if drawn := drawn_as_text(plan.data.test):
            write_atomically(folder / DRAWS, drawn)
        write_json(folder / "lock.json", lock)
    size = sum(p.numel() for p in model.parameters())
    where = f"on {lock['device']}"
    if device.type == "cpu":
        where += f" with {lock['threads']} threads"
    if processes.count > 1:
        where += f" in each of {processes.count} processes"
    reporter.say(
        f"{settings.name}: {size / 1e6:.2f} M parameters, {plan.given.identities} identities, "
        f"{where}"
    )
    if settings.train.amp and device.type != "cuda":
        reporter.say("note: amp acts on CUDA only; this run computes in float32")
    rows = make_rows(plan.data.training_rows(), plan.data.camera_numbers, plan.given.modalities)
    return TrainingRun(model, loader, rows, folder, plugins, reporter).run()


def _set_determinism(on: bool) -> None:
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # `use_deterministic_algorithms` would import torch's compiler, which takes seconds.
    torch.set_deterministic_debug_mode("warn" if on else "default")
    torch.backends.cudnn.benchmark = not on
