"""Opens a trained run from its folder: its plan and its model. Torch-free at import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reidcore.runfolder.calibration import measured_otherwise
from reidcore.runfolder.folder import RESUME, RUN_FILE, WEIGHTS
from reidcore.runfolder.record import read_record, unfinished

if TYPE_CHECKING:
    from reidcore.model.model import Model
    from reidcore.wiring.parts import Purpose
    from reidcore.wiring.plan import Plan


def read_plan(
    folder: Path,
    purpose: Purpose,
    *,
    evaluation: Path | None = None,
    sets: Sequence[str] = (),
    make_data: bool = False,
    allow_missing: bool = False,
) -> Plan:
    """Return the plan of the run in a folder, wired again for a purpose.

    evaluation: a run file whose evaluation takes the place of the run's own. sets: further `--set`
    items. purpose, make_data, allow_missing: as in `make_plan`.
    """
    from reidcore.plugins.loading import Plugins
    from reidcore.runfiles.parse import parse_runfile
    from reidcore.runfiles.toml_files import read_text
    from reidcore.wiring.make_plan import make_plan

    record = read_record(folder)
    file = folder / RUN_FILE
    return make_plan(
        parse_runfile(read_text(file), file, record["sets"], evaluation, sets),
        Plugins(),
        purpose=purpose,
        make_data=make_data,
        allow_missing=allow_missing,
        training=record["training"],
    )


def open_model(folder: Path, device: str = "auto") -> Model:
    """See `reidcore.modules.open_run`."""
    return load_model(folder, read_plan(folder, "eval", allow_missing=True), device)


def load_model(folder: Path, plan: Plan, device: str) -> Model:
    """Return the model of the run in a folder, in eval mode."""
    from reidcore.model.building import build_model, choose_device
    from reidcore.model.state_files import load_sections

    weights = folder / WEIGHTS
    if not weights.exists() and (folder / RESUME).exists():
        raise unfinished(folder)
    model = build_model(plan, plan.runfile.train.seed, "none").to(choose_device(device))
    load_sections(model, weights)
    measured = read_record(folder).get("resolved", {})
    for name in model.pairs:
        if changes := measured_otherwise(measured, plan.resolved(), name):
            model.stale_pairs[name] = changes
    return model.eval()
