"""Run folders: what they hold, written so that a kill at any moment loses nothing. Torch-free at
import.

layout 1: run.toml (as given), lock.json (resolved settings, versions, device, manifest hashes),
means.csv, scores.json, weights.safetensors, draws.json where a protocol draws its galleries,
scores-by-epoch.json where epochs were scored, and resume.safetensors while a run is unfinished.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidcore.errors import DataError, UsageError
from reidcore.support.files import read_json, write_atomically

if TYPE_CHECKING:
    pass

LAYOUT = 1
RUN_FILE = "run.toml"
RECORD = "lock.json"
MEANS = "means.csv"
SCORES = "scores.json"
SCORED_EPOCHS = "scores-by-epoch.json"
WEIGHTS = "weights.safetensors"
BEST_WEIGHTS = "weights-best.safetensors"
BEST_SCORE = "best.json"
DRAWS = "draws.json"
RESUME = "resume.safetensors"


def write_means(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """means.csv: a line per epoch, a column for every number that was ever logged."""
    import csv

    keys = list(dict.fromkeys(key for means in history for key in means))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(means) for means in history)
    write_atomically(path, text.getvalue())


def check_folder(folder: Path) -> dict[str, Any]:
    """The lock of a run folder. Raises UsageError if it is none, or of a newer layout."""
    lock = folder / "lock.json"
    if not folder.is_dir():
        raise UsageError(f"no run folder at {folder.absolute()}")
    if not lock.is_file():
        hint = ""
        if sorted(folder.glob("*/lock.json")):
            hint = "; it holds repeats, name one of them: " + ", ".join(
                str(path.parent) for path in sorted(folder.glob("*/lock.json"))[:3]
            )
        raise UsageError(f"{folder.absolute()} is not a run folder: it has no lock.json{hint}")
    content = read_json(lock)
    layout = content.get("layout") if isinstance(content, dict) else None
    if not isinstance(layout, int):
        raise DataError(f"{lock} is damaged: it has no layout number")
    if layout > LAYOUT:
        raise UsageError(
            f"{folder} has layout {layout}, and this core reads layout {LAYOUT}; upgrade reidcore"
        )
    return dict(content)


@contextmanager
def prepared(folder: Path, resume: bool) -> Iterator[None]:
    """A fresh run folder, or with `resume` one that holds a run, for this process alone.

    Raises UsageError if the folder is not empty and `resume` is false, if it holds no run to
    resume, or if another process is running in it. A folder that is left empty is removed.
    """
    if folder.is_file():
        raise UsageError(f"{folder.absolute()} is a file; name another folder with --out")
    occupied = folder.is_dir() and any(folder.iterdir())
    if occupied and not resume:
        state = "a finished run" if is_finished(folder) else "files"
        if (folder / "resume.safetensors").exists():
            state = "an unfinished run; continue it with --resume"
        raise UsageError(
            f"{folder.absolute()} already holds {state}. Nothing was changed. Choose another "
            "folder with --out, another name in the run file, or remove it."
        )
    if occupied and not (folder / "lock.json").exists() and not _only_leftovers(folder):
        raise UsageError(
            f"{folder.absolute()} is not empty and holds no run to resume; choose another folder "
            "with --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder):
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)  # of a process that was killed while it wrote
        try:
            yield
        finally:
            if not any(folder.iterdir()):
                folder.rmdir()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keeps other processes out; a killed process lets go by itself. Where the system cannot lock
    a folder, as on Windows, nothing is held."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process is running in {folder.absolute()}; wait for it, or choose "
                "another folder with --out"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def _only_leftovers(folder: Path) -> bool:
    """A run killed before its first save leaves only these."""
    known = {"run.toml", "lock.json", "means.csv", "scores.json", DRAWS, SCORED_EPOCHS}
    return all(path.name in known or path.name.endswith(".tmp") for path in folder.iterdir())


def is_finished(folder: Path) -> bool:
    """Whether the run in this folder has reached its end."""
    try:
        return bool(read_json(folder / "lock.json").get("finished"))
    except (DataError, AttributeError):
        return False


RESUME_FREE = (
    "train.device",
    "data.workers",
    "data.worker_kind",
    "data.cache",
    "eval.memory",
    "eval.templates",
    "eval.batch",
)
"""Settings that may change on resume: they do not change what is computed."""


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted keys at which two resolved run files differ, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for key in dict.fromkeys([*old, *new]):
            inner = f"{path}.{key}" if path else str(key)
            found += differences(old.get(key), new.get(key), inner)
        return found
    if old == new or path in RESUME_FREE:
        return []
    return [f"{path} was {old!r}, is {new!r}"]
