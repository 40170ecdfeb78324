"""What lock.json says of a run, and whether a run may be resumed."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from reidcore.data.datasets import Loaded
from reidcore.distributed.processes import ALONE, Processes
from reidcore.errors import UsageError
from reidcore.protocols.base import scored_name
from reidcore.runfolder.folder import LAYOUT, RECORD, differences
from reidcore.support.files import read_json, write_json
from reidcore.version import __version__
from reidcore.wiring.plan import Plan


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
            "reidcore": __version__,
            **plan.distributions,
            "torch": torch.__version__,
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
    }


def mark_finished(folder: Path, used: Mapping[str, Any]) -> None:
    """Note that the run has reached its end, and what it used of the machine."""
    path = folder / RECORD
    write_json(path, {**read_json(path), "finished": True, "used": used})


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


def protocols_as_json(plan: Plan) -> dict[str, Any]:
    """{test set: the protocol that it is scored by, with every setting}, for the lock file."""
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


def drawn_galleries(loaded: Loaded) -> dict[str, Any]:
    """What a test set's protocol has drawn, for the run folder; {} where nothing is drawn.

    draw: name and version of the function. galleries: {task: file names of each trial}, paths
    below the pictures' common folder. The other pictures that the protocol names are queries.
    """
    if loaded.protocol is None or not loaded.protocol.draw:
        return {}
    assert loaded.rows is not None
    folder = os.path.commonpath([os.path.dirname(row.path) for row in loaded.rows])
    names = [os.path.relpath(row.path, folder).replace(os.sep, "/") for row in loaded.rows]
    return {
        "draw": loaded.protocol.draw,
        "galleries": {
            scored_name(loaded.source.name, task): [
                [names[number] for number in trial.gallery] for trial in task.trials
            ]
            for task in loaded.protocol.tasks(loaded.rows)
        },
    }


def drawn_as_text(loaded: Sequence[Loaded]) -> str:
    """draws.json: what was drawn for every test set, "" where nothing was."""
    found = {one.source.name: drawn for one in loaded if (drawn := drawn_galleries(one))}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n" if found else ""
