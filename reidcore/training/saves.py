"""The results of a run so far, saved in its folder so that a killed run can go on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reidcore.distributed.processes import Processes
from reidcore.errors import DataError
from reidcore.model.finite import faults, is_finite, tensors_in
from reidcore.model.model import Model
from reidcore.model.state_files import load_section, load_value, save_sections, save_state
from reidcore.protocols.score_names import metric_of
from reidcore.runfolder.folder import (
    BEST_SCORE,
    BEST_WEIGHTS,
    MEANS,
    RESUME,
    SCORED_EPOCHS,
    SCORES,
    WEIGHTS,
    write_means,
)
from reidcore.runfolder.record import mark_finished
from reidcore.runfolder.score_files import read_means, read_scored_epochs, read_scores
from reidcore.support.files import remove_file, write_json
from reidcore.support.repeats import number_of, without_curves
from reidcore.training.epoch_log import not_finite
from reidcore.training.resume_file import load_part, read_saved


class Saves:
    """The results of a run so far, and their files in the run folder.

    Every process keeps the results, and the first one writes the files. `best` is the score
    whose best weights are kept, "" for none.
    """

    def __init__(self, folder: Path, model: Model, processes: Processes, best: str = ""):
        self.history: list[dict[str, float]] = []
        """The rows of means.csv, one for each finished epoch."""
        self.scores: dict[str, Any] | None = None
        """The scores of the last evaluation."""
        self.evaluation_due = False
        """True while the last finished epoch is still to be evaluated."""
        self._folder = folder
        self._model = model
        self._processes = processes
        self._best_metric = best
        self._best = -math.inf
        self._scores_by_epoch: list[dict[str, Any]] = []
        self._state: Mapping[str, Any] = {}

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Load the last save into the model and into `state`, the procedure's objects by name,
        which later saves hold too. Return False where nothing has been saved.

        Raises DataError where the save is damaged or holds the state of other objects.
        """
        self._state = state
        path = self._folder / RESUME
        saved = read_saved(path) if path.exists() else None
        self._processes.wait()  # before the first one saves anew
        if saved is None:
            return False
        if set(saved.state) != set(state):
            raise DataError(
                f"{path} holds the state of {', '.join(saved.state) or 'nothing'}, "
                f"but the procedure keeps {', '.join(state) or 'nothing'}"
            )
        for role, module in self._model.parts():
            load_section(role, module, saved.model.get(role, {}), path)
        for name, part in state.items():
            load_part(name, part, saved.state[name], path)
        self.history = saved.history
        self.scores = saved.scores
        self.evaluation_due = saved.evaluation_due
        self._scores_by_epoch = saved.scored
        self._best = saved.best
        self._write_tables()  # a kill may have come before they were written
        return True

    def finished_epochs(self) -> int:
        """Return the number of epochs that are saved, before anything is restored."""
        path = self._folder / RESUME
        found = load_value(path, "epoch") if path.exists() else 0
        if not isinstance(found, int):
            raise DataError(f"{path.absolute()} is damaged: its epoch is no number")
        return found

    def read_results(self) -> None:
        """Read the results of a finished run from its files.

        Raises DataError where one is missing or damaged.
        """
        means, scores, by_epoch = (self._folder / name for name in (MEANS, SCORES, SCORED_EPOCHS))
        rows = read_means(means) if means.exists() else []
        self.history = [{**row, "epoch": int(row["epoch"])} for row in rows]
        self.scores = read_scores(scores) if scores.exists() else None
        found = read_scored_epochs(by_epoch) if by_epoch.exists() else []
        self._scores_by_epoch = [{"epoch": epoch, "scores": of_it} for epoch, of_it in found]

    def ended_epochs(self) -> list[tuple[dict[str, float], dict[str, Any] | None]]:
        """Return (row of means.csv, scores or None where there are none) of every epoch that has
        ended and needs no evaluation. Scores before the last ones are without curves."""
        scored = {one["epoch"]: one["scores"] for one in self._scores_by_epoch}
        if scored:
            scored[max(scored)] = self.scores
        ended = self.history[: len(self.history) - self.evaluation_due]
        return [(row, scored.get(number)) for number, row in enumerate(ended, 1)]

    def add_epoch(self, row: dict[str, float], evaluation_due: bool) -> None:
        """Save the run after an epoch, whose row of means.csv is `row`.

        Raises ReidError, and leaves the last save as it is, if a number of the state is not finite.
        """
        self.history.append(row)
        self.evaluation_due = evaluation_due
        self._save()

    def add_scores(self, scores: dict[str, Any] | None) -> None:
        """Save the scores of the last finished epoch, so that a kill in an evaluation costs only
        the evaluation."""
        self.scores = scores
        self.evaluation_due = False
        self._require_finite()
        epoch = len(self.history)
        self._scores_by_epoch.append({"epoch": epoch, "scores": without_curves(scores or {})})
        if self._best_metric and scores:
            name, value = _deciding_score(scores, self._best_metric)
            if value > self._best:
                self._best = value
                self._write_best({"epoch": epoch, name: value})
        self._save()

    def finish(self, scores: dict[str, Any] | None, used: Mapping[str, Any]) -> None:
        """Write the weights and the last scores, note in the run record that the run is finished
        and what it used of the machine, and remove what only a resumed run would need."""
        self.write_weights()
        if not self._processes.first:
            return
        if scores is not None:
            write_json(self._folder / SCORES, scores)
        mark_finished(self._folder, used)
        remove_file(self._folder / RESUME)

    def write_weights(self) -> None:
        """Write the weights as they are now, as those of the end of training."""
        self._require_finite()
        if self._processes.first:
            save_sections(self._folder / WEIGHTS, self._model.sections())

    def _write_best(self, found: Mapping[str, float]) -> None:
        if self._processes.first:
            save_sections(self._folder / BEST_WEIGHTS, self._model.sections())
            write_json(self._folder / BEST_SCORE, found)

    def _require_finite(self) -> None:
        """Raise ReidError if the model or the procedure's state has diverged."""
        state = {name: part.state_dict() for name, part in self._state.items()}
        for name, value in tensors_in({**self._model.sections(), **state}):
            if not is_finite(value):
                raise not_finite(name, faults(value), len(self.history))

    def _save(self) -> None:
        self._require_finite()
        if not self._processes.first:
            return
        save_state(
            self._folder / RESUME,
            {
                "epoch": len(self.history),
                "evaluation_due": self.evaluation_due,
                "model": self._model.sections(),
                "state": {name: part.state_dict() for name, part in self._state.items()},
                "history": self.history,
                "scores": self.scores,
                "scored": self._scores_by_epoch,
                "best": self._best,
            },
        )
        self._write_tables()

    def _write_tables(self) -> None:
        """Write the files that follow from the resume file."""
        if not self._processes.first:
            return
        write_means(self._folder / MEANS, self.history)
        if self._scores_by_epoch:
            write_json(self._folder / SCORED_EPOCHS, self._scores_by_epoch)


def is_trained(folder: Path, epochs: int) -> bool:
    """Return True if the unfinished run in a folder has been trained and only its last evaluation
    is missing."""
    if not (folder / RESUME).exists():
        return (folder / WEIGHTS).exists()
    saved = read_saved(folder / RESUME)
    return saved.evaluation_due and len(saved.history) == epochs


def _deciding_score(scores: Mapping[str, Any], metric: str) -> tuple[str, float]:
    """(name, value) of the metric in the last stage of the first test set's first ranking."""
    rankings = next(iter(scores.values()))
    last_stage = list(next(iter(rankings.values())).values())[-1]
    name = next(one for one in last_stage if metric_of(one) == metric)
    return name, number_of(last_stage[name])
