"""Observers: none can harm a run, and each is told everything, whatever is killed or raised."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest
from running import TINY

from reidcore.api import hookimpl
from reidcore.errors import DataError, ReidError
from reidcore.model import state_files
from reidcore.plugins.loading import Plugins
from reidcore.runfiles.parse import parse_runfile
from reidcore.runfolder import folder as runfolder
from reidcore.support import files
from reidcore.support.progress import Silent
from reidcore.training import start, training_run
from reidcore.training.observing import Observing
from reidcore.training.options import TrainingOptions
from reidcore.training.start import run_training
from reidcore.wiring.make_plan import make_plan

TEXT = 'plugins = ["diary", "other"]\n' + TINY.replace("epochs = 6", "epochs = 3").replace(
    "every = 1", "every = 2"
)
HOOKS = ("reid_run_started", "reid_epoch_ended", "reid_run_ended")


class Killed(BaseException):
    """Stands for a kill: nothing is written after it."""


class Said(Silent):
    """A reporter that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def of(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]


class Diary:
    """A plugin that notes every event, and raises where it is told to."""

    def __init__(self, fails=None, error: BaseException | None = None):
        self.events: list[tuple] = []
        self.fails, self.error = fails or (lambda *event: False), error or KeyError("loss")

    def note(self, *event) -> None:
        if self.fails(*event):
            raise self.error
        self.events.append(event)

    @hookimpl
    def reid_run_started(self, run, finished):
        assert not run.dry and run.folder.is_dir()
        self.note("started", finished)

    @hookimpl
    def reid_epoch_ended(self, run, epoch, means, scores):
        means = {name: value for name, value in means.items() if "second" not in name}
        self.note("epoch", epoch, json.dumps(means), json.dumps(scores))

    @hookimpl
    def reid_run_ended(self, run, scores):
        self.note("ended", json.dumps(scores))

    @property
    def told(self) -> list[tuple]:
        """The events, repetitions left out, as those of a run that nothing has happened to."""
        every = [event for event in self.events if event[0] != "started"]
        return list(dict.fromkeys(every))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a run that nothing happens to, `whole`, and the pictures."""
    return tmp_path_factory.mktemp("base")


@pytest.fixture
def train(base, monkeypatch, tmp_path):
    """Trains in this process and returns what is said: a function of folder and observers."""
    monkeypatch.setenv("REID_CACHE", str(base))
    return lambda folder, *given, **more: _train(tmp_path / folder, *given, **more)


def _train(folder, diary, other=None, sets=(), traceback=False, version="0") -> Said:
    plugins = Plugins([])
    plugins.add("diary", diary, version=version)
    plugins.add("other", other or Diary())
    plan = make_plan(parse_runfile(TEXT, Path("x.toml"), sets), plugins, make_data=True)
    said = Said()
    with runfolder.prepared(folder, resume=True):
        options = TrainingOptions(folder, sets, check=False, traceback=traceback)
        run_training(plan, plugins, options, said)
    return said


@pytest.fixture(scope="module")
def whole(base):
    """The events and files of a run that nothing happens to."""
    diary = Diary()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REID_CACHE", str(base))
        said = _train(base / "whole", diary)
    assert not said.of("observer")
    assert [event[0] for event in diary.events] == ["started", *["epoch"] * 3, "ended"]
    return diary.told, results(base / "whole")


def results(folder: Path) -> dict[str, bytes]:
    """All files, but what says how long something took."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    timed = {"lock.json", "means.csv"}
    return {name: b"" if name in timed else value for name, value in found.items()}


@pytest.mark.parametrize(
    ("hook", "error"),
    list(zip(HOOKS, [KeyError("loss"), SystemExit(3), ReidError("no\nhost")], strict=True)),
)
def test_one_that_raises_harms_nothing(train, whole, tmp_path, hook, error):
    """The run ends as if it were not there, the other observer gets all, the user is told of it
    once and at the end, and a resume of the finished run tells it what it has missed."""
    word = {"reid_run_started": "started", "reid_epoch_ended": "epoch", "reid_run_ended": "ended"}
    diary, other = Diary(lambda *event: event[0] == word[hook], error), Diary()
    said = train("run", diary, other)
    told, files_ = whole
    left = results(tmp_path / "run")
    assert left.pop("observed.json")
    assert left == files_ and other.told == told
    first, last = said.of("observer diary (reid-plugin-diary 0)")
    line = Diary.note.__code__.co_firstlineno + 2
    assert f"{hook} failed: {type(error).__name__}" in first
    assert f"{Path(__file__).name}:{line}; the run goes on" in first
    assert "the run goes on" in first and "\n" not in first
    assert "was not told of " in last and "--resume" in last and "\n" not in last
    assert ("epochs 1 to 3 and the end" in last) == (hook != "reid_run_ended")
    mended, untroubled = Diary(), Diary()
    train("run", mended, untroubled, version="0.1")  # what only watches may be another version
    assert mended.events[0] == ("started", 3) and untroubled.events == []
    before = [event for event in told if hook != "reid_run_ended" or event[0] == "ended"]
    assert [event[:3] for event in mended.told] == [event[:3] for event in before]
    assert results(tmp_path / "run") == files_
    again = Diary()
    assert not train("run", again).of("observer") and again.events == []


def test_scores_that_are_told_late(train, whole):
    """Those of the last evaluation are whole; those of earlier ones have no curves."""
    train("run", Diary(lambda *event: True))
    mended = Diary()
    train("run", mended)
    plain = [json.loads(event[3]) for event in whole[0][:3]]
    late = [json.loads(event[3]) for event in mended.told[:3]]
    assert late[0] is None and late[2] == plain[2]
    stage, full = (one[1]["demo"]["main"]["plain"] for one in (late, plain))
    assert stage == {name: value for name, value in full.items() if name != "cmc"}


def test_what_it_raised_in_an_epoch_is_told_on_resume(train, whole, monkeypatch):
    """A run that is killed after an observer has raised goes on with what that one lacks."""
    evaluate = training_run.evaluate

    def killed(*given):
        if killed.count:
            raise Killed
        killed.count += 1
        return evaluate(*given)

    killed.count = 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training_run, "evaluate", killed)
        train("run", Diary(lambda *event: event[:2] == ("epoch", 0)))
    mended = Diary()
    train("run", mended)
    assert mended.events[0] == ("started", 3)
    assert [event[:3] for event in mended.told] == [event[:3] for event in whole[0]]


def killed_at(write, moment: int):
    """`write`, which kills before (even moments) or after (odd ones) one of its calls."""
    calls = 0

    def killing(path, data):
        nonlocal calls
        calls += 1
        if calls == moment // 2 + 1 and moment % 2 == 0:
            raise Killed
        write(path, data)
        if calls == moment // 2 + 1:
            raise Killed

    return killing


def is_whole_after_a_kill(train, whole, folder, monkeypatch, moment: int) -> bool:
    """Kill a run before or after a write, and resume it; return False where there is no such
    write."""
    diary, modules = Diary(), (files, runfolder, state_files, start)
    with monkeypatch.context() as patch:
        write = killed_at(files.write_atomically, moment)
        for module in modules:
            patch.setattr(module, "write_atomically", write)
        try:
            train(folder.name, diary)
            return False
        except Killed:
            pass
    train(folder.name, diary)
    assert diary.told == whole[0], moment
    assert results(folder) == whole[1], moment
    return True


@pytest.mark.parametrize("moment", [4, 9, 14, 17, 26, 33])
def test_a_kill_at_a_write_loses_no_event(train, whole, tmp_path, monkeypatch, moment):
    """The resumed run ends with the same files, and its observers have seen every event, with the
    same numbers."""
    assert is_whole_after_a_kill(train, whole, tmp_path / "run", monkeypatch, moment)


@pytest.mark.slow
def test_a_kill_at_any_write_loses_no_event(train, whole, tmp_path, monkeypatch):
    """Before and after every file that is written."""
    moment = 0
    while is_whole_after_a_kill(train, whole, tmp_path / str(moment), monkeypatch, moment):
        moment += 1
    assert moment > 30


@pytest.mark.parametrize("times", [1, 2])
def test_a_kill_in_an_evaluation_loses_no_event(train, whole, tmp_path, monkeypatch, times):
    def killed(*given):
        killed.count += 1
        if killed.count == times:
            raise Killed
        return evaluate(*given)

    evaluate, killed.count, diary = training_run.evaluate, 0, Diary()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training_run, "evaluate", killed)
        train("run", diary)
    train("run", diary)
    starts = [event for event in diary.events if event[0] == "started"]
    assert starts == [("started", 0), ("started", times + 1)]
    assert diary.told == whole[0] and results(tmp_path / "run") == whole[1]


def test_a_failed_evaluation_has_not_ended_the_run(train, whole, monkeypatch):
    """Its epoch is told, and the end of the run, once a resume has evaluated it."""

    def fails(*given):
        raise ReidError("no pictures")

    diary = Diary()
    with monkeypatch.context() as patch, pytest.raises(ReidError, match="no pictures"):
        patch.setattr(training_run, "evaluate", fails)
        train("run", diary, sets=("eval.every=0",))
    assert [event[:2] for event in diary.events] == [("started", 0), ("epoch", 0), ("epoch", 1)]
    train("run", diary, sets=("eval.every=0",))
    assert [event[0] for event in diary.events[3:]] == ["started", "epoch", "ended"]
    assert diary.told[2:] == whole[0][2:]


def _wrapped(diary):
    """An interrupt of which an import has made another error."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise ImportError from error


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_interrupt_is_none_of_its_errors(train, wrapped):
    def interrupted(*event):
        if wrapped:
            _wrapped(event)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("run", Diary(interrupted))


def test_a_process_without_observers_leaves_the_record_alone(train, tmp_path):
    """Of several processes one has the observers, and the others end at the same time."""
    sets = ("train.epochs=1", "eval.every=0")
    train("run", Diary(lambda *event: True), sets=sets)
    record = tmp_path / "run" / "observed.json"
    before = record.read_bytes()
    other = Observing([], tmp_path / "run", Silent(), False)
    other.started(None, 1)
    other.epochs_ended(None, [({}, None)])
    other.ended(None, None)
    assert record.read_bytes() == before


def test_the_traceback_is_shown_where_it_is_asked_for(train):
    said = train("run", Diary(lambda *event: True), sets=("train.epochs=1",), traceback=True)
    (trace,) = said.of("Traceback (most recent call last)")
    assert "self.note(" in trace


def test_observers_of_before_need_no_new_argument(train):
    events: list[str] = []

    @hookimpl
    def reid_run_started(run):
        events.append(run.folder.name)

    train("run", types.SimpleNamespace(reid_run_started=reid_run_started))
    assert events == ["run"]


def test_what_an_observer_does_to_numbers_stays_with_it(train, whole, tmp_path):
    class Greedy(Diary):
        def note(self, *event):
            pass

        @hookimpl
        def reid_epoch_ended(self, run, epoch, means, scores):
            means.clear()
            if scores:
                scores["demo"].clear()

    other = Diary()
    train("run", Greedy(), other)
    assert other.told == whole[0] and results(tmp_path / "run") == whole[1]


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"diary": 3}', '{"diary": {"epochs": "x", "ended": false}}']
)
def test_a_damaged_record_is_named(train, tmp_path, text):
    sets = ("train.epochs=1", "eval.every=0")
    train("run", Diary(lambda *event: True), sets=sets)
    (tmp_path / "run" / "observed.json").write_text(text)
    with pytest.raises(DataError, match=r"observed\.json is damaged"):
        train("run", Diary(), sets=sets)
