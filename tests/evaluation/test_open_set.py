"""Scores of an open set against naive float64 references, and the runs that give them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from running import TINY

from reidcore.cli.main import main
from reidcore.distributed.processes import ALONE
from reidcore.evaluation.fast_metrics import count_queries
from reidcore.evaluation.open_set_scores import BINS, FAR, OpenSetScores
from reidcore.evaluation.relevance import Judgements
from reidcore.protocols.open_set import OpenSet
from reidcore.protocols.score_names import smaller_is_better
from reidcore.runfolder.score_files import read_scores

ASKED = OpenSet(far_at=[0.01, 0.1, 0.35, 1.0], known_at=[0.4, 0.65])


def problem(seed: int, decimals: int | None = None):
    """Random distances, nearer for matches, and masks; a third of the queries has no match."""
    draw = torch.Generator().manual_seed(seed)
    match = torch.rand(60, 40, generator=draw) < 0.1
    match[:20] = False
    distances = torch.rand(60, 40, generator=draw) + 0.4 * ~match
    if decimals is not None:
        distances = distances.round(decimals=decimals)
    return distances, match, torch.rand(60, 40, generator=draw) < 0.1


def probability(distances: torch.Tensor) -> torch.Tensor:
    return torch.exp(-distances)


def scored(distances, match, ignored, rows=60, scale=probability):
    found = OpenSetScores(ASKED, scale)
    for start in range(0, 60, rows):
        here = slice(start, start + rows)
        judged = Judgements.of_masks(match[here], ignored[here])
        first = count_queries(distances[here], judged).first
        found.add(distances[here], judged, first, start)
    found.gather(ALONE)
    return found.scores()


class Naive:
    """The same in plain Python, query by query."""

    def __init__(self, distances, match, ignored):
        self.known, self.strangers = [], []
        self.pairs: list[tuple[float, bool]] = []
        self.answers: list[tuple[float, bool]] = []
        for row, own, left in zip(
            distances.tolist(), match.tolist(), ignored.tolist(), strict=True
        ):
            kept = [(d, m) for d, m, i in zip(row, own, left, strict=True) if not i]
            nearest, right = min(kept, key=lambda pair: pair[0])  # the first of equal ones
            self.pairs += kept
            self.answers.append((nearest, right))
            if any(m for _, m in kept):
                self.known.append((nearest, right))
            else:
                self.strangers.append(nearest)

    def identified(self, rate: float) -> float:
        """The best of all thresholds that let no more than this share of strangers pass."""
        best = 0.0
        for limit in [*self.strangers, *(d for d, _ in self.known), math.inf]:
            alarms = sum(d < limit for d in self.strangers)
            if alarms <= rate * len(self.strangers) + 1e-9:
                hits = sum(right and d < limit for d, right in self.known)
                best = max(best, hits / len(self.known))
        return best

    def at(self, least: float) -> tuple[float, float]:
        told = [right and math.exp(-d) >= least for d, right in self.known]
        alarms = [math.exp(-d) >= least for d in self.strangers]
        return sum(told) / len(told), sum(alarms) / len(alarms)


def calibration_error(pairs, weigh: bool) -> float:
    """Of (distance, match); weigh: as if there were as many matches as others."""
    count = {kind: sum(m == kind for _, m in pairs) for kind in (True, False)}
    bins = [[0.0, 0.0, 0.0] for _ in range(BINS)]
    for distance, match in pairs:
        p = math.exp(-distance)
        weight = 0.5 / count[match] if weigh else 1 / len(pairs)
        one = bins[min(BINS - 1, int(p * BINS))]
        one[0], one[1], one[2] = one[0] + weight, one[1] + weight * p, one[2] + weight * match
    return sum(abs(total - hits) for _, total, hits in bins)


@pytest.mark.parametrize("decimals", [None, 1])
def test_rates_are_those_of_the_best_threshold(decimals):
    """DIR at every rate, of the scores and of the curve, equals the best over all thresholds, also
    where distances are equal."""
    given = problem(0, decimals)
    found, naive = scored(*given), Naive(*given)
    for rate in ASKED.far_at:
        assert found[f"DIR@FAR={rate:g}"] == pytest.approx(naive.identified(rate), abs=1e-6), rate
    assert found["far"] == list(FAR) and FAR[0] == 0.001 and FAR[-1] == 1
    assert found["dir"] == pytest.approx([naive.identified(rate) for rate in FAR], abs=1e-6)
    assert 0 < found["dir"][15] < found["dir"][-1] < 1


def test_probabilities_are_compared_with_shares():
    """Rates at probabilities and both calibration errors equal loops over pairs in float64."""
    given = problem(1)
    found, naive = scored(*given), Naive(*given)
    for least in ASKED.known_at:
        expected = naive.at(least)
        named = found[f"DIR@P={least:g}"], found[f"FAR@P={least:g}"]
        assert named == pytest.approx(expected, abs=1e-6)
    assert 0 < expected[1] < 1
    assert found["ECE"] == pytest.approx(calibration_error(naive.pairs, True), abs=1e-5)
    assert found["ECE-first"] == pytest.approx(calibration_error(naive.answers, False), abs=1e-5)
    bins = zip(found["confidence"], found["observed"], found["weight"], strict=True)
    assert sum(w * abs(c - o) for c, o, w in bins) == pytest.approx(found["ECE"], abs=1e-4)
    assert sum(found["weight"]) == pytest.approx(1, abs=1e-5)


def test_a_perfect_calibration_has_no_error():
    """Where the share of matches at each probability is that probability, the error is 0."""
    distances = -torch.log(torch.tensor([[0.25] * 4 + [0.75] * 4]))
    match = torch.tensor([[True] + [False] * 3 + [True] * 3 + [False]])
    found = OpenSetScores(ASKED, probability)
    judged = Judgements.of_masks(match, torch.zeros_like(match))
    found.add(distances, judged, torch.tensor([1]), 0)
    assert found.scores()["ECE"] == 0


def test_blocks_change_nothing_and_no_probability_says_nothing():
    given = problem(2)
    assert scored(*given, rows=7) == scored(*given)
    plain = scored(*given, scale=None)
    assert {*plain} == {f"DIR@FAR={rate:g}" for rate in ASKED.far_at} | {"far", "dir"}


def test_an_empty_list_is_no_answer():
    """A query whose whole gallery is left out raises no alarm at any rate below 1."""
    distances = torch.tensor([[0.1, 0.2], [0.3, 0.9]])
    match = torch.tensor([[False, False], [True, False]])
    ignored = torch.tensor([[True, True], [False, False]])
    found = OpenSetScores(ASKED, probability)
    found.add(distances, Judgements.of_masks(match, ignored), torch.tensor([0, 1]), 0)
    scores = found.scores()
    assert scores["DIR@FAR=0.01"] == 1 and scores["FAR@P=0.4"] == 0 and scores["DIR@P=0.4"] == 1


RUN = TINY.replace("epochs = 6", "epochs = 1").replace("train_identities = 4", "train_identities=9")
RUN = RUN.replace("test_identities = 3", "test_identities = 6").replace("every = 1", "")
RANKINGS = (
    '\n[[post]]\nname = "rerank"\nuse = "core.rerank"\nk1 = 4\nk2 = 2\n'
    '\n[[ranking]]\nname = "main"\nmatcher = "look"\npost = ["rerank"]\n'
    '\n[[ranking]]\nname = "likely"\nmatcher = "look"\nscale = "isotonic"\n'
    '\n[[ranking]]\nname = "rows"\nmatcher = "look"\nscale = "row_minmax"\n'
)
CALIBRATED = {"ECE", "ECE-first", "DIR@P=0.5", "FAR@P=0.5"}


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """The folder of a run scored by the protocol, with identities held out of its training."""
    folder = tmp_path_factory.mktemp("open-set")
    (folder / "run.toml").write_text(RUN + RANKINGS)
    settings = ['eval.protocol={use="open_set",trials=2,known_at=[0.5]}', "data.hold_out=0.34"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        words = [word for one in settings for word in ("--set", one)]
        assert main(["run", "run.toml", "--out", "run", *words]) == 0
        yield folder


def test_a_run_has_the_scores(work, monkeypatch, capsys):
    """Probabilities are scored where distances tell them: not behind postprocessors, nor by row.
    `reid eval` gives the same, and `reid compare` marks the smaller error as the best."""
    monkeypatch.chdir(work)
    monkeypatch.setenv("REID_CACHE", str(work / "cache"))
    found = read_scores(Path("run/scores.json"))["demo"]
    assert {*found["main"]["plain"]} >= CALIBRATED and {*found["likely"]["plain"]} >= CALIBRATED
    for stage in (found["main"]["rerank"], found["rows"]["plain"]):
        assert not {*stage} & CALIBRATED and {"far", "dir", "DIR@FAR=0.1"} <= {*stage}
    plain = found["main"]["plain"]
    assert plain["queries"]["mean"] == plain["queries_without_match"]["mean"] == 6
    assert len(plain["mAP"]["values"]) == 2 and plain["far"] == list(FAR)
    assert main(["eval", "run", "-o", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text()) == json.loads(
        Path("run/scores.json").read_text()
    )
    capsys.readouterr()
    assert main(["compare", "run", "--json"]) == 0
    (first, *_) = json.loads(capsys.readouterr().out)
    assert first["scores"]["ECE"]["values"] == plain["ECE"]["values"] and "far" not in first
    assert main(["compare", "run"]) == 0
    header, *lines = (re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines())
    assert "far" not in header
    cells = {
        line[2]: line[header.index("ECE")] for line in lines if len(line) >= len(header) - 2 > 9
    }
    errors = {name: float(cell.split()[0]) for name, cell in cells.items()}
    assert {*errors} == {"main", "likely"}
    for name, cell in cells.items():
        assert cell.endswith("*") == (errors[name] == min(errors.values()))
    assert smaller_is_better("FAR@P=0.5") and not smaller_is_better("DIR@FAR=0.1")


def test_pairs_are_those_of_identities_held_out(work, monkeypatch):
    """Three of nine identities are not trained on, and the pairs beside the weights are theirs: the
    distances of templates that the run makes of their pictures."""
    import reidcore
    from reidcore.data.held_out import digest
    from reidcore.data.manifest import read_manifest

    monkeypatch.chdir(work)
    record = json.loads(Path("run/lock.json").read_text())
    assert record["training"]["identities"] == 6
    rows = read_manifest(next(Path("cache").rglob("manifest.csv")))
    training = [row for row in rows if row.split == "train"]
    out = sorted({row.pid for row in training}, key=digest)[:3]
    held = [row for row in training if row.pid in out]
    run = reidcore.load("run", device="cpu")
    pairs = run.model.pairs["look"]
    templates = run.templates(held)
    distances = run.distances(templates, templates, "main").numpy()
    pid = np.array([row.pid for row in held])
    strangers = np.unique(distances[pid[:, None] != pid])
    kept = pairs.different.numpy()
    assert len(kept) and np.abs(strangers[:, None] - kept).min(0).max() < 1e-5
    others = [row for row in training if row.pid not in out]
    elsewhere = run.templates(others)
    other = np.unique(run.distances(elsewhere, elsewhere, "main").numpy())
    assert np.abs(other[:, None] - kept).min(0).max() > 1e-5


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.hold_out=0.05", "hold_out = 0.05 is 0 of the 9 identities of train 'demo'; it has"),
        ("data.hold_out=0.99", "hold_out = 0.99 is 9 of the 9 identities"),
        ('eval.protocol={use="open_set",unknown=0}', "every query would have a match: 6 of 6"),
        ('eval.protocol={use="open_set",unknown=0.99}', "no query would have a match: 6 of 6"),
        ('eval.protocol={use="open_set",far_at=[0]}', "far_at"),
    ],
)
def test_what_cannot_be_is_refused(work, monkeypatch, capsys, setting, said):
    monkeypatch.chdir(work)
    monkeypatch.setenv("REID_CACHE", str(work / "cache"))
    assert main(["check", "--no-dry", "run.toml", "--set", setting]) == 2
    assert said in capsys.readouterr().err


def test_observers_are_shown_its_scores_in_a_dry_run(work, monkeypatch):
    """`reid check` makes scores of the shape that the run has."""
    from reidcore.plugins.loading import Plugins
    from reidcore.runfiles.parse import parse_runfile
    from reidcore.training.dry_observers import made_up_scores
    from reidcore.wiring.make_plan import make_plan

    monkeypatch.chdir(work)
    monkeypatch.setenv("REID_CACHE", str(work / "cache"))
    sets = ['eval.protocol={use="open_set",trials=2,known_at=[0.5]}']
    plan = make_plan(parse_runfile(RUN + RANKINGS, Path("run.toml"), sets), Plugins())
    made = made_up_scores(plan)["demo"]["main"]["plain"]
    real = read_scores(Path("run/scores.json"))["demo"]["main"]["plain"]
    assert {*made} == {*real}
    assert all(type(made[name]) is type(real[name]) for name in real)
