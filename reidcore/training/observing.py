"""Calls the observers of a run, and remembers in its folder what each of them was told.

An observer that raises never harms the run: it gets no more events in this process, and those that
it lacks when the run is resumed, as after a kill.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reidcore.contracts.run_interfaces import Run
from reidcore.errors import DataError
from reidcore.plugins.loading import Observers, Plugins
from reidcore.plugins.registration import OBSERVERS, Found
from reidcore.runfolder.folder import OBSERVED
from reidcore.support.author_code import place_in_plugin
from reidcore.support.files import remove_file, write_json
from reidcore.support.json_files import read_json
from reidcore.support.progress import Reporter
from reidcore.support.wording import in_words, shortened

Epoch = tuple[Mapping[str, float], Mapping[str, Any] | None]
"""What an epoch's event tells: its row of means.csv, and its scores if it was evaluated."""
STARTED, EPOCH_ENDED, ENDED = OBSERVERS


@attrs.frozen
class Failure:
    """What an observer raised, and from which hook."""

    hook: str
    error: BaseException

    def __str__(self) -> str:
        text = f"{self.hook} failed: {shortened(in_words(self.error), 400)}"
        place = place_in_plugin(self.error)
        return f"{text}, at {place}" if place else text


@attrs.define
class Observer:
    """A plugin that observes.

    settings: of its table in the run file. epochs: how many epochs it was told of. ended: whether
    it was told of the run's end.
    """

    found: Found
    hooks: Observers
    settings: Any = None
    epochs: int = 0
    ended: bool = False
    failure: Failure | None = None

    def call(self, hook: str, **given: Any) -> bool:
        """Call one of its hooks; return False where it raised, now or before."""
        if self.failure is not None:
            return False
        try:
            getattr(self.hooks, hook.removeprefix("reid_"))(**given, settings=self.settings)
        except (Exception, SystemExit) as error:
            if _interrupted(error):
                raise KeyboardInterrupt from error
            self.failure = Failure(hook, error)
        return self.failure is None


def observers_of(plugins: Plugins, settings: Mapping[str, Any]) -> list[Observer]:
    """Return the observers of a plan, `settings` being its `observers`, in the run file's order."""
    return [
        Observer(plugins.load(name).found, plugins.observers([name]), own)
        for name, own in settings.items()
    ]


class Observing:
    """The observers of a run, each told once of every event, but again of the last one before a
    kill.

    traceback: show the whole traceback of what an observer raises.
    """

    def __init__(
        self, observers: Sequence[Observer], folder: Path, reporter: Reporter, traceback: bool
    ):
        self._observers = observers
        self._path = folder / OBSERVED
        self._reporter = reporter
        self._traceback = traceback
        self._total = 0

    def started(self, run: Run, finished: int) -> None:
        """Tell that a run begins, of whose epochs some were finished before."""
        self._read(finished)
        for one in self._observers:
            self._call(one, STARTED, run=run, finished=finished)

    def epochs_ended(self, run: Run, epochs: Sequence[Epoch]) -> None:
        """Tell everyone of the finished epochs, all of the run's, that it was not told of yet."""
        self._total = len(epochs)
        for one in self._observers:
            for number, (means, scores) in list(enumerate(epochs))[one.epochs :]:
                # A copy: what an observer does to it must not reach the run.
                given = {"means": dict(means), "scores": copy.deepcopy(scores)}
                if not self._call(one, EPOCH_ENDED, run=run, epoch=number, **given):
                    break
                one.epochs = number + 1
        self.save()

    def ended(self, run: Run, scores: Mapping[str, Any] | None) -> None:
        """Tell that the run has ended, and the user what could not be told."""
        for one in self._observers:
            if not one.ended:
                one.ended = self._call(one, ENDED, run=run, scores=copy.deepcopy(scores))
        missed = [one for one in self._observers if not one.ended]
        for one in missed:
            self._reporter.say(self._missed(one))
        if missed:
            self.save()
        elif self._observers:  # of several processes, the one that has them
            remove_file(self._path)

    def catch_up(self, run: Run, epochs: Sequence[Epoch], scores: Mapping[str, Any] | None) -> None:
        """Tell the observers of a finished run what they lack."""
        self._read(len(epochs))
        self._observers = [one for one in self._observers if not one.ended]
        for one in self._observers:
            self._reporter.say(f"observer {one.found}: is told what it has missed")
            self._call(one, STARTED, run=run, finished=len(epochs))
        self.epochs_ended(run, epochs)
        self.ended(run, scores)

    def save(self) -> None:
        """Write down what everyone was told."""
        if self._observers:
            told = {
                one.found.name: {"epochs": one.epochs, "ended": one.ended}
                for one in self._observers
            }
            write_json(self._path, {**self._others(), **told})

    def _others(self) -> dict[str, Any]:
        found = read_json(self._path) if self._path.exists() else {}
        if not isinstance(found, dict):
            raise self._damaged()
        return found

    def _damaged(self) -> DataError:
        return DataError(
            f"{self._path} is damaged: it does not say what observers were told; without the file "
            "they are told of the last epoch again"
        )

    def _read(self, finished: int) -> None:
        """Read what was told before, when so many epochs were finished."""
        told = self._others()
        for one in self._observers:
            # Runs of before this file was written have told everything but what a kill kept back.
            found = told.get(one.found.name, {"epochs": max(0, finished - 1), "ended": False})
            match found:
                case {"epochs": int(epochs), "ended": bool(ended)} if epochs >= 0:
                    one.epochs, one.ended = min(epochs, finished), ended
                case _:
                    raise self._damaged()

    def _call(self, one: Observer, hook: str, **given: Any) -> bool:
        """Call a hook, and tell the user at once where it raises."""
        fresh = one.failure is None
        done = one.call(hook, **given)
        if fresh and one.failure is not None:
            self._reporter.say(
                f"observer {one.found}: {one.failure}; the run goes on without this observer"
            )
            if self._traceback:
                trace = traceback.format_exception(one.failure.error)
                self._reporter.say("".join(trace).rstrip())
        return done

    def _missed(self, one: Observer) -> str:
        lacks = "the end of the run"
        if one.epochs + 1 == self._total:
            lacks = f"epoch {self._total} and {lacks}"
        elif one.epochs < self._total:
            lacks = f"epochs {one.epochs + 1} to {self._total} and {lacks}"
        return (
            f"observer {one.found}: was not told of {lacks}, because its {one.failure}; once that "
            "is mended, `reid run` with --resume tells it, and trains nothing"
        )


def _interrupted(error: BaseException | None) -> bool:
    """Return whether an exception came of Ctrl-C, of which other code may have made another."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
