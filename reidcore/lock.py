"""What lock.json says of a run, and whether a run may be resumed."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from reidcore import __version__
from reidcore.errors import UsageError
from reidcore.plan import Plan
from reidcore.processes import ALONE, Processes
from reidcore.runfolder import LAYOUT, differences, read_json
from reidcore.test_sets import protocols_as_json


def make_lock(
    plan: Plan, sets: Sequence[str], device: torch.device, processes: Processes = ALONE
) -> dict[str, Any]:
    """What lock.json holds at the start of a run."""
    return {
        "layout": LAYOUT,
        "finished": False,
        "name": plan.runfile.name,
        "sets": list(sets),
        "resolved": plan.resolved(),
        "versions": {
            "reidcore": __version__, **plan.distributions, "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes.count,
        "data": plan.data.hashes,
        "training": {
            "identities": plan.given.identities,
            "cameras": plan.given.cameras,
            "modalities": list(plan.given.modalities),
            "train_modalities": list(plan.given.train_modalities),
            "columns": sorted(plan.given.train_columns),
            "camera_numbers": plan.data.camera_numbers,
            "trials": {use: list(trials) for use, trials in plan.data.trials.items()},
        },
        "protocols": protocols_as_json(plan),
    }  # fmt: skip


def check_resumable(folder: Path, lock: Mapping[str, Any]) -> list[str]:
    """Notes on what may differ; UsageError on what makes a resumed run another run."""
    old = read_json(folder / "lock.json")
    new = json.loads(json.dumps(lock))
    changed = differences(old.get("resolved"), new["resolved"])
    data = differences(old.get("data"), new["data"])
    changed += [f"the manifest of data.{text}" for text in data]
    own = {name: v for name, v in new["versions"].items() if name not in ("torch", "python")}
    before = {name: old.get("versions", {}).get(name) for name in own}
    changed += [f"the version of {text}" for text in differences(before, own)]
    if changed:
        raise UsageError(
            f"{folder} cannot be resumed, because it would become another run: "
            + "; ".join(changed[:5])
            + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
            + ". Undo the change, or start another folder with --out."
        )
    notes = []
    for key in ("device", "threads", "processes"):
        found = old.get(key, 1)  # the number of processes was not always written
        if found != new[key]:
            notes.append(
                f"note: {key} was {found}, is {new[key]}: the end will not be bit-identical"
            )
    return notes
