"""Records of trainings in the real libraries, offline: what they hold is what the run says."""

from __future__ import annotations

import csv
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from running import TINY

if any(
    pytest.importorskip("importlib.util").find_spec(name) is None
    for name in ("reid_trackers", "tensorboard", "mlflow", "wandb", "trackio")
):
    pytest.skip("needs `uv run --all-groups`", allow_module_level=True)

from reid_trackers import tracker
from reid_trackers.drawing import BORDER, GAP, HEIGHT, MATCH, QUERY, WRONG, draw_lists
from reid_trackers.records import flat_scores
from reidcore.api import Row, how_to_install
from reidcore.errors import DataError, RunFileError, UsageError
from reidcore.modules import RankedList, RankedPicture
from reidcore.tools import Silent, plan_run, train

ALL = ("tensorboard", "mlflow", "wandb", "trackio")
TEXT = 'plugins = ["trackers"]\n' + TINY.replace("epochs = 6", "epochs = 3").replace(
    "every = 1", "every = 2"
)


class Killed(BaseException):
    """Stands for a kill."""


class Said(Silent):
    """A reporter that keeps what is said, and kills the run after an epoch."""

    def __init__(self, last: int = 0):
        self.lines: list[str] = []
        self.last, self.ended = last, 0

    def say(self, text: str) -> None:
        self.lines.append(text)

    def epoch_started(self, epoch: int, epochs: int, first: int) -> None:
        if self.last and epoch == self.last:
            raise Killed


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for runs, where every tracker keeps its record."""
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.setattr("trackio.utils.TRACKIO_DIR", folder / "trackio")
        patch.setattr("trackio.sqlite_storage.TRACKIO_DIR", folder / "trackio")
        yield folder


def run(folder, use=ALL, said=None, more="", resume=False):
    """Trains the small run in a folder, with some trackers."""
    file = Path(f"{folder}.toml")
    stated = f'use = {json.dumps(list(use))}\npictures = 3\nwandb_mode = "offline"\n{more}'
    file.write_text(TEXT.replace("[train]", f"[trackers]\n{stated}\n[train]"))
    said = said or Said()
    train(file, Path("runs") / folder, resume=resume, check=False, reporter=said)
    return said


@pytest.fixture(scope="module")
def resumed(place):
    """The folder of a run that was killed after an epoch and resumed in another process' place."""
    with pytest.raises(Killed):
        run("killed", said=Said(last=1))
    told = json.loads(Path("runs/killed/trackers.json").read_text())
    assert {one["epochs"] for one in told.values()} == {1}
    said = run("killed", resume=True)
    assert not [line for line in said.lines if "failed" in line], said.lines
    return place / "runs/killed"


def expected(folder: Path) -> dict[str, dict[int, float]]:
    """{name: {epoch: number}} of everything that a record must hold, from the run's own files."""
    found: dict[str, dict[int, float]] = {}
    for row in csv.DictReader((folder / "means.csv").open()):
        epoch = int(row.pop("epoch"))
        for name, text in row.items():
            found.setdefault(f"train/{name}", {})[epoch] = float(text)
    for one in json.loads((folder / "scores-by-epoch.json").read_text()):
        for name, score in flat_scores(one["scores"]).items():
            found.setdefault(name, {})[one["epoch"]] = score
    return found


def known(folder: Path, name: str) -> str:
    told = json.loads((folder / "trackers.json").read_text())[name]
    assert told["ended"] and told["epochs"] == told["scored"] == 3
    return told["known"]


def compare(found, folder):
    """What was found is what is expected, up to the precision of single floats."""
    wanted = expected(folder)
    assert found.keys() == wanted.keys()
    for name, numbers in wanted.items():
        assert found[name].keys() == numbers.keys(), name
        assert list(found[name].values()) == pytest.approx(list(numbers.values()), rel=1e-6), name


def test_tensorboard(resumed):
    """All numbers of a killed and resumed run once, its run file, and a picture per evaluation."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(resumed / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    found = {tag: {one.step: one.value for one in events.Scalars(tag)} for tag in tags["scalars"]}
    compare(found, resumed)
    assert all(len(events.Scalars(tag)) == len(found[tag]) for tag in tags["scalars"])
    assert [one.step for one in events.Images("ranked lists")] == [2, 3]
    (text,) = events.Tensors("run.toml/text_summary")
    assert (resumed / "run.toml").read_text().encode() in text.tensor_proto.string_val[0]


def test_mlflow(resumed):
    """One finished run with parameters, metrics by epoch, pictures and the run file."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    name = known(resumed, "mlflow")
    record = client.get_run(name)
    assert record.info.status == "FINISHED" and record.info.run_name == "killed"
    assert record.data.params["loss.id.use"] == "core.softmax"
    found = {
        key: {one.step: one.value for one in client.get_metric_history(name, key)}
        for key in record.data.metrics
    }
    compare(found, resumed)
    files = {one.path for one in client.list_artifacts(name)}
    assert {"run.toml", "resolved.json", "images"} <= files
    pictures = [one.path for one in client.list_artifacts(name, "images")]
    assert any("step%2" in one or "step+2" in one or "%step%2" in one for one in pictures), pictures


def test_wandb(resumed):
    """Both processes write for one run, whose history has every epoch."""
    from wandb.proto import wandb_internal_pb2

    name = known(resumed, "wandb")
    files = sorted(resumed.glob(f"wandb/offline-run-*-{name}*/*.wandb"))
    assert len(files) >= 1
    found: dict[str, dict[int, float]] = {}
    pictures = []
    for file in files:
        for data in logged(file):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            items = {
                tuple(one.nested_key) or (one.key,): json.loads(one.value_json)
                for one in record.history.item
            }
            for (key, *inner), value in items.items():
                if inner == ["_type"]:  # of what is no number
                    pictures.append(items[("epoch",)])
                elif not inner and not key.startswith(("_", "epoch")):
                    found.setdefault(key, {})[items[("epoch",)]] = value
    compare(found, resumed)
    assert pictures == [2, 3]


def logged(file: Path) -> Iterator[bytes]:
    """The entries of wandb's own file of an offline run, which is a log of LevelDB behind seven
    bytes: blocks of 32 KiB with parts of entries, each part with checksum, length and kind."""
    data, part, place = file.read_bytes(), b"", 7
    while place + 7 <= len(data):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def test_trackio(resumed):
    """One run of the project, with its settings and every epoch's numbers and pictures."""
    from trackio.sqlite_storage import SQLiteStorage

    name = known(resumed, "trackio")
    logs = SQLiteStorage.get_logs("reid", name)
    found: dict[str, dict[int, float]] = {}
    pictures = []
    for line in logs:
        for key, value in line.items():
            if isinstance(value, dict):
                pictures.append(line["step"])
            elif key not in ("step", "timestamp"):
                found.setdefault(key, {})[line["step"]] = value
    compare(found, resumed)
    assert pictures == [2, 3]
    assert SQLiteStorage.get_run_config("reid", name)["loss.id.use"] == "core.softmax"


def test_one_that_fails_harms_nobody(place):
    """It is told once, the run and the other trackers come to their end, and where it is mended a
    resume of the finished run tells it everything."""
    bad = 'mlflow_uri = "nonsense://nowhere"\n'
    said = run("failing", use=("mlflow", "tensorboard"), more=bad)
    folder = Path("runs/failing")
    assert len([line for line in said.lines if line.startswith("tracker mlflow failed:")]) == 1
    assert any("was not told of the end of the run" in line for line in said.lines)
    told = json.loads((folder / "trackers.json").read_text())
    assert told["tensorboard"]["ended"] and told["mlflow"]["epochs"] == 0
    said = run("failing", use=("mlflow", "tensorboard"), resume=True)
    assert any("is told what it has missed" in line for line in said.lines)
    known(folder, "mlflow")
    test_mlflow_history(folder)


def test_mlflow_history(resumed):
    """(Also of the run that failed.) Its record has the run's numbers."""
    from mlflow.tracking import MlflowClient

    client, name = MlflowClient(), known(resumed, "mlflow")
    keys = client.get_run(name).data.metrics
    found = {k: {m.step: m.value for m in client.get_metric_history(name, k)} for k in keys}
    compare(found, resumed)


def test_a_tracker_that_is_added_later_has_it_all(place):
    """A resumed run may have another tracker, which gets the epochs that were before it."""
    with pytest.raises(Killed):
        run("later", use=("tensorboard",), said=Said(last=2))
    run("later", use=("tensorboard", "trackio"), resume=True)
    test_trackio_numbers(Path("runs/later"))


def test_trackio_numbers(resumed):
    from trackio.sqlite_storage import SQLiteStorage

    lines = SQLiteStorage.get_logs("reid", known(resumed, "trackio"))
    losses = {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
    assert losses == pytest.approx(expected(resumed)["train/loss"])


def test_wandb_without_a_login(place, monkeypatch):
    """It never asks in the terminal: it fails with what to do."""
    from reid_trackers.settings import Trackers
    from reid_trackers.tracker import Described

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(place / "none"))
    monkeypatch.setenv("HOME", str(place))
    made = tracker.make_tracker("wandb", Trackers(use=["wandb"]))
    with pytest.raises(UsageError, match=r"wandb login.*trackers.wandb_mode=offline"):
        made.start(Described("x", place, {}, {}), "", 1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("use = []", "expected at least one of tensorboard, mlflow, wandb, trackio, got"),
        ('use = ["tensorbord"]', "got text 'tensorbord' at .use[0], did you mean 'tensorboard'"),
        ('use = ["trackio", "trackio"]', "expected each tracker once, trackio stands twice"),
        ("", "missing key 'use'"),
        ('use = ["trackio"]\npicture = 2', "unknown key 'picture', did you mean 'pictures'"),
        ('use = ["trackio"]\npictures = 17', "at most 16, got 17"),
    ],
)
def test_mistakes_in_the_table(tmp_path, table, message):
    file = tmp_path / "x.toml"
    file.write_text(TEXT.replace("[train]", f"[trackers]\n{table}\n\n[train]"))
    with pytest.raises(RunFileError, match=r"\[trackers\].*" + message.replace("[", r"\[")):
        plan_run(file)


def test_a_library_that_is_missing(tmp_path, monkeypatch):
    """It is told before the run, with what installs it."""
    monkeypatch.setattr("reid_trackers.settings.find_spec", lambda name: None)
    file = tmp_path / "x.toml"
    file.write_text(TEXT.replace("[train]", '[trackers]\nuse = ["wandb"]\n\n[train]'))
    cure = re.escape(how_to_install("reid-plugin-trackers[wandb]"))
    with pytest.raises(RunFileError, match=f"for this one: {cure}"):
        plan_run(file)


def test_a_damaged_note_of_what_was_told(place):
    from reid_trackers.records import _read

    path = place / "trackers.json"
    path.write_text('{"mlflow": 3}')
    with pytest.raises(DataError, match=r"trackers.json is damaged"):
        _read(path)


def test_pictures_of_ranked_lists(tmp_path):
    """The query is framed blue, matches green and others red, from left to right."""
    from PIL import Image

    path = tmp_path / "a.png"
    Image.new("RGB", (HEIGHT // 2, HEIGHT), (7, 7, 7)).save(path)
    row = Row(str(path), "1")
    near = tuple(RankedPicture(row, 0.1, match) for match in (True, False))
    sheet = np.asarray(draw_lists([RankedList(row, near)] * 2))
    wide = HEIGHT // 2 + 2 * BORDER + GAP
    assert sheet.shape == (2 * (HEIGHT + 2 * BORDER + GAP) + GAP, 3 * wide + GAP, 3)
    frames = [tuple(sheet[GAP + 1, GAP + 1 + number * wide]) for number in range(3)]
    assert frames == [QUERY, MATCH, WRONG]
    inner = sheet[GAP + BORDER : GAP + BORDER + HEIGHT, GAP + BORDER : wide - BORDER - 1]
    assert (inner == 7).all()
    assert draw_lists([]) is None


def test_pictures_that_have_gone_are_told(place, monkeypatch):
    """Where a gallery picture cannot be read any more, the records go on without pictures."""

    def gone(row):
        raise DataError(f"{row.path} is missing")

    monkeypatch.setattr("reid_trackers.drawing.open_picture", gone)
    said = run("gone", use=("tensorboard",))
    notes = [line for line in said.lines if "ranked lists could not be drawn" in line]
    assert len(notes) == 2 and "is missing" in notes[0]
    assert known(Path("runs/gone"), "tensorboard")


def test_scores_of_trials_are_their_means():
    scores = {"a": {"main": {"plain": {"mAP": {"mean": 0.5, "deviation": 0.1}, "cmc": [1.0]}}}}
    assert flat_scores(scores) == {"a/main/plain/mAP": 0.5}
