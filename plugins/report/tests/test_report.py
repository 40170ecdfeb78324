"""What `reid report` gathers, against naive references, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import attrs
import numpy as np
import pytest
import torch
from running import TINY

import reidcore
from reid_report import selection, tables
from reid_report.evaluation import Evaluated, evaluated
from reid_report.folder import read_folders
from reid_report.looking import BINS, SHOWN_IGNORED, Bins
from reid_report.page import disagreements, score_panels, training_panels
from reid_report.stage import IGNORED, MATCH, WRONG, Stage
from reidcore.api import Row
from reidcore.cli.main import main
from reidcore.data.manifest import write_manifest
from reidcore.errors import DataError, UsageError
from reidcore.support.progress import Silent

POST = """
[[post]]
name = "rerank"
use = "core.rerank"
k1 = 6
k2 = 3

[[ranking]]
name = "main"
matcher = "look"
post = ["rerank"]
"""
TOP = 4


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The current folder with a run of three epochs, scored after the second and the last."""
    folder = tmp_path_factory.mktemp("report")
    text = TINY.replace("epochs = 6", "epochs = 3").replace("every = 1", "every = 2")
    text = text.replace("test_identities = 3", "test_identities = 6")
    (folder / "tiny.toml").write_text(text + "tar_at = [0.2, 0.05]\n" + POST)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        assert main(["run", "tiny.toml", "--out", "run", "--set", "train.device=cpu"]) == 0
        yield folder


@pytest.fixture(scope="module")
def found(work) -> Evaluated:
    return evaluated(work / "run", Silent(), "cpu", near=TOP)


@attrs.frozen
class Naive:
    """One query against the whole gallery, in plain Python: ascending (distance, number, kind)."""

    row: Row
    listed: list[tuple[float, int, int]]

    @property
    def kept(self) -> list[tuple[float, int, int]]:
        return [one for one in self.listed if one[2] != IGNORED]

    @property
    def ranks(self) -> list[int]:
        return [rank for rank, (_, _, kind) in enumerate(self.kept, 1) if kind == MATCH]

    def average_precision(self, camera: str | None, rows: list[Row]) -> float | None:
        kept = [one for one in self.kept if camera in (None, rows[one[1]].camera)]
        ranks = [rank for rank, (_, _, kind) in enumerate(kept, 1) if kind == MATCH]
        if not ranks:
            return None
        return sum(hit / rank for hit, rank in enumerate(ranks, 1)) / len(ranks)


@pytest.fixture(scope="module")
def rows(found) -> list[Row]:
    return list(found.rows["demo"])


@pytest.fixture(scope="module")
def naive(work, rows) -> list[Naive]:
    """The plain stage by `Search.distances` and the rule of cross_camera written down again."""
    run = reidcore.load(work / "run", device="cpu")
    sides = [
        [number for number, row in enumerate(rows) if row.split == split]
        for split in ("query", "gallery")
    ]
    pictures = [[rows[number] for number in side] for side in sides]
    distances = run.distances(*pictures).tolist()
    queries = []
    for row, values in zip(pictures[0], distances, strict=True):
        listed = []
        for number, distance in zip(sides[1], values, strict=True):
            other = rows[number]
            kind = MATCH if other.pid == row.pid else WRONG
            if kind == MATCH and other.camera == row.camera:
                kind = IGNORED
            listed.append((distance, number, kind))
        queries.append(Naive(row, sorted(listed, key=lambda one: (one[0], one[1]))))
    return queries


@pytest.fixture(scope="module")
def plain(found) -> Stage:
    return found.stages["demo", "main", "plain"]


def test_ranks_and_precision(plain, naive, rows):
    """Ranks of first matches and average precision of every query."""
    assert plain.rank.tolist() == [query.ranks[0] for query in naive]
    expected = [query.average_precision(None, rows) for query in naive]
    np.testing.assert_allclose(plain.ap, expected, rtol=1e-12)


def test_lists(plain, naive):
    """The nearest pictures that count, the first ignored ones among them, and how many more."""
    hidden = 0
    for place, query in enumerate(naive):
        last = query.kept[TOP - 1][0]
        ignored = [one for one in query.listed if one[2] == IGNORED and one[0] <= last]
        shown = sorted(
            [*query.kept[:TOP], *ignored[:SHOWN_IGNORED]], key=lambda one: (one[0], one[1])
        )
        size = len(shown)
        assert plain.near[place, :size].tolist() == [number for _, number, _ in shown]
        assert plain.near_kind[place, :size].tolist() == [kind for _, _, kind in shown]
        distances = [distance for distance, _, _ in shown]
        np.testing.assert_allclose(plain.near_distance[place, :size], distances, rtol=1e-6)
        assert (plain.near[place, size:] == -1).all()
        assert plain.near_hidden[place] == len(ignored) - len(ignored[:SHOWN_IGNORED])
        hidden += len(ignored)
    assert hidden  # some lists have pictures that are not counted


def test_nearest_match_and_stranger(plain, naive):
    for place, query in enumerate(naive):
        for kind, number, distance in (
            (MATCH, plain.match, plain.match_distance),
            (WRONG, plain.wrong, plain.wrong_distance),
        ):
            first = next(one for one in query.kept if one[2] == kind)
            assert number[place] == first[1]
            assert distance[place] == pytest.approx(first[0], rel=1e-6)


def test_camera_pairs(plain, naive, rows):
    """mAP of the queries of one camera in the gallery pictures of another alone."""
    cameras = sorted({row.camera for row in rows})
    expected = {}
    for a in cameras:
        for b in cameras:
            values = [query.average_precision(b, rows) for query in naive if query.row.camera == a]
            values = [value for value in values if value is not None]
            if values:
                expected[a, b] = (sum(values) / len(values), len(values))
    assert plain.cameras.keys() == expected.keys() and len(expected) == 2
    for pair, (value, count) in expected.items():
        assert plain.cameras[pair] == (pytest.approx(value, rel=1e-12), count)


def test_histogram_and_thresholds(plain, naive, work):
    """Every pair that counts is in its bin; rates and thresholds are those of its distances."""
    pairs = [one for query in naive for one in query.kept]
    for kind, counts in ((MATCH, plain.histogram.match), (WRONG, plain.histogram.wrong)):
        values = [distance for distance, _, one in pairs if one == kind]
        assert counts.tolist() == np.histogram(values, plain.histogram.edges)[0].tolist()
        assert counts.sum() == len(values)
    strangers = sorted(distance for distance, _, kind in pairs if kind == WRONG)
    matches = [distance for distance, _, kind in pairs if kind == MATCH]
    scores = json.loads((work / "run" / "scores.json").read_text())["demo"]["main"]["plain"]
    assert list(plain.accepts) == [0.2, 0.05]
    for rate, (threshold, share) in plain.accepts.items():
        assert threshold == pytest.approx(strangers[int(rate * len(strangers))], rel=1e-6)
        assert share == sum(one < threshold for one in matches) / len(matches)
        assert share == pytest.approx(scores[f"TAR@FAR={rate:g}"], abs=1e-6)


def test_bins_depend_on_no_order():
    """Numbers of unknown range, in blocks of any order; the width is the smallest that fits."""
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 3 + 40
    seen = []
    for parts in (values.split(100), values.flip(0).split(77), [values]):
        bins = Bins()
        for part in parts:
            bins.add("match", part)
            bins.add("wrong", part[:10] * 2)
        seen.append(bins.histogram())
        assert seen[-1].match.sum() == 5000
        assert len(seen[-1].match) <= BINS
    for one in seen:
        expected = np.histogram(values.numpy().astype(np.float64), one.edges)[0]
        assert one.match.tolist() == expected.tolist()
    assert len({one.width for one in seen}) == 1
    # Half as wide, the bins would be too many.
    ends = [np.floor(edge / (one.width / 2)) for edge in (seen[0].edges[0], seen[0].edges[-1])]
    assert ends[1] - ends[0] > BINS


def test_bins_of_one_value():
    bins = Bins()
    bins.add("wrong", torch.full((7,), 0.25))
    found = bins.histogram()
    assert found.wrong.tolist() == [7] and found.match.tolist() == [0]
    assert found.edges[0] <= 0.25 < found.edges[1]


def test_what_a_postprocessor_changed(found):
    """Ranks gained and lost, counted again query by query; the largest factors come first."""
    old, new = (found.stages["demo", "main", stage] for stage in ("plain", "rerank"))
    change = selection.change(old, new)
    pairs = list(zip(old.rank.tolist(), new.rank.tolist(), strict=True))
    gained = {place for place, (before, after) in enumerate(pairs) if after < before}
    lost = {place for place, (before, after) in enumerate(pairs) if after > before}
    assert gained and lost, "the run shows nothing"
    assert set(change.gained.tolist()) == gained and set(change.lost.tolist()) == lost
    assert change.same == len(pairs) - len(gained) - len(lost)
    factors = [pairs[place][0] / pairs[place][1] for place in change.gained]
    assert factors == sorted(factors, reverse=True)
    factors = [pairs[place][1] / pairs[place][0] for place in change.lost]
    assert factors == sorted(factors, reverse=True)
    assert change.ap_gained == (new.ap > old.ap + 1e-9).sum()
    swapped = selection.change(new, old)
    assert set(swapped.gained.tolist()) == lost and set(swapped.lost.tolist()) == gained


def test_changes_of_other_queries_are_refused(plain):
    other = attrs.evolve(plain, query=plain.query + 1)
    with pytest.raises(ValueError, match="different queries"):
        selection.change(plain, other)


def test_failures(plain):
    """The hardest have their first match last, the most confident their nearest stranger first;
    queries whose first picture matches are neither."""
    hardest = selection.hardest(plain, 1000)
    assert sorted(hardest.tolist()) == np.flatnonzero(plain.rank > 1).tolist()
    assert (np.diff(plain.rank[hardest]) <= 0).all()
    confident = selection.most_confident(plain, 1000)
    assert set(confident.tolist()) == set(hardest.tolist())
    assert (np.diff(plain.wrong_distance[confident]) >= 0).all()
    assert selection.hardest(plain, 2).tolist() == hardest[:2].tolist()
    without = attrs.evolve(plain, rank=np.where(plain.rank > 1, 0, plain.rank))
    assert not len(selection.hardest(without, 5)) and not len(selection.most_confident(without, 5))
    assert set(selection.spread(without, 5).tolist()) <= set(np.flatnonzero(without.rank).tolist())


def test_watching_changes_no_score(found, work):
    """The evaluation of a report gives the scores of the run, and says so where it does not."""
    (folder,) = read_folders([work / "run"])
    assert json.loads((work / "run" / "scores.json").read_text()) == found.scores
    assert disagreements(folder, found) == []
    scores = json.loads((work / "run" / "scores.json").read_text())
    scores["demo"]["main"]["rerank"]["mAP"] += 0.01
    (note,) = disagreements(folder, attrs.evolve(found, scores=scores))
    assert note.startswith("demo main rerank: mAP is ")


def test_curves(work):
    """Every column of means.csv is a curve, and mAP and rank-1 of the epochs that were scored."""
    (folder,) = read_folders([work / "run"])
    panels = training_panels(folder)
    lines = (work / "run" / "means.csv").read_text().splitlines()
    columns = lines[0].split(",")
    hidden = {"epoch", "seconds", "pictures_per_second", "lr"}
    assert set(panels) == set(columns) - hidden | {"learning rate"}
    ((epochs, values),) = panels["id"]["id"]
    assert epochs == [1, 2, 3]
    assert values == [float(line.split(",")[columns.index("id")]) for line in lines[1:]]
    scores = json.loads((work / "run" / "scores.json").read_text())["demo"]["main"]
    ((epochs, values),) = score_panels(folder)["mAP, %"]["demo main rerank"]
    assert epochs == [2, 3] and values[1] == 100 * scores["rerank"]["mAP"]
    assert set(score_panels(folder)) == {"mAP, %", "rank-1, %"}


def test_tables_of_procedures_become_curves(work, tmp_path):
    """A CSV file by epoch, as a procedure leaves it with `run.write`, of one or several lines an
    epoch; other files are let be."""
    copied = tmp_path / "run"
    shutil.copytree(work / "run", copied, ignore=shutil.ignore_patterns("*.safetensors"))
    alpha = "epoch,slot,a,entropy\n1,1,0.5,0.7\n1,2,0.4,0.6\n2,1,0.25,0.3\n2,2,,0.2\n"
    (copied / "alpha.csv").write_text(alpha)
    (copied / "rates.csv").write_text("epoch,rate\n1,3\n2,1\n")
    (copied / "notes.csv").write_text("epoch,words\n1,none\n")
    (copied / "pairs.csv").write_text("a,b\n1,2\n")
    (folder,) = read_folders([copied])
    assert folder.tracked == {
        "alpha: a": {"slot 1": [([1, 2], [0.5, 0.25])], "slot 2": [([1], [0.4])]},
        "alpha: entropy": {"slot 1": [([1, 2], [0.7, 0.3])], "slot 2": [([1, 2], [0.6, 0.2])]},
        "rates: rate": {"rate": [([1, 2], [3, 1])]},
    }
    assert set(folder.tracked) < set(training_panels(folder))


def test_time_and_memory(work):
    """A finished run says what it took; the memory is at least what Python and torch need."""
    used = json.loads((work / "run" / "lock.json").read_text())["used"]
    assert 0 < used["evaluation_seconds"] < 100 and used["peak_gpu_memory"] is None
    if sys.platform != "win32":
        assert 50 * 2**20 < used["peak_memory"] < 2**36
    (folder,) = read_folders([work / "run"])
    facts = dict(tables.facts(folder))
    assert facts["peak memory"] == f"{used['peak_memory'] / 2**20:.0f} MiB"
    assert facts["training"].startswith("3 epochs in 0:0")


def test_differences(work):
    """From the same place of the first run, else from its first ranking's last stage."""
    (work / "copy").mkdir(exist_ok=True)
    for name in ("lock.json", "means.csv", "run.toml"):
        shutil.copy(work / "run" / name, work / "copy" / name)
    scores = json.loads((work / "run" / "scores.json").read_text())
    last = scores["demo"]["main"]["rerank"]
    scores["demo"]["main"]["plain"]["mAP"] += 0.125
    scores["demo"]["new"] = {"plain": {**last, "mAP": last["mAP"] - 0.25}}
    (work / "copy" / "scores.json").write_text(json.dumps(scores))
    grid = tables.side_by_side(read_folders([work / "run", work / "copy"]))
    column = grid.columns.index("mAP") + 1
    assert grid.columns[column] == "Δ"
    found = {tuple(row[:4]): row[column] for row in grid.rows}
    assert found["copy", "demo", "main", "plain"] == "+12.5"
    assert found["copy", "demo", "main", "rerank"] == "+0.0"
    assert found["copy", "demo", "new", "plain"] == "-25.0"
    assert found["run", "demo", "main", "plain"] == ""


def test_repeats(work, tmp_path):
    """A folder of repeats is one run: mean and deviation, and a curve for each repeat."""
    for number in (0, 1):
        (tmp_path / "seeds" / str(number)).mkdir(parents=True)
        for name in ("lock.json", "means.csv", "run.toml", "scores.json"):
            shutil.copy(work / "run" / name, tmp_path / "seeds" / str(number) / name)
    summary = {"mAP": {"mean": 0.5, "deviation": 0.1, "values": [0.4, 0.6]}, "queries": 12}
    scores = {"demo": {"main": {"plain": summary}}}
    (tmp_path / "seeds" / "scores.json").write_text(json.dumps(scores))
    (folder,) = read_folders([tmp_path / "seeds"])
    assert [path.name for path in folder.runs] == ["0", "1"]
    assert len(training_panels(folder)["loss"]["loss"]) == 2
    (row,) = tables.scores(folder).rows
    assert row == ["demo", "main", "plain", "50.0 ± 14.1", "12"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("means.csv", "loss,seconds\n1,2\n", "means.csv is damaged: it has no column epoch"),
        ("means.csv", "epoch,loss\n1,much\n", "means.csv is damaged"),
        ("scores.json", "[1]", "scores.json is damaged"),
        ("scores-by-epoch.json", '[{"epoch": "x"}]', "scores-by-epoch.json is damaged"),
        ("scores-by-epoch.json", "{", "scores-by-epoch.json is damaged"),
    ],
)
def test_damaged_files_are_named(work, tmp_path, file, text, message):
    copied = tmp_path / "run"
    shutil.copytree(work / "run", copied, ignore=shutil.ignore_patterns("*.safetensors"))
    (copied / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read_folders([copied])


def test_what_is_absent_is_said(work, tmp_path):
    """An unfinished run without scores and epochs still has its settings."""
    copied = tmp_path / "run"
    copied.mkdir()
    shutil.copy(work / "run" / "run.toml", copied)
    lock = json.loads((work / "run" / "lock.json").read_text())
    (copied / "lock.json").write_text(json.dumps({**lock, "finished": False}))
    (folder,) = read_folders([copied])
    text = " ".join(folder.absent)
    assert "unfinished" in text and "no scores" in text and "no training curves" in text
    assert ["train.epochs", "3"] in tables.settings(folder).rows
    with pytest.raises(UsageError, match="no run folder"):
        read_folders([tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-side", "4"], "--max-side must be at least 16, got 4"),
        (["--top", "0"], "--top must be at least 1, got 0"),
        (["--queries", "-1"], "--queries must be at least 0, got -1"),
        (["-o", "nowhere/report.html"], "there is no folder"),
    ],
)
def test_refused_options(work, capsys, options, message):
    assert main(["report", "run", *options]) == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib(work, capsys, monkeypatch):
    """Where a package that the plugin requires is gone, the message names both."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "reid_report.plots", raising=False)
    monkeypatch.delitem(sys.modules, "reid_report.page", raising=False)
    assert main(["report", "run"]) == 3
    error = capsys.readouterr().err
    assert "reid-plugin-report" in error and "matplotlib" in error and "Traceback" not in error


def test_scores_and_curves_need_no_torch(work):
    """`--no-data` writes the page without importing torch."""
    code = (
        "import sys\nfrom reidcore.cli.main import main\n"
        "assert main(['report', 'run', '--no-data', '-o', 'lean.html']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (work / "lean.html").read_text().startswith("<!doctype html>")


def test_the_first_of_several_trials(work, rows):
    """VehicleID draws ten galleries: lists and ranks are those of the first, and so they say."""
    people = [Row(row.path, row.pid, split="test") for row in rows]
    write_manifest(work / "people.csv", people)
    text = (work / "tiny.toml").read_text().replace("tar_at = [0.2, 0.05]\n", "")
    start, end = text.index("test = ["), text.index("image =")
    manifest = (work / "people.csv").as_posix()
    entry = f'test = [{{ manifest = "{manifest}", protocol = "vehicleid" }}]\n'
    (work / "draws.toml").write_text(text[:start] + entry + text[end:])
    assert main(["run", "draws.toml", "--out", "draws", "--set", "train.epochs=0"]) == 0
    seen = evaluated(work / "draws", Silent(), "cpu")
    scores = json.loads((work / "draws" / "scores.json").read_text())
    (name,) = scores
    for stage in ("plain", "rerank"):
        found = seen.stages[name, "main", stage]
        assert found.trials == 10
        assert list(found.accepts) == [0.1, 0.01, 0.001]  # the run names none
        values = scores[name]["main"][stage]["mAP"]["values"]
        assert len(values) == 10 and found.ap.mean() == pytest.approx(values[0], abs=1e-6)
        assert found.cameras.keys() == {("", "")}


def test_a_run_is_named_once(work):
    with pytest.raises(UsageError, match="named twice"):
        read_folders([work / "run", work / "nothing" / ".." / "run"])


def test_an_open_set_has_its_figures(work):
    """The page of a run scored by `open_set` shows identification at rates of false alarms, and
    the probabilities beside the shares of matches, with the numbers that scores.json has."""
    shutil.copytree(work / "run", work / "open")
    words = [
        "--set",
        'eval.protocol={use="open_set",trials=1,unknown=0.34}',
        "--set",
        "eval.every=0",
    ]
    assert main(["eval", "open", *words, "-o", "open/scores.json"]) == 0
    assert main(["report", "open", "--no-data", "-o", "open.html"]) == 0
    page = (work / "open.html").read_text()
    found = json.loads((work / "open/scores.json").read_text())["demo"]["main"]
    for stage, one in found.items():
        at = dict(zip(one["far"], one["dir"], strict=True))
        assert f"demo main {stage}: {100 * at[0.01]:.1f} % at 0.01, {100 * at[0.1]:.1f} %" in page
    assert f"demo main plain: calibration error {100 * found['plain']['ECE']:.1f} %" in page
    assert "calibration error" in page and "demo main rerank: calibration" not in page
