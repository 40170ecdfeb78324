"""The files of a run folder, and holding one while a run writes into it. Torch-free at import.

Every file is written so that a kill at any moment loses nothing. `reidcore.runfolder.record` reads
and changes the run record, lock.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from reidcore.errors import OutputError, UsageError
from reidcore.runfolder.record import RECORD, is_finished, require_record
from reidcore.support.files import check_room, write_atomically, writing
from reidcore.support.temporaries import remove_leftovers
from reidcore.support.text_table import csv_text

RUN_FILE = "run.toml"
"""The run file as it was given."""
MEANS = "means.csv"
"""A line for every epoch."""
SCORES = "scores.json"
"""Scores of the last evaluation."""
QUERIES = "queries.csv"
"""Scores of every query in the last evaluation."""
SCORED_EPOCHS = "scores-by-epoch.json"
"""Scores of every evaluated epoch."""
WEIGHTS = "weights.safetensors"
"""Weights at the end."""
BEST_WEIGHTS = "weights-best.safetensors"
"""Weights of the epoch with the best score, where `train.best` names one."""
BEST_SCORE = "best.json"
"""Which epoch that is, and its score."""
DRAWS = "draws.json"
"""Galleries that protocols have drawn."""
RESUME = "resume.safetensors"
"""Everything that an unfinished run needs to go on."""
OBSERVED = "observed.json"
"""What observers were told, until all were told everything."""
LEFT_EARLY = (RUN_FILE, RECORD, MEANS, SCORES, QUERIES, SCORED_EPOCHS, DRAWS)
"""All that a run killed before its first save may have left."""


def write_means(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write means.csv: a line per epoch, a column for every number that was ever logged."""
    keys = list(dict.fromkeys(key for means in history for key in means))
    lines = ([means.get(key, "") for key in keys] for means in history)
    write_atomically(path, csv_text([keys, *lines]))


@contextmanager
def prepared(folder: Path, resume: bool) -> Iterator[None]:
    """Hold a fresh run folder, or with `resume` one that has a run, for this process alone.

    Raises UsageError if the folder is not empty and `resume` is false, if it holds no run to
    resume, or if another process is running in it; DataError if its run record is missing;
    OutputError if it cannot be written. An OutputError in the `with` block says what is kept. A
    folder that is left empty is removed.
    """
    if os.path.isfile(folder):
        raise UsageError(f"{folder.absolute()} is a file; name another folder with --out")
    occupied = os.path.isdir(folder) and any(folder.iterdir())
    if occupied and not resume:
        state = "a finished run" if is_finished(folder) else "files"
        if (folder / RESUME).exists():
            state = "an unfinished run; continue it with --resume"
        raise UsageError(
            f"{folder.absolute()} already holds {state}. Nothing was changed. Choose another "
            "folder with --out, another name in the run file, or remove it."
        )
    if any((folder / name).exists() for name in (RESUME, WEIGHTS)):
        require_record(folder)
    if occupied and not (folder / RECORD).exists() and not _only_leftovers(folder):
        raise UsageError(
            f"{folder.absolute()} is not empty and holds no run to resume; choose another folder "
            "with --out"
        )
    if not (occupied and is_finished(folder)):
        check_room(folder / RECORD)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _held(folder):
        remove_leftovers(folder)
        try:
            yield
        except OutputError as error:
            error.args = (f"{error}{_kept(folder)}",)
            raise
        finally:
            with suppress(OSError):  # it is not empty, or it has gone
                folder.rmdir()


def _kept(folder: Path) -> str:
    """The end of a message on what could not be written: what there is of the run."""
    if not os.path.isdir(folder):
        return f". The run folder {folder} has gone, with what the run had saved there."
    for file, what in ((RESUME, "What the run had saved"), (WEIGHTS, "The trained run")):
        if os.path.exists(folder / file):
            return f". {what} is kept in {folder}: once this is mended, go on with --resume."
    if os.path.exists(folder / RECORD):
        return ". No epoch had been saved: once this is mended, start again with --resume."
    return ""


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder; a killed process lets go by itself. Where the system
    cannot lock a folder, as on Windows, nothing keeps them out."""
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
    return all(path.name in LEFT_EARLY or path.name.endswith(".tmp") for path in folder.iterdir())
