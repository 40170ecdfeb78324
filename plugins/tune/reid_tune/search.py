"""The search: which trial comes next, and running trials in this process or in several."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import attrs
from optuna.trial import FrozenTrial, TrialState

from reid_tune.candidates import Candidate
from reid_tune.edits import trial_text
from reid_tune.hold_out import HoldOut
from reid_tune.sampler import SeededTpe
from reid_tune.study import RUN_FILE, Study, is_unfinished
from reid_tune.trial import run_trial
from reid_tune.worker import ERROR
from reidcore.errors import DataError, PluginError, ReidError, UsageError
from reidcore.tools import Reporter, duration, read_json, write_atomically

One = tuple[str, int]
"""A trial: (label of the run file, number)."""


@attrs.frozen(eq=False)
class Search:
    """A search in its study.

    trials: how many each run file has. jobs: how many run at once. locks: file descriptors that
    their processes inherit, to hold the study. shown: is told what happens.
    """

    study: Study
    candidates: Sequence[Candidate]
    held_out: HoldOut
    trials: int
    jobs: int
    locks: Sequence[int]
    shown: Reporter

    def run(self) -> None:
        """Run trials until every run file has its number of them, the unfinished ones first."""
        if self.jobs == 1:
            for label, number in self._next():
                working = self._working(label, number)
                run_trial(self.study, label, number, working)
                self._tell(label, number)
        else:
            self._run_together()

    def _next(self) -> Iterator[One]:
        """Yield the trials to run; each is drawn when it is asked for."""
        left = [
            (one.number, label)
            for label in self.study.labels
            for one in self.study.trials(label)
            if is_unfinished(one)
        ]
        for number, label in sorted(left, key=lambda one: one[0]):
            yield self._prepared(label, number)
        while True:
            counts = {label: len(self.study.trials(label)) for label in self.study.labels}
            label = min(counts, key=lambda one: counts[one])
            if counts[label] >= self.trials:
                return
            yield self._prepared(label, None)

    def _prepared(self, label: str, number: int | None) -> One:
        """A trial with all its settings drawn and its run file written; None is a new one."""
        one = next(one for one in self.candidates if one.label == label)
        sampler = SeededTpe(self.study.settings["seed"], one.own, self.jobs > 1)
        if number is None:
            trial = self.study.of(label, sampler).ask()
        else:
            trial = self.study.trial(label, number, sampler)
        settings = one.drawn({each.key: each.suggest(trial) for each in one.ranges})
        place = self.study.place(label, trial.number)
        place.mkdir(parents=True, exist_ok=True)
        (place / ERROR).unlink(missing_ok=True)
        text = trial_text(one.plan.runfile.table, settings, self.held_out.parts, one.every)
        write_atomically(place / RUN_FILE, text)
        words = ", ".join(f"{key} = {value}" for key, value in settings.items())
        again = "" if number is None else ", which goes on"
        self.shown.say(f"{label} {trial.number}{again}: {words}")
        return label, trial.number

    def _working(self, label: str, number: int) -> Callable[[str], None]:
        return lambda text: self.shown.working(f"{label} {number}  {text}")

    def _tell(self, label: str, number: int) -> None:
        trials = self.study.trials(label)
        best = best_of(trials)
        text = f"{label} {number}: {ended(trials[number], self.study.score)}"
        if best is not None and best.number != number:
            text += f"; the best is {100 * (best.value or 0):.1f} of trial {best.number}"
        self.shown.say(text)

    def _run_together(self) -> None:
        """Several trials at once, each in a process of its own."""
        waiting = self._next()
        running: dict[One, subprocess.Popen[bytes]] = {}
        try:
            while True:
                while len(running) < self.jobs and (one := next(waiting, None)) is not None:
                    running[one] = self._started(*one)
                if not running:
                    return
                time.sleep(0.05)
                for one in [key for key, process in running.items() if process.poll() is not None]:
                    self._require_ended(one, running.pop(one).returncode)
                    self._tell(*one)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()

    def _started(self, label: str, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "reid_tune.worker", str(self.study.folder), label]
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        return subprocess.Popen(
            [*command, str(number), str(os.getpid())],
            env={"OMP_NUM_THREADS": threads, **os.environ},
            pass_fds=self.locks,
            start_new_session=True,  # Ctrl-C is for the command alone, which ends them
        )

    def _require_ended(self, one: One, code: int) -> None:
        """Raise the error of a trial's process that the study does not know the end of."""
        label, number = one
        if not is_unfinished(self.study.trials(label)[number]):
            return
        words = "; once this is mended, --resume goes on with it"
        path = self.study.place(label, number) / ERROR
        if path.exists():
            found = read_json(path)
            kinds = {kind.exit_code: kind for kind in (UsageError, PluginError, DataError)}
            raise kinds.get(found["code"], ReidError)(f"{label} {number}: {found['text']}{words}")
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise ReidError(f"{label} {number}: its process {how}{words}")


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the finished trial with the largest score, the first of equal ones; None without."""
    finished = [one for one in trials if one.state == TrialState.COMPLETE]
    return max(finished, key=lambda one: (one.value or 0.0, -one.number)) if finished else None


def ended(trial: FrozenTrial, score: str) -> str:
    """Return in words how a trial ended."""
    epochs = trial.user_attrs.get("epochs", 0)
    spent = (
        f"{epochs} epoch{'s' * (epochs != 1)} in {duration(trial.user_attrs.get('seconds', 0.0))}"
    )
    if trial.state == TrialState.COMPLETE:
        return f"{score} {100 * (trial.value or 0.0):.1f}, {spent}"
    if trial.state == TrialState.PRUNED:
        last = trial.intermediate_values[max(trial.intermediate_values)]
        return f"pruned at {score} {100 * last:.1f}, {spent}"
    return f"failed: {trial.user_attrs.get('reason', 'for an unknown reason')}"
