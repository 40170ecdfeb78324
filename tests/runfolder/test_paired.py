"""queries.csv, and `reid compare --paired`: a bootstrap over identities."""

from __future__ import annotations

import csv
import json
import math
import random
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from running import TINY

from reidcore.cli.main import main
from reidcore.errors import DataError, UsageError
from reidcore.protocols.score_names import metric_of
from reidcore.runfolder.paired import bootstrap
from reidcore.runfolder.query_files import read_queries

TRIALS = """
[[post]]
name = "rerank"
use = "core.rerank"

[[ranking]]
name = "main"
matcher = "look"

[[ranking]]
name = "again"
matcher = "look"
post = ["rerank"]
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs `plain`, `wide` and the repeats `seeds`, all of two rankings."""
    folder = tmp_path_factory.mktemp("paired")
    short = TINY.replace("epochs = 6", "epochs = 1") + TRIALS
    (folder / "tiny.toml").write_text(short)
    (folder / "seeds.toml").write_text(short + '\n[repeat]\n"train.seed" = [0, 1]\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        for more in (["plain"], ["wide", "--set", "backbone.width=0.25"]):
            assert main(["run", "tiny.toml", "--out", *more]) == 0
        assert main(["run", "seeds.toml", "--out", "seeds"]) == 0
    return folder


@pytest.fixture
def here(runs, tmp_path, monkeypatch):
    copied = tmp_path / "runs"
    shutil.copytree(runs, copied, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(copied)
    monkeypatch.setenv("REID_CACHE", str(runs / "cache"))
    return copied


def compare(capsys, *arguments: str, code: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["compare", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def scores_of(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())["demo"]


def test_queries_have_the_scores_means(here):
    """Of every ranking and stage, the means over the queries are the scores, and the identities
    are those of the data set."""
    found = read_queries(here / "plain" / "queries.csv")
    scores = scores_of(here / "plain")
    places = {("demo", name, stage) for name, stages in scores.items() for stage in stages}
    assert set(found) == places
    for (_, ranking, stage), table in found.items():
        score = scores[ranking][stage]
        assert len(table.ap) == score["queries"]
        assert table.ap.mean() == pytest.approx(score["mAP"], abs=2e-6)
        assert table.found.mean() == pytest.approx(score["rank-1"], abs=2e-6)
        assert len(set(table.identity)) > 1


@pytest.mark.parametrize("protocol", ["single_gallery_shot", "open_set"])
def test_queries_of_protocols_that_draw(here, protocol):
    """Where lists or galleries are drawn, the means are over the draws, as in the scores."""
    changed = ["--set", f"data.test.0.protocol={protocol}"]
    assert main(["eval", "plain", *changed, "--queries", "q.csv", "-o", "scores.json"]) == 0
    scores = json.loads((here / "scores.json").read_text())["demo"]
    for (_, ranking, stage), table in read_queries(here / "q.csv").items():
        for name, values in (("mAP", table.ap), ("rank-1", table.found)):
            stated = scores[ranking][stage]
            (score,) = (stated[one] for one in stated if metric_of(one) == name)
            trials = np.array([trial for trial, _ in table.queries])
            means = [values[trials == trial].mean() for trial in sorted(set(trials.tolist()))]
            wanted = score["values"] if isinstance(score, dict) else [score]
            assert means == pytest.approx(wanted, abs=2e-6)


def test_eval_writes_the_same_queries(here):
    """`reid eval --queries` gives what the run has kept."""
    assert main(["eval", "plain", "--queries", "again.csv"]) == 0
    assert (here / "again.csv").read_text() == (here / "plain" / "queries.csv").read_text()


def test_differences_are_those_of_the_scores(here, capsys):
    """Rows differ from the first of the test set by the difference of their scores; repeats by
    their mean; text and CSV say what JSON does."""
    out, _ = compare(capsys, "plain", "wide", "seeds", "--paired", "--json")
    base, *others = json.loads(out)
    assert "differences" not in base and len(others) == 8

    def mean(row, name):
        value = row["scores"][name]
        return value["mean"] if isinstance(value, dict) else value

    for row in others:
        for name in ("mAP", "rank-1"):
            difference = row["differences"][name]
            wanted = mean(row, name) - mean(base, name)
            assert difference["mean"] == pytest.approx(wanted, abs=4e-6)
            assert difference["low"] <= difference["mean"] <= difference["high"]
            assert 0 < difference["p"] <= 1
    text, _ = compare(capsys, "plain", "wide", "seeds", "--paired", "--csv", "all.csv")
    last = others[-1]["differences"]["mAP"]
    mean, low, high = (f"{100 * last[key]:+.1f}" for key in ("mean", "low", "high"))
    assert f"{mean} [{low}, {high}]" in text.splitlines()[-1]
    with open("all.csv", encoding="utf-8", newline="") as file:
        *_, line = csv.DictReader(file)
    assert float(line["mAP difference"]) == last["mean"] and float(line["mAP p"]) == last["p"]


def test_rows_are_compared_with_the_one_that_is_named(here, capsys):
    """Of the first run; it has no difference itself, those before it have one."""
    out, _ = compare(capsys, "plain", "wide", "--paired", "--against", "again/rerank", "--json")
    rows = {(row["run"], row["ranking"], row["stage"]): row for row in json.loads(out)}
    base = rows.pop(("plain", "again", "rerank"))
    assert "differences" not in base
    for row in rows.values():
        wanted = row["scores"]["mAP"] - base["scores"]["mAP"]
        assert row["differences"]["mAP"]["mean"] == pytest.approx(wanted, abs=4e-6)
    _, message = compare(capsys, "plain", "--paired", "--against", "again/rerenk", code=2)
    assert "is no ranking and stage of test set 'demo', did you mean 'again/rerank'?" in message
    assert "main/plain" in message
    _, message = compare(capsys, "plain", "--against", "again/rerank", code=2)
    assert "--against says what --paired compares with" in message


def test_a_run_without_queries_is_told_how_to_get_them(here, capsys):
    (here / "wide" / "queries.csv").unlink()
    _, message = compare(capsys, "plain", "wide", "--paired", code=2)
    assert "wide has no queries.csv" in message
    assert "reid eval wide --queries wide/queries.csv" in message
    assert main(["eval", "wide", "--queries", "wide/queries.csv"]) == 0
    compare(capsys, "plain", "wide", "--paired")


def test_other_queries_cannot_be_paired(here, capsys):
    path = here / "wide" / "queries.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    _, message = compare(capsys, "plain", "wide", "--paired", code=2)
    assert "wide and plain were not evaluated on the same queries of test set 'demo'" in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("test,ranking\n", "its columns are not"),
        ("demo,main\n", "line 2 has 2 cells, expected 12"),
        ("demo,main,plain,0,1,a.png,7,2,much,1,1,0.5\n", "'much' in the column ap"),
        ("demo,main,plain,0,1,a.png,7,2,nan,1,1,0.5\n", "'nan' in the column ap"),
        ("demo,main,plain,0,-1,a.png,7,2,0.5,1,1,0.5\n", "'-1' in the column number"),
    ],
)
def test_a_damaged_file_is_named(here, line, words):
    path = here / "plain" / "queries.csv"
    header = path.read_text().splitlines(keepends=True)[0]
    path.write_text(line if line.startswith("test") else header + line)
    with pytest.raises(DataError, match=r"queries\.csv is damaged") as raised:
        read_queries(path)
    assert words in str(raised.value)


def naive(difference: list[float], identity: list[str], draws: int) -> tuple[float, float, float]:
    """(low, high, p) by drawing whole identities one by one."""
    groups = defaultdict(list)
    for value, name in zip(difference, identity, strict=True):
        groups[name].append(value)
    dice = random.Random(5)
    means = []
    for _ in range(draws):
        drawn = [v for name in dice.choices(list(groups), k=len(groups)) for v in groups[name]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    rarer = min(sum(one <= 0 for one in means), sum(one >= 0 for one in means))
    return means[int(0.025 * draws)], means[int(0.975 * draws)], 2 * (1 + rarer) / (1 + draws)


def test_the_bootstrap_is_that_of_drawing_identities():
    """Interval and p equal those of a naive program within the error of the draws."""
    dice = np.random.default_rng(1)
    identity = [str(one) for one in dice.integers(40, size=200)]
    shift = {name: dice.normal(0.03, 0.1) for name in set(identity)}
    difference = np.array([shift[name] + dice.normal(0, 0.02) for name in identity])
    found = bootstrap(difference, identity)
    low, high, p = naive(difference.tolist(), identity, 4000)
    assert found.low == pytest.approx(low, abs=0.004)
    assert found.high == pytest.approx(high, abs=0.004)
    assert found.p == pytest.approx(p, abs=4 * math.sqrt(p / 2000))
    # Were queries drawn, 200 instead of 40 would make the interval far too narrow.
    alone = bootstrap(difference, [str(one) for one in range(200)])
    assert alone.high - alone.low < 0.7 * (found.high - found.low)


def test_no_difference_is_not_told_from_chance():
    """Equal scores have p 1; a difference and its opposite have one p; one identity has none."""
    identity = [str(one) for one in range(30)]
    assert bootstrap(np.zeros(30), identity).p == 1
    values = np.random.default_rng(0).normal(0.1, 1, 30)
    there, back = bootstrap(values, identity), bootstrap(-values, identity)
    assert (there.p, there.low) == (back.p, pytest.approx(-back.high))
    with pytest.raises(UsageError, match="one identity"):
        bootstrap(values, ["a"] * 30)


def test_a_query_without_match_is_left_out(tmp_path):
    """As in the scores, which are means over the queries that have a match."""
    path = tmp_path / "queries.csv"
    header = "test,ranking,stage,trial,number,query,identity,matches,ap,found,first,inp\n"
    lines = ["t,main,plain,0,0,a.png,7,2,0.5,1,1,0.5\n", "t,main,plain,0,1,b.png,8,0,0,0,0,0\n"]
    path.write_text(header + "".join(lines))
    (table,) = read_queries(path).values()
    assert (table.identity, table.ap.tolist(), table.found.tolist()) == (("7",), [0.5], [1.0])
