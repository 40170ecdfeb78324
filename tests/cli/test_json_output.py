"""`--json` of commands that print a table: standard output is JSON and nothing else."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from distributions import reid, write_distribution
from running import TINY

from reidcore.cli.main import main


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The current folder, with a trained run `runs/tiny` of one epoch and what was printed."""
    folder = tmp_path_factory.mktemp("json")
    text = TINY.replace("epochs = 6", "epochs = 1")
    (folder / "tiny.toml").write_text(text)
    (folder / "twice.toml").write_text(f'{text}\n[repeat]\n"train.seed" = [0, 1]\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def ask(here, capsys):
    """Runs a command with `--json` and returns what its output holds, and the progress."""

    def asked(*arguments: object, code: int = 0):
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == code
        captured = capsys.readouterr()
        return json.loads(captured.out), captured.err

    return asked


@pytest.fixture(scope="module")
def trained(here):
    assert main(["run", "tiny.toml", "--json"]) == 0
    return Path("runs/tiny")


def test_scores(ask, trained):
    """`run` and `eval` print scores.json; the progress stands in the other stream."""
    written = json.loads((trained / "scores.json").read_text())
    found, progress = ask("run", "tiny.toml", "--resume")
    assert found == written and "is finished" in progress
    found, progress = ask("eval", trained)
    assert found == written and "templates of" in progress


def test_scores_of_repeats(ask):
    """Of a run file with [repeat] they have means and deviations, once for all repeats."""
    found, progress = ask("run", "twice.toml", "--no-dry", "--out", "twice")
    assert found == json.loads(Path("twice/scores.json").read_text())
    assert found["demo"]["main"]["plain"]["mAP"]["deviation"] >= 0
    assert "repeat 2 of 2" in progress


def test_ranked_lists(ask, trained, capsys):
    """`rank` gives what its CSV has, by query, with whole paths and all digits."""
    main(["data", "demo", "people", "--set", "train_identities=4", "--set", "pictures=4"])
    pictures = ("--query", "people/query", "--gallery", "people/gallery", "--top", "3")
    found, _ = ask("rank", trained, *pictures)
    assert main(["rank", str(trained), *pictures]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    flat = [
        {
            "query": str(Path(one["query"]).relative_to(Path.cwd())),
            "rank": str(match["rank"]),
            "gallery": str(Path(match["gallery"]).relative_to(Path.cwd())),
            "distance": f"{match['distance']:.6g}",
        }
        for one in found
        for match in one["matches"]
    ]
    assert flat == lines and len(found[0]["matches"]) == 3
    main(["rank", str(trained), *pictures, "--json", "-o", "ranked.json"])
    assert json.loads(Path("ranked.json").read_text()) == found


def test_a_plan(ask):
    """`check` gives features with who reads them, settings with defaults, and the dry run."""
    found, _ = ask("check", "tiny.toml", "--no-dry")
    features = {one["name"]: one for one in found["features"]}
    assert features["neck.bn"]["shape"] == [64] and "loss.id" in features["neck.bn"]["read_by"]
    assert found["settings"]["parts"]["loss.id"]["smoothing"] == 0.0
    assert found["dry_run"] is None
    dry, _ = ask("check", "tiny.toml")
    assert dry["dry_run"] == {"device": "cpu", "notes": []}
    assert {**dry, "dry_run": None} == found


def test_data_sets(ask):
    """`data index` and `data check` give counts, and all that is wrong."""
    Path("shots/7").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        Path("shots/7", name).write_bytes(b"no picture")
    found, _ = ask("data", "index", "shots")
    assert found["splits"] == {"train": {"pictures": 2, "identities": 1, "cameras": 0}}
    assert found["manifest"] == str(Path("shots/manifest.csv").absolute())
    report, _ = ask("data", "check", "shots", code=4)
    assert report["splits"] == found["splits"] and not report["usable"]
    assert [Path(one["picture"]).name for one in report["damaged"]] == ["a.jpg", "b.jpg"]


def test_listings(ask, tmp_path):
    """`runs` lists run files; `test-plugin` gives every check, with what failed."""
    found, _ = ask("runs", "core")
    assert {"name", "summary", "problem"} == found[0].keys()
    assert "core:demo" in [one["name"] for one in found]
    write_distribution(tmp_path, "early", requires=())
    done = reid(tmp_path, "test-plugin", "early", "--only", "packaging", "--json")
    checks = json.loads(done.stdout)
    assert [one["state"] for one in checks].count("FAILED") == (done.returncode == 3)
    assert all(one["check"] and one["seconds"] >= 0 for one in checks)
    assert "checks," in done.stderr
