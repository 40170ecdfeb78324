"""The records of one run: what each tracker was told, and what it lacks.

A tracker that raises is told to the user and left alone until the run is resumed; the others go on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import attrs
from PIL import Image

from reid_trackers.drawing import draw_lists
from reid_trackers.settings import Trackers
from reid_trackers.tracker import Described, Tracker, make_tracker
from reidcore.errors import DataError, ReidError
from reidcore.tools import read_json, read_means, read_scored_epochs, settings_of

FILE = "trackers.json"
MEANS, SCORED, RUN_FILE = "means.csv", "scores-by-epoch.json", "run.toml"
PICTURES = "ranked lists"
Means = Mapping[str, float]
Scores = Mapping[str, Any]


@attrs.define
class Told:
    """What a tracker was told. known: what its record is called. epochs: how many it has. scored:
    the last one whose scores it has."""

    known: str = ""
    epochs: int = 0
    scored: int = 0
    ended: bool = False


@attrs.define
class Record:
    """A tracker with what it was told; `failure` says why it gets no more."""

    name: str
    told: Told
    tracker: Tracker | None = None
    failure: str = ""


_RECORDS: WeakKeyDictionary[Any, Records] = WeakKeyDictionary()


def records_of(run: Any, settings: Trackers) -> Records:
    """Return the records of a run, the same ones for all its events."""
    if run not in _RECORDS:
        _RECORDS[run] = Records(run, settings)
    return _RECORDS[run]


class Records:
    """The records of a run by all its trackers."""

    def __init__(self, run: Any, settings: Trackers):
        # The run is not kept, so that it goes when nobody else has it.
        self._settings = settings
        self._folder: Path = run.folder
        self._epochs = int(run.table["train"]["epochs"])
        self._described = _described(run)
        told = _read(self._folder / FILE)
        self._records = [Record(name, told.pop(name, Told())) for name in settings.use]
        self._others = told

    def started(self, run: Any, finished: int) -> None:
        """Begin the records or go on with them, and tell each what it lacks of the finished
        epochs."""
        for one in self._records:
            one.told.epochs = min(one.told.epochs, finished)
            one.told.scored = min(one.told.scored, finished)
            _do(run, one, lambda one: self._start(one, finished))
        self._save(run)

    def _start(self, one: Record, finished: int) -> None:
        if one.told.ended and one.told.epochs >= finished:
            return
        one.tracker = make_tracker(one.name, self._settings)
        one.told.known = one.tracker.start(self._described, one.told.known, one.told.epochs + 1)
        if one.told.epochs < finished:
            self._tell_of(one, finished)

    def _tell_of(self, one: Record, last: int) -> None:
        """Tell a tracker of the epochs that it lacks, up to the last one, as the run folder has
        them."""
        scored = self._folder / SCORED
        scores = dict(read_scored_epochs(scored)) if scored.exists() else {}
        for row in read_means(self._folder / MEANS):
            epoch = int(row["epoch"])
            if one.told.epochs < epoch <= last:
                self._tell(one, epoch, row, scores.get(epoch))

    def epoch_ended(self, run: Any, epoch: int, means: Means, scores: Scores | None) -> None:
        """Tell all trackers of an epoch, counted from 1."""
        picture = self._drawn(run, epoch) if scores is not None else None
        for one in self._records:

            def tell(one: Record) -> None:
                if one.told.epochs < epoch - 1:
                    self._tell_of(one, epoch - 1)
                self._tell(one, epoch, means, scores)
                if picture is not None and one.tracker is not None:
                    one.tracker.picture(epoch, PICTURES, picture)

            _do(run, one, tell)
        self._save(run)

    def _drawn(self, run: Any, epoch: int) -> Image.Image | None:
        """Return a picture of the ranked lists, None where there are none: of epochs before the one
        that the run is at."""
        try:
            latest = len(read_means(self._folder / MEANS))
            lists = run.ranked[: self._settings.pictures] if epoch == latest else ()
            return draw_lists(lists)
        except (ReidError, OSError) as error:  # a picture that has gone meanwhile
            run.say(f"note: ranked lists could not be drawn: {error}")
            return None

    def _tell(self, one: Record, epoch: int, means: Means, scores: Scores | None) -> None:
        if one.tracker is None:
            return
        numbers: dict[str, float] = {}
        if epoch > one.told.epochs:
            numbers |= {f"train/{name}": v for name, v in means.items() if name != "epoch"}
        if scores is not None and epoch > one.told.scored:
            numbers |= flat_scores(scores)
            one.told.scored = epoch
        if numbers:
            one.tracker.log(epoch, numbers)
        one.told.epochs = max(epoch, one.told.epochs)

    def ended(self, run: Any, scores: Scores | None) -> None:
        """Tell all trackers that the run has ended. Raises ReidError with those that failed, so
        that they are told when the run is resumed."""
        for one in self._records:
            _do(run, one, lambda one: self._end(one, scores))
        self._save(run)
        failed = [f"{one.name}: {one.failure}" for one in self._records if one.failure]
        if failed:
            raise ReidError("; ".join(failed))

    def _end(self, one: Record, scores: Scores | None) -> None:
        if one.tracker is None:
            return
        if scores is not None and one.told.scored < max(1, self._epochs):
            one.tracker.log(self._epochs, flat_scores(scores))
        one.tracker.end()
        one.told.ended = True

    def _save(self, run: Any) -> None:
        told = {**self._others, **{one.name: one.told for one in self._records}}
        text = json.dumps({name: attrs.asdict(one) for name, one in told.items()}, indent=1)
        run.write(FILE, f"{text}\n")


def _do(run: Any, one: Record, act: Callable[[Record], None]) -> None:
    """Do something with a tracker that has not failed; what it raises is told, once."""
    if one.failure:
        return
    try:
        act(one)
    except (Exception, SystemExit) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        one.failure = words[:300]
        run.say(f"tracker {one.name} failed: {one.failure}; the run and other trackers go on")


def flat_scores(scores: Scores) -> dict[str, float]:
    """Return scores by "test set/ranking/stage/metric", of several trials the means; CMC curves
    are left out."""
    found = {}
    for test, rankings in scores.items():
        for ranking, stages in rankings.items():
            for stage, numbers in stages.items():
                for metric, score in numbers.items():
                    value = score["mean"] if isinstance(score, Mapping) else score
                    if isinstance(value, int | float):
                        found[f"{test}/{ranking}/{stage}/{metric}"] = float(value)
    return found


def _described(run: Any) -> Described:
    files = {"resolved.json": json.dumps(run.table, indent=1)}
    written = run.folder / RUN_FILE
    if written.is_file():
        files[RUN_FILE] = written.read_text(encoding="utf-8")
    return Described(run.folder.resolve().name, run.folder, settings_of(run.table), files)


def _read(path: Path) -> dict[str, Told]:
    """Return what was told before. Raises DataError if the file is damaged."""
    found = read_json(path) if path.exists() else {}
    try:
        return {name: Told(**one) for name, one in found.items()}
    except (AttributeError, TypeError):
        raise DataError(
            f"{path} is damaged: it does not say what trackers were told; without the file they "
            "begin new records"
        ) from None
