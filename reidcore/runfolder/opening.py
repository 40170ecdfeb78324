"""Opens a trained run from its folder: its plan and its model. Torch-free at import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from reidcore.errors import DataError, UsageError
from reidcore.runfolder.calibration import measured_otherwise
from reidcore.runfolder.folder import RESUME, RUN_FILE, WEIGHTS
from reidcore.runfolder.record import RECORD, digest_of, read_record, require_keys, unfinished

TRAINED = ("training.identities", "training.cameras", "training.columns")
"""What every run record says of the training data."""

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
    items. purpose, make_data, allow_missing: as in `make_plan`. Raises RunFileError for what these
    two have wrong, DataError for what the folder's own files have.
    """
    from reidcore.plugins.loading import Plugins
    from reidcore.runfiles.parse import parse_runfile
    from reidcore.wiring.make_plan import make_plan

    record = read_record(folder)
    require_keys(folder, record, "sets", *TRAINED)
    file = folder / RUN_FILE
    text = _text(file)

    own = record["sets"]
    try:
        parse_runfile(text, file, own)
    except UsageError as error:
        raise DataError(f"{file} is damaged, or sets in {RECORD}: {error}") from None
    try:
        return make_plan(
            parse_runfile(text, file, own, evaluation, sets),
            Plugins(),
            purpose=purpose,
            make_data=make_data,
            allow_missing=allow_missing,
            training=record["training"],
        )
    except UsageError as error:
        as_written = digest_of(text) == record.get("run_file", digest_of(text))
        if as_written or evaluation is not None or sets:
            raise
        raise DataError(f"{file} has been changed since the run was made: {error}") from None


def _text(file: Path) -> str:
    """Return the text of a run folder's own run file."""
    from reidcore.runfiles.toml_files import read_text

    try:
        return read_text(file)
    except UsageError as error:
        raise DataError(f"{file} is missing or damaged: {error}") from None


def open_model(folder: Path, device: str = "auto") -> Model:
    """See `reidcore.modules.open_run`."""
    return load_model(folder, read_plan(folder, "eval", allow_missing=True), device)


def load_with(folder: Path, plan: Plan, names: Sequence[str], device: str) -> Model:
    """Return the model of the run in a folder, in eval mode, with these features of it, whether or
    not its rankings read them.

    Raises UsageError for features behind what the run has trained.
    """
    providers = {wired.instance: wired for wired in (plan.backbone, *plan.heads)}
    wanted = {role: set(outputs) for role, outputs in plan.wanted.items()}
    more = []
    for name in names:
        instance, _, output = name.partition(".")
        outputs = wanted[providers[instance].part.role]
        if output not in outputs:
            outputs.add(output)
            more.append(name)
    frozen = {role: frozenset(outputs) for role, outputs in wanted.items()}
    try:
        return load_model(folder, attrs.evolve(plan, wanted=frozen), device)
    except DataError as error:
        if not more:
            raise
        raise UsageError(
            f"the run computes no {' and no '.join(map(repr, more))}, and it has no weights for "
            f"it: {error}"
        ) from error


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
