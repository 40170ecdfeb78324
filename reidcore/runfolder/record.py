"""The run record, lock.json: what a run was, whether it has finished, whether it may be resumed.
Torch-free.

`reidcore.runfolder.make_record` makes it when a run starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from reidcore.errors import DataError, ReidError, UsageError
from reidcore.runfolder.record_types import check_types
from reidcore.support.files import write_json
from reidcore.support.json_files import Found, read_found

RECORD = "lock.json"
LAYOUT = 1
"""Number of the layout of run folders, which a record holds."""
WITH_RECORD = ("weights.safetensors", "resume.safetensors")
"""Files that no run folder has without a run record; one of repeats has scores, too."""
RESUME_FREE = (
    "train.device",
    "data.workers",
    "data.worker_kind",
    "data.cache",
    "eval.memory",
    "eval.templates",
    "eval.batch",
    "plugins",
)
"""Settings that may change on resume: they do not change what is computed."""
WATCHING = "observers"
"""Key of the settings of observers, which may change at any time, and are no run's results."""
EVALUATION = ("data.test", "eval", "ranking", "parts.post")
"""Settings that may change once a run has been trained and only its last evaluation is missing."""


def read_record(folder: Path) -> dict[str, Any]:
    """Return the run record of a run folder, every value of which is of its type; a folder of an
    older version may lack some keys.

    Raises UsageError if the folder is none, or of a newer layout, DataError if the record is
    damaged.
    """
    path = folder / RECORD
    if not folder.is_dir():
        raise UsageError(f"no run folder at {folder.absolute()}")
    if not path.exists():
        if any((folder / name).exists() for name in WITH_RECORD):
            require_record(folder)
        hint = ""
        if repeats := sorted(folder.glob(f"*/{RECORD}")):
            hint = "; it holds repeats, name one of them: " + ", ".join(
                str(one.parent) for one in repeats[:3]
            )
        raise UsageError(f"{folder.absolute()} is not a run folder: it has no {RECORD}{hint}")
    found = read_found(path)
    layout = found["layout"].integer(1)
    if layout > LAYOUT:
        raise UsageError(
            f"{folder} has layout {layout}, and this core reads layout {LAYOUT}; upgrade reidcore"
        )
    check_types(found)
    return dict(found.value)


def require_record(folder: Path) -> None:
    """Raise DataError if a folder that has a run lacks its record."""
    if not (folder / RECORD).exists():
        raise DataError(f"{folder / RECORD} is missing, the record of the run in that folder")


def require_keys(folder: Path, record: Mapping[str, Any], *keys: str) -> None:
    """Raise DataError naming the first dotted key that a folder's run record lacks."""
    for key in keys:
        found = Found(record, folder / RECORD)
        for step in key.split("."):
            found = found[step]


def is_finished(folder: Path) -> bool:
    """Return True if the run in this folder has reached its end."""
    try:
        return bool(read_record(folder).get("finished"))
    except ReidError:
        return False


def digest_of(text: str) -> str:
    """Return the digest of a run file's text, by which a record knows the file it was made with."""
    return sha256(text.encode()).hexdigest()


def unfinished(folder: Path) -> UsageError:
    """Return the error for a run that must have reached its end and has not."""
    return UsageError(f"the run in {folder} is unfinished; go on with it by --resume first")


def mark_finished(folder: Path, used: Mapping[str, Any]) -> None:
    """Note in the record that the run has reached its end, and what it used of the machine."""
    write_json(folder / RECORD, {**read_record(folder), "finished": True, "used": used})


def check_resumable(
    folder: Path,
    record: Mapping[str, Any],
    trained: Callable[[], bool],
    watching: Collection[str] = (),
) -> tuple[list[str], bool]:
    """Compare the record of a run that is to go on with the one in the folder. Return (notes on
    what may make its end differ in the last bits, whether it has another evaluation).

    trained: returns whether only the run's last evaluation is missing, which then may be another.
    watching: distributions that only observe, and so may be of another version.
    Raises UsageError naming what would make it another run.
    """
    old = read_record(folder)
    require_keys(folder, old, "resolved", "versions", "data")
    new = json.loads(json.dumps(record))
    settings = _differences(old.get("resolved"), new["resolved"])
    data = _differences(old.get("data"), new["data"])
    evaluation = [text for text in settings if _is_under(EVALUATION, text)]
    evaluation += [text for text in data if _is_under(("test",), text)]
    other_evaluation = False
    if evaluation and len(evaluation) == len(settings) + len(data) and trained():
        settings, data, other_evaluation = [], [], True
    changed = settings + [f"the manifest of data.{text}" for text in data]
    free = {"torch", "python", *watching}
    own = {name: v for name, v in new["versions"].items() if name not in free}
    before = {name: old.get("versions", {}).get(name) for name in own}
    changed += [f"the version of {text}" for text in _differences(before, own)]
    taught = old.get("teachers", {})
    changed += [
        f"the weights of the teacher {name} are others"
        for name, digest in new["teachers"].items()
        if taught.get(name) != digest
    ]
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
    return notes, other_evaluation


def _is_under(keys: Sequence[str], difference: str) -> bool:
    """True if a difference is that of one of these keys, or of one inside it."""
    return any(difference.startswith((f"{key} ", f"{key}.")) for key in keys)


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return a text for every dotted key at which two resolved run files differ."""
    if path == WATCHING:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in dict.fromkeys([*old, *new]):
            inner = f"{path}.{key}" if path else str(key)
            found += _differences(old.get(key), new.get(key), inner)
        return found
    if old == new or path in RESUME_FREE:
        return []
    return [f"{path} was {old!r}, is {new!r}"]
