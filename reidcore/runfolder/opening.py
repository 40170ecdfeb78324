"""Opens a trained model from its run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidcore.errors import UsageError

if TYPE_CHECKING:
    from reidcore.model.model import Model
    from reidcore.runfiles.runfile import RunFile
    from reidcore.wiring.plan import Plan
from reidcore.runfolder.folder import check_folder


def read_run(
    folder: Path, other: Path | None = None, sets: Sequence[str] = ()
) -> tuple[dict[str, Any], RunFile]:
    """The lock and the run file of a run folder; `other` and `sets` change its evaluation (see
    `runfile.parse_runfile`)."""
    from reidcore.runfiles.parse import parse_runfile
    from reidcore.runfiles.toml_files import read_text

    lock = check_folder(folder)
    file = folder / "run.toml"
    return lock, parse_runfile(read_text(file), file, lock["sets"], other, sets)


def open_model(folder: Path, device: str = "auto") -> Model:
    """See `reidcore.modules.open_run`."""
    from reidcore.plugins.loading import Plugins
    from reidcore.wiring.make_plan import make_plan

    lock, run = read_run(folder)
    plan = make_plan(run, Plugins(), purpose="eval", allow_missing=True, training=lock["training"])
    return load_model(folder, plan, device)


def load_model(folder: Path, plan: Plan, device: str) -> Model:
    """The folder's model in eval mode."""
    from reidcore.model.building import build_model, choose_device
    from reidcore.model.state_files import load_sections

    weights = folder / "weights.safetensors"
    if not weights.exists() and (folder / "resume.safetensors").exists():
        raise UsageError(f"the run in {folder} is unfinished; go on with it by --resume first")
    model = build_model(plan, plan.runfile.train.seed, "none").to(choose_device(device))
    load_sections(model, weights)
    return model.eval()
