"""Runs that are scored by every protocol: scores equal loops over the distances of their trials."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from running import environment, kill_when, reid, results

import reidcore
from reidcore.api import Row
from reidcore.cli.main import main
from reidcore.data.manifest import write_manifest
from tests.archives import vehicleid_lists
from tests.protocol_runs import TEST_ENTRY, by_loop, draw, run_text, scores

RERANK = '\n[[post]]\nname = "rerank"\nuse = "core.rerank"\nk1 = 4\nk2 = 2\n'
RANKINGS = (
    RERANK + '\n[[ranking]]\nname = "main"\nmatcher = "look"\n'
    '\n[[ranking]]\nname = "again"\nmatcher = "look"\npost = ["rerank"]\n'
    '\n[[ranking]]\nname = "rows"\nmatcher = "look"\nscale = "row_minmax"\n'
    '\n[[ranking]]\nname = "quick"\nmatcher = "wide"\nshortlist = { by = "look", top = 3 }\n'
)
WIDE = '\n[[matcher]]\nname = "wide"\nuse = "core.euclidean"\nfeatures = ["neck.bn"]\n'


def run(text: str, *words: str, code: int = 0) -> None:
    Path("run.toml").write_text(text)
    assert main(["run", "run.toml", *words]) == code


@pytest.fixture
def here(tmp_path_factory, monkeypatch, tmp_path: Path) -> Path:
    """A current folder; the demo's pictures are drawn once for all tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_DATA", raising=False)
    cache = tmp_path_factory.getbasetemp() / "protocol-runs"
    monkeypatch.setenv("REID_CACHE", str(cache))
    return tmp_path


def vehicles(root: Path, **pictures: int) -> dict[str, str]:
    """An archive of VehicleID with so many test pictures of each vehicle; vehicle by file."""
    names = [(pid[1:], number) for pid, count in pictures.items() for number in range(count)]
    of = {f"{index:07d}": pid for index, (pid, _) in enumerate(names, 1)}
    draw([root / "image" / f"{name}.jpg" for name in (*of, "0900000")])
    vehicleid_lists(
        root, {"train_list": ["0900000 999"], "test_list_800": [f"{n} {p}" for n, p in of.items()]}
    )
    return of


def assert_trials(found: dict, expected: list[dict[str, float]]) -> None:
    """Every score of the loops is there with mean, deviation and values, and no other."""
    assert {*found} - {"queries", "queries_without_match", "cmc"} == {*expected[0]}
    for name in expected[0]:
        values = [trial[name] for trial in expected]
        assert found[name]["values"] == pytest.approx(values, abs=2e-6), name
        assert found[name]["mean"] == pytest.approx(statistics.fmean(values), abs=2e-6)
        assert found[name]["deviation"] == pytest.approx(statistics.stdev(values), abs=4e-6)


PICTURES = {"_3": 4, "_7": 2, "_8": 1, "_11": 5, "_20": 3, "_31": 3}


def test_vehicleid_averages_its_draws(here: Path, capsys):
    """Scores of every trial equal loops over its own queries and gallery, for a plain ranking, a
    re-ranked one, one whose scale depends on the gallery and one with a shortlist; the galleries
    are in the run folder, templates are made once, and the table shows deviations."""
    of = vehicles(here / "VehicleID", **PICTURES)
    entry = '{ read = "core.vehicleid", root = "VehicleID", counts = "any" }'
    run(run_text(entry, more=WIDE + RANKINGS), "--out", "out")
    printed = capsys.readouterr().out
    assert printed.count(" templates of ") == 1 and f"templates of {len(of)} pictures" in printed
    assert "vehicleid: ranking main, 10 trials" in printed and " ± " in printed

    found = scores("out")
    assert list(found) == ["vehicleid"]
    drawn = json.loads((here / "out" / "draws.json").read_text())["vehicleid"]
    assert drawn["draw"] == "vehicleid-1" and len(drawn["galleries"]["vehicleid"]) == 10
    loaded = reidcore.load("out")
    expected: dict[tuple[str, str], list] = {}
    for names in drawn["galleries"]["vehicleid"]:
        stems = {Path(name).stem for name in names}
        assert sorted(of[stem] for stem in stems) == sorted(pid[1:] for pid in PICTURES)
        sides = [
            [
                Row(str(here / "VehicleID/image" / f"{n}.jpg"), of[n])
                for n in sorted(of)
                if (n in stems) == chosen
            ]
            for chosen in (False, True)
        ]
        query, gallery = sides
        for ranking in ("main", "again", "rows", "quick"):
            distances = loaded.distances(query, gallery, ranking)
            expected.setdefault((ranking, "plain"), []).append(by_loop(distances, query, gallery))
        ranked = loaded.rank(query, gallery, len(gallery), "again")
        places = ranked.index.argsort(1)  # of each gallery picture in the list
        found_here = by_loop(places, query, gallery)
        expected.setdefault(("again", "rerank"), []).append(found_here)
    for (ranking, stage), trials in expected.items():
        assert_trials(found["vehicleid"][ranking][stage], trials)
    assert expected["again", "rerank"] != expected["again", "plain"]
    lock = json.loads((here / "out" / "lock.json").read_text())
    assert lock["protocols"]["vehicleid"] == {"use": "vehicleid", "trials": 10, "seed": 0}


def test_evaluation_may_draw_otherwise(here: Path, capsys):
    """`reid eval` with another seed has other galleries, whose number and deviation it shows."""
    vehicles(here / "VehicleID", **PICTURES)
    stated = "{ use = 'vehicleid', trials = 3 }"
    entry = '{ read = "core.vehicleid", root = "VehicleID", counts = "any" }'
    run(run_text(entry), "--out", "out", "--set", f"eval.protocol={stated}")
    first = scores("out")["vehicleid"]["main"]["plain"]["mAP"]
    for seed in (0, 1):
        words = ["--set", f"eval.protocol.seed={seed}", "-o", f"{seed}.json"]
        assert main(["eval", "out", *words]) == 0
        found = json.loads(Path(f"{seed}.json").read_text())["vehicleid"]["main"]["plain"]["mAP"]
        assert (found == first) == (seed == 0) and len(found["values"]) == 3
    assert main(["compare", "out"]) == 0
    assert f"{100 * first['mean']:.1f} ± {100 * first['deviation']:.1f}" in capsys.readouterr().out


def test_a_killed_run_with_draws_goes_on_bit_by_bit(here: Path):
    """Killed in the middle of the trials, a run ends with the same bytes, draws included."""
    vehicles(here / "VehicleID", **PICTURES)
    entry = '{ read = "core.vehicleid", root = "VehicleID", counts = "any" }'
    (here / "run.toml").write_text(run_text(entry, more=RERANK, evaluation="every = 1"))
    env = environment(here / "cache")
    reid(env, here, "run", "run.toml", "--out", "whole")
    words = ["run", "run.toml", "--out", "killed", "--resume"]
    kill_when(env, here, words, lambda text: text.rstrip().endswith("ranking main, 10 trials"))
    reid(env, here, *words)
    assert results(here / "killed") == results(here / "whole")
    assert (here / "killed/draws.json").read_bytes() == (here / "whole/draws.json").read_bytes()


def sysu(root: Path) -> list[Row]:
    """An archive of SYSU-MM01 with six people to test with; rows of the latter."""
    rows = []
    for pid in (1, 2, *range(5, 11)):
        for camera in range(1, 7):
            if (pid, camera) in ((6, 1), (6, 2), (7, 3), (8, 1)):
                continue
            modality = "infrared" if camera in (3, 6) else "visible"
            for number in range(1, 4):
                path = root / f"cam{camera}" / f"{pid:04d}" / f"{number:04d}.jpg"
                rows.append(Row(str(path), f"{pid:04d}", str(camera), "test", modality=modality))
    draw([Path(row.path) for row in rows])
    (root / "exp").mkdir()
    for split, pids in (("train", [1]), ("val", [2]), ("test", range(5, 11))):
        (root / "exp" / f"{split}_id.txt").write_text(",".join(map(str, pids)))
    return [row for row in rows if row.pid > "0002"]


def test_sysu_counts_identities_and_drops_the_room(here: Path, capsys):
    """Both searches are scored, each over ten draws, CMC by identity; queries of camera 3 leave out
    camera 2, and people without a match are not counted. Names say so."""
    rows = {
        Path(row.path).relative_to(here / "SYSU").as_posix(): row for row in sysu(here / "SYSU")
    }
    entry = '{ read = "core.sysu_mm01", root = "SYSU", counts = "any" }'
    text = run_text(entry, more=RERANK, evaluation="every = 1")
    run(text, "--out", "out", "--set", "train.best=rank-1")
    found = scores("out")
    names = ["sysu_mm01/all-single", "sysu_mm01/indoor-single"]
    assert list(found) == names
    printed = capsys.readouterr().out
    assert "rank-1-identity" in printed and "sysu_mm01/indoor-single" in printed
    best = json.loads((here / "out" / "best.json").read_text())
    # The first ranking's last stage decides; of trials, the mean.
    assert best["rank-1-identity"] == found[names[0]]["main"]["rerank"]["rank-1-identity"]["mean"]

    loaded = reidcore.load("out")
    drawn = json.loads((here / "out" / "draws.json").read_text())["sysu_mm01"]["galleries"]
    queries = [row for row in rows.values() if row.modality == "infrared"]
    for name in names:
        trials = []
        for files in drawn[name]:
            gallery = [rows[file] for file in files]
            cameras = {"1", "2", "4", "5"} if "/all" in name else {"1", "2"}
            seen = {(row.pid, row.camera) for row in rows.values() if row.camera in cameras}
            assert sorted((row.pid, row.camera) for row in gallery) == sorted(seen)
            distances = loaded.distances(queries, gallery)
            other_room = lambda q, g: not (q.camera == "3" and g.camera == "2")  # noqa: E731
            trials.append(by_loop(distances, queries, gallery, other_room, by_identity=True))
        assert_trials(found[name]["main"]["plain"], trials)
    # Person 6 is in neither camera of indoor search, and 8 for queries of camera 3 in none.
    without = found[names[1]]["main"]["plain"]["queries_without_match"]["values"]
    assert without == [6 + 3] * 10


def test_cross_modality_of_the_demo(here: Path, capsys):
    """Both directions between the demo's visible and infrared cameras, each with the rule for the
    query's camera; with one direction named, only that."""
    demo = (
        "train_identities = 4, test_identities = 3, pictures = 12, cameras = 3, "
        'infrared_cameras = 1, protocol = "cross_modality"'
    )
    run(run_text(f'{{ read = "core.demo", {demo} }}'), "--out", "out")
    found = scores("out")
    assert list(found) == ["demo/visible-to-infrared", "demo/infrared-to-visible"]
    printed = capsys.readouterr().out
    assert "query pictures" in printed and "gallery pictures" in printed  # made once a side
    assert printed.count(" templates of ") == 2
    rows = demo_rows()
    loaded = reidcore.load("out")
    for name in found:
        kinds = name.removeprefix("demo/").split("-to-")
        query, gallery = (
            [row for row in rows if (row.split, row.modality) == side]
            for side in zip(("query", "gallery"), kinds, strict=True)
        )
        distances = loaded.distances(query, gallery)
        elsewhere = lambda q, g: q.pid != g.pid or q.camera != g.camera  # noqa: E731
        expected = by_loop(distances, query, gallery, elsewhere)
        plain = found[name]["main"]["plain"]
        assert {key: plain[key] for key in expected} == pytest.approx(expected, abs=2e-6)
    words = ["--set", 'data.test.0.protocol={ use = "cross_modality", query = "infrared" }']
    assert main(["eval", "out", *words, "-o", "one.json"]) == 0
    assert json.loads(Path("one.json").read_text()) == {
        "demo/infrared-to-visible": found["demo/infrared-to-visible"]
    }


def demo_rows() -> list[Row]:
    from reidcore.builtin.readers.demo import Demo

    reader = Demo(train_identities=4, test_identities=3, pictures=12, cameras=3, infrared_cameras=1)
    return reader.rows(reader.default_root())


def test_every_way_of_counting_has_its_name(here: Path):
    """Other average precisions, ties and means, the true accept rate and galleries of one shot are
    named so, and differ from the usual scores."""
    run(run_text(TEST_ENTRY), "--out", "out", "--set", "eval.tar_at=[0.01, 0.2]")
    usual = scores("out")["demo"]["main"]["plain"]
    assert set(usual) == {
        "mAP",
        "rank-1",
        "rank-5",
        "rank-10",
        "mINP",
        "TAR@FAR=0.01",
        "TAR@FAR=0.2",
        "queries",
        "queries_without_match",
        "cmc",
    }
    assert usual["TAR@FAR=0.01"] <= usual["TAR@FAR=0.2"] <= 1

    def again(*sets: str) -> dict:
        words = [word for item in sets for word in ("--set", item)]
        assert main(["eval", "out", *words, "-o", "again.json"]) == 0
        return json.loads(Path("again.json").read_text())["demo"]["main"]["plain"]

    found = again("eval.ap=trapezoid", "eval.ties=grouped", "eval.queries=all")
    assert {*found} - {"queries", "queries_without_match", "cmc"} == {
        "mAP-trapezoid-grouped-all",
        "rank-1-all",
        "rank-5-all",
        "rank-10-all",
        "mINP-all",
        "TAR@FAR=0.01",
        "TAR@FAR=0.2",
    }
    assert found["mAP-trapezoid-grouped-all"] != usual["mAP"]
    found = again("eval.ties=pessimistic")
    assert {"mAP-pessimistic", "rank-1-pessimistic", "mINP-pessimistic"} < {*found}
    found = again("eval.protocol=single_gallery_shot")
    assert found["mAP"] == usual["mAP"]
    assert found["rank-10-single_shot"] == 1.0  # three people
    again_seeded = again("eval.protocol={ use = 'single_gallery_shot', seed = 1, repeats = 3 }")
    assert again_seeded["cmc"] != found["cmc"] == again("eval.protocol=single_gallery_shot")["cmc"]


def test_several_training_and_test_sets(here: Path, capsys):
    """Two training sets whose people have equal names are kept apart; each test set has its own
    protocol, and all stand in one table."""
    vehicles(here / "VehicleID", **PICTURES)
    sysu(here / "SYSU")
    other = TEST_ENTRY.replace(" }", ", seed = 1 }")
    text = run_text(
        TEST_ENTRY,
        '{ read = "core.sysu_mm01", root = "SYSU", counts = "any" }',
        '{ read = "core.vehicleid", root = "VehicleID", counts = "any", name = "cars" }',
        TEST_ENTRY.replace(
            " }", ', name = "kept", protocol = { use = "cross_camera", same_camera = "keep" } }'
        ),
    )
    start, end = text.index("train = {"), text.index("test = [")
    run(f"{text[:start]}train = [{TEST_ENTRY}, {other}]\n{text[end:]}", "--out", "out")
    printed = capsys.readouterr().out
    assert "8 identities" in printed
    found = scores("out")
    names = ["demo", "sysu_mm01/all-single", "sysu_mm01/indoor-single", "cars", "kept"]
    assert list(found) == names
    header, *lines = printed[printed.index("test set") :].splitlines()
    assert [line.split()[0] for line in lines] == names
    # Columns of all: a blank where a test set has no such score.
    assert header.split()[4:] == [
        "mAP",
        "rank-1",
        "rank-1-identity",
        "rank-5",
        "rank-5-identity",
        "rank-10",
        "rank-10-identity",
        "mINP",
        "queries",
    ]
    assert found["kept"]["main"]["plain"]["mAP"] != found["demo"]["main"]["plain"]["mAP"]
    assert main(["compare", "out", "--test", "cars"]) == 0
    weights = json.loads((here / "out" / "lock.json").read_text())
    assert weights["training"]["identities"] == 8


def test_two_tasks_of_one_name_are_refused(here: Path, capsys):
    """A test set may not be called as another's task is."""
    sysu(here / "SYSU")
    one = '{ read = "core.sysu_mm01", root = "SYSU", counts = "any" }'
    text = run_text(one, TEST_ENTRY.replace(" }", ', name = "sysu_mm01/all-single" }'))
    run(text, "--out", "out", code=2)
    assert "two test sets are scored as 'sysu_mm01/all-single'" in capsys.readouterr().err


def test_no_match_in_a_trial_ends_a_run_before_training(here: Path, capsys):
    """A pool in which no query can have a match is told before anything is trained."""
    rows = [
        Row(str(here / f"{n}.jpg"), f"{n}", "", "test", modality=("visible", "infrared")[n % 2])
        for n in range(4)
    ]
    draw([Path(row.path) for row in rows])
    write_manifest(here / "own.csv", rows)
    text = run_text('{ manifest = "own.csv", protocol = "cross_modality" }')
    run(text, "--out", "out", code=4)
    said = capsys.readouterr().err
    assert "test 'own/visible-to-infrared': none of the 2 queries has a match in the gal" in said
    assert "2 have an identity that is not in the gallery" in said and not Path("out").exists()
