"""Makes the run record, lock.json, which `reidcore.training.start` writes when a run starts."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Any

import attrs
import torch

from reidcore.runfolder.folder import WEIGHTS
from reidcore.runfolder.record import LAYOUT, digest_of
from reidcore.version import __version__
from reidcore.wiring.plan import Plan


def make_record(
    plan: Plan, sets: Sequence[str], device: torch.device, processes: int = 1
) -> dict[str, Any]:
    """Return the record of a run that starts now.

    sets: the `--set` items that the plan was made with. processes: how many share the run.
    """
    return {
        "layout": LAYOUT,
        "finished": False,
        "name": plan.runfile.name,
        "sets": list(sets),
        "run_file": digest_of(plan.runfile.text),
        "resolved": plan.resolved(),
        "versions": {
            "reidcore": __version__,
            **plan.distributions,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes,
        "data": plan.data.hashes,
        "teachers": {
            name: _digest(Path(run.folder, WEIGHTS))
            for _, name, run in plan.teachers
            if run is not None
        },
        "training": {
            "identities": plan.given.identities,
            "cameras": plan.given.cameras,
            "modalities": list(plan.given.modalities),
            "train_modalities": list(plan.given.train_modalities),
            "columns": sorted(plan.given.train_columns),
            "camera_numbers": plan.data.camera_numbers,
            "trials": {use: list(trials) for use, trials in plan.data.trials.items()},
        },
        "protocols": _protocols(plan),
    }


def start_weights(plan: Plan) -> dict[str, str]:
    """Return {part and file name: SHA-256} of the files of weights that training starts from, which
    must be there."""
    return {f"{part}: {Path(path).name}": _digest(Path(path)) for part, path in plan.weights}


def _digest(weights: Path) -> str:
    with open(weights, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _protocols(plan: Plan) -> dict[str, Any]:
    """Return {test set: the protocol that it is scored by, with every setting}."""
    same_camera = plan.runfile.eval.same_camera
    return {
        one.source.name: {
            "use": one.protocol.name,
            **attrs.asdict(one.protocol),
            **(
                {"same_camera": one.protocol.same_place(same_camera)}
                if one.protocol.same_camera_key
                else {}
            ),
        }
        for one in plan.data.test
        if one.protocol is not None
    }
