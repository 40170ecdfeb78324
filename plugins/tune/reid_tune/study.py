"""The study folder: the settings of the search, its trials in Optuna's journal, their runs."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import optuna
from optuna.pruners import MedianPruner, NopPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from reid_tune.sampler import STARTUP
from reidcore.errors import DataError, UsageError
from reidcore.tools import RESUME_FREE, read_json, settings_of, write_json

SETTINGS = "study.json"
JOURNAL = "journal.log"
RUN_FILE = "trial.toml"
RUN = "run"
WAITS = 8
"""Attempts to hold a study, a quarter of a second apart."""


@attrs.frozen(eq=False)
class Study:
    """A study in its folder.

    settings: what study.json holds. files: labels of the run files, each of which is a study of
    Optuna's.
    """

    folder: Path
    settings: Mapping[str, Any]
    storage: JournalStorage

    @property
    def score(self) -> str:
        return str(self.settings["score"])

    @property
    def labels(self) -> list[str]:
        return list(self.settings["files"])

    def of(self, label: str, sampler: Any = None) -> optuna.Study:
        """Return the trials of a run file. sampler: draws those that are asked for."""
        epochs = self.settings["files"][label]["epochs"]
        pruner = MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=-(-epochs // 4))
        return optuna.create_study(
            storage=self.storage,
            study_name=label,
            direction="maximize",
            sampler=sampler,
            pruner=pruner if self.settings["prune"] else NopPruner(),
            load_if_exists=True,
        )

    def trials(self, label: str) -> list[FrozenTrial]:
        """Return the trials of a run file so far, by number."""
        return sorted(self.of(label).get_trials(deepcopy=False), key=lambda one: one.number)

    def trial(self, label: str, number: int, sampler: Any = None) -> Trial:
        """Return an unfinished trial, to go on with."""
        return Trial(self.of(label, sampler), self.trials(label)[number]._trial_id)

    def place(self, label: str, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / label / f"{number:03}"


def open_study(folder: Path) -> Study:
    """Return the study in a folder that `make_study` has made. DataError says it is damaged."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = read_json(folder / SETTINGS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    except (ValueError, LookupError) as error:
        raise DataError(f"{folder / JOURNAL} is damaged: {error}") from None
    return Study(folder, settings, storage)


def check_folder(folder: Path, outputs: Sequence[Path], resume: bool) -> None:
    """Raise UsageError where a new study would take the place of something."""
    if resume:
        if not (folder / SETTINGS).is_file():
            raise UsageError(f"{folder.absolute()} holds no study to resume; leave away --resume")
        return
    if folder.exists() and (not folder.is_dir() or _files_in(folder)):
        state = "a study; go on with it by --resume" if (folder / SETTINGS).exists() else "files"
        raise UsageError(
            f"{folder.absolute()} already holds {state}. Nothing was changed; -o names another "
            "place."
        )
    for output in outputs:
        if output.exists():
            raise UsageError(f"{output.absolute()} exists already; name a new file with -o")


def _files_in(folder: Path) -> list[Path]:
    """The files of a folder, without those of a process that was killed while it wrote."""
    return [path for path in folder.iterdir() if not path.name.endswith(".tmp")]


def make_study(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder of a new study, or check that the one that is there has these settings.

    Raises UsageError with what differs.
    """
    if not (folder / SETTINGS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, settings)
        return
    old, new = (_comparable(one) for one in (read_json(folder / SETTINGS), settings))
    changed = [
        f"{key} was {json.dumps(old.get(key))}, is {json.dumps(new.get(key))}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    if changed:
        more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise UsageError(
            f"{folder} holds a study of other files or settings: {'; '.join(changed[:5])}{more}. "
            "Undo the change, or begin another study with -o."
        )


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted key what must stay the same; "none" is said of what is not there."""
    flat = settings_of(json.loads(json.dumps(settings)))
    return {key: value for key, value in flat.items() if not key.endswith(RESUME_FREE)}


@contextmanager
def held(folder: Path) -> Iterator[list[int]]:
    """Hold a study for this command alone, and give the file descriptors that its processes inherit
    to hold it, too.

    Raises UsageError if another command works in it. Where the system cannot lock a folder, as on
    Windows, nothing keeps others out.
    """
    try:
        import fcntl
    except ImportError:
        _mend(folder / JOURNAL)
        yield []
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        for left in reversed(range(WAITS)):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise UsageError(
                        f"another process is tuning in {folder.absolute()}; wait for it, or name "
                        "another place with -o"
                    ) from None
                time.sleep(0.25)  # the processes of a killed command need a moment to end
            except OSError:
                break  # a file system without locks
        _mend(folder / JOURNAL)
        yield [handle]
    finally:
        os.close(handle)


def _mend(journal: Path) -> None:
    """Remove what a kill inside a write may have left: half a line, and the lock of the file."""
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink(missing_ok=True)
    if not journal.exists():
        return
    with open(journal, "r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def is_unfinished(trial: FrozenTrial) -> bool:
    """Return True for a trial that a killed command has left."""
    return trial.state == TrialState.RUNNING
