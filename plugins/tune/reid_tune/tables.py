"""The tables of a search: all trials, and two run files side by side. Torch-free."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from optuna.trial import FrozenTrial, TrialState

from reid_tune.candidates import Candidate
from reid_tune.search import best_of
from reidcore.tools import aligned, duration

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
}
Trials = Mapping[str, Sequence[FrozenTrial]]
"""The trials of each run file, by label."""


@attrs.frozen
class Table:
    """Trials of run files with the settings that were tried. score: its name."""

    candidates: Sequence[Candidate]
    trials: Trials
    score: str

    @property
    def keys(self) -> list[str]:
        """Every key that some run file has a range for."""
        keys = (each.key for one in self.candidates for each in one.ranges)
        return list(dict.fromkeys(keys))

    def csv(self) -> str:
        """Return a line for every trial; scores are fractions, of pruned trials the last one."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "trial", "state", self.score, "epochs", "seconds", *self.keys])
        writer.writerows(row for one in self.candidates for row in self._rows(one))
        return text.getvalue().replace("\r", " ")

    def _rows(self, one: Candidate) -> list[list[Any]]:
        return [
            [
                one.label,
                trial.number,
                STATES.get(trial.state, "unfinished"),
                "" if _value(trial) is None else _value(trial),
                trial.user_attrs.get("epochs", ""),
                round(trial.user_attrs["seconds"], 1) if "seconds" in trial.user_attrs else "",
                *self._settings(one, trial),
            ]
            for trial in self.trials[one.label]
        ]

    def _settings(self, one: Candidate, trial: FrozenTrial) -> list[str]:
        words = {each.key: each.words for each in one.ranges}
        return [
            words[key](trial.params[key]) if key in words and key in trial.params else ""
            for key in self.keys
        ]

    def as_json(self) -> str:
        """Return all trials and the best of each run file as JSON; scores are fractions, of pruned
        trials the last one."""
        files = [
            {
                "file": one.file,
                "found": None if best is None else str(one.output),
                "best": None if best is None else best.number,
                "trials": [self._as_data(one, trial) for trial in self.trials[one.label]],
            }
            for one in self.candidates
            for best in [best_of(self.trials[one.label])]
        ]
        return json.dumps({"score": self.score, "files": files}, indent=1, ensure_ascii=False)

    def _as_data(self, one: Candidate, trial: FrozenTrial) -> dict[str, Any]:
        drawn = {each.key: each for each in one.ranges if each.key in trial.params}
        return {
            "trial": trial.number,
            "state": STATES.get(trial.state, "unfinished"),
            "score": _value(trial),
            "epochs": trial.user_attrs.get("epochs"),
            "seconds": trial.user_attrs.get("seconds"),
            "settings": {key: each.read(trial.params[key]) for key, each in drawn.items()},
        }

    def text(self) -> str:
        """Return the trials of every run file, and behind those of two what each came to."""
        if len(self.candidates) == 1:
            return f"\n{self._text(self.candidates[0])}\n"
        tables = [f"{one.label}\n{self._text(one)}" for one in self.candidates]
        return "\n" + "\n\n".join([*tables, self._side_by_side()]) + "\n"

    def _text(self, one: Candidate) -> str:
        """The trials of a run file as aligned text, scores in percent; * marks the best."""
        best = best_of(self.trials[one.label])
        rows = [["trial", "state", self.score, "epochs", *self.keys]]
        for trial in self.trials[one.label]:
            value = _value(trial)
            mark = "*" if best is not None and trial.number == best.number else ""
            rows.append(
                [
                    str(trial.number),
                    STATES.get(trial.state, "unfinished"),
                    "" if value is None else f"{mark}{100 * value:.1f}",
                    str(trial.user_attrs.get("epochs", "")),
                    *self._settings(one, trial),
                ]
            )
        used = {each.key for each in one.ranges}
        keep = [at for at, name in enumerate(rows[0]) if name not in self.keys or name in used]
        return aligned([[row[at] for at in keep] for row in rows], 2)

    def _side_by_side(self) -> str:
        """A line for each run file: what its trials came to."""
        rows = [
            ["file", "finished", "pruned", "failed", "epochs", "time", "first", "median", "best"]
        ]
        rows[0][-3:] = [f"{name} {self.score}" for name in rows[0][-3:]]
        for one in self.candidates:
            trials = self.trials[one.label]
            states = [STATES.get(trial.state) for trial in trials]
            values = [one.value or 0.0 for one in trials if one.state == TrialState.COMPLETE]
            first = trials[0].value if trials[0].state == TrialState.COMPLETE else None
            numbers = [first, statistics.median(values), max(values)] if values else [None] * 3
            rows.append(
                [
                    one.label,
                    *(str(states.count(state)) for state in ("finished", "pruned", "failed")),
                    str(sum(trial.user_attrs.get("epochs", 0) for trial in trials)),
                    duration(sum(trial.user_attrs.get("seconds", 0.0) for trial in trials)),
                    *("" if value is None else f"{100 * value:.1f}" for value in numbers),
                ]
            )
        return aligned(rows, 1)


def _value(trial: FrozenTrial) -> float | None:
    if trial.state == TrialState.COMPLETE:
        return trial.value
    values = trial.intermediate_values
    return values[max(values)] if trial.state == TrialState.PRUNED and values else None
