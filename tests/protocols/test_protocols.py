"""Protocols without a network: what they draw, what they refuse, and how a run file names them."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from archives import plan, write
from running import TINY

from reidcore.api import Facts, Row
from reidcore.builtin.readers.market1501 import Market1501
from reidcore.builtin.readers.regdb import RegDB
from reidcore.builtin.readers.sysu_mm01 import SYSUMM01
from reidcore.builtin.readers.vehicleid import VehicleID
from reidcore.cli.main import main
from reidcore.data.datasets import DataPlan
from reidcore.data.load_data import load_sources
from reidcore.data.manifest import write_manifest
from reidcore.errors import DataError, PluginError, UsageError
from reidcore.evaluation.labelled_set import require_matches
from reidcore.protocols.all_protocols import PROTOCOLS
from reidcore.protocols.vehicleid import VehicleIDProtocol
from reidcore.runfiles.data_entries import read_protocol
from reidcore.runfiles.runfile import Source
from reidcore.runfolder.drawn_galleries import drawn_as_text
from tests.archives import vehicleid_lists


def pool(**pictures: int) -> list[Row]:
    """The split test, with so many pictures of each vehicle, file names without gaps."""
    rows: list[Row] = []
    for pid, count in pictures.items():
        for _ in range(count):
            rows.append(Row(f"/data/image/{len(rows) + 1:07d}.jpg", pid[1:], split="test"))
    return rows


DRAWN = {
    0: [["0000003", "0000006", "0000008", "0000010"], ["0000003", "0000004", "0000007", "0000010"]],
    7: [["0000003", "0000005", "0000007", "0000010"], ["0000003", "0000004", "0000007", "0000010"]],
}
"""By seed, the first two galleries of VehicleID's draw, version 1, for the tree below."""


def test_vehicleid_draws_are_those_of_its_version(tmp_path: Path):
    """From an archive, the lists of the first version stay what they are: one picture of each
    vehicle is the gallery, the others are queries, for every seed and trial."""
    lines = [f"{n:07d} {pid}" for n, pid in enumerate([3, 3, 3, 11, 11, 11, 5, 5, 5, 2], 1)]
    names = {f"{n:07d}.jpg" for n in range(20)}
    root = write(tmp_path / "VehicleID", {"image": names})
    vehicleid_lists(root, {"train_list": ["0000000 1"], "test_list_800": lines})
    (loaded,) = plan(VehicleID(counts="any"), root, role="test").test
    assert loaded.protocol == VehicleIDProtocol() and loaded.splits == ("test",)
    for seed, expected in DRAWN.items():
        (task,) = VehicleIDProtocol(seed=seed).tasks(loaded.rows)
        assert len(task.trials) == 10 and task.name == ""
        for trial, names in zip(task.trials, expected, strict=False):
            assert [Path(loaded.rows[n].path).stem for n in trial.gallery] == names
            assert sorted(trial.query + trial.gallery) == list(range(10))


def test_vehicleid_draws_equal_their_definition():
    """In each trial a vehicle's gallery picture has the least digest; the order of the rows and
    other vehicles do not matter."""
    rows = pool(_1=5, _2=1, _3=9, _4=3)

    def galleries(rows: list[Row]) -> list[set[str]]:
        (task,) = VehicleIDProtocol(trials=4, seed=2).tasks(rows)
        return [{rows[n].path for n in trial.gallery} for trial in task.trials]

    expected = []
    for trial in range(4):
        least: dict[str, tuple[str, str]] = {}
        for row in rows:
            text = f"vehicleid-1 2 {trial} {row.pid} {Path(row.path).name}"
            digest = hashlib.sha256(text.encode()).hexdigest()
            least[row.pid] = min(least.get(row.pid, (digest, row.path)), (digest, row.path))
        expected.append({path for _, path in least.values()})
    assert galleries(rows) == expected
    assert galleries(rows[::-1]) == expected
    others = [row for row in rows if row.pid != "3"]
    assert galleries(others) == [found & {row.path for row in others} for found in expected]
    assert len(set(map(frozenset, expected))) > 1


def test_vehicleid_draws_every_picture_alike():
    """Over many trials each of a vehicle's pictures is drawn about equally often."""
    (task,) = VehicleIDProtocol(trials=4000).tasks(pool(_8=4))
    counts = Counter(number for trial in task.trials for number in trial.gallery)
    assert set(counts) == {0, 1, 2, 3}
    assert all(900 < count < 1100 for count in counts.values())


def test_a_vehicle_with_one_picture_has_no_query():
    """It is in the gallery; where that is so of all, there is nothing to score."""
    (task,) = VehicleIDProtocol(trials=1).tasks(pool(_1=1, _2=2))
    assert 0 in task.trials[0].gallery and len(task.trials[0].query) == 1
    with pytest.raises(UsageError, match="none of the 2 identities has a second picture"):
        VehicleIDProtocol().tasks(pool(_1=1, _2=1))


def sysu(people: int = 7, seed: int = 0) -> list[Row]:
    """A pool in the layout of SYSU-MM01; not everybody was seen by every camera."""
    dice = random.Random(seed)
    rows = []
    for pid in range(people):
        for camera in range(1, 7):
            if pid and dice.random() < 0.25:
                continue
            modality = "infrared" if camera in (3, 6) else "visible"
            for number in range(dice.randint(2, 15)):
                path = f"/sysu/cam{camera}/{pid * 97:04d}/{number * 3 + 1:04d}.jpg"
                rows.append(Row(path, f"{pid * 97:04d}", str(camera), "test", modality=modality))
    return rows


@pytest.mark.parametrize("order", [1, -1], ids=["sorted", "reversed"])
def test_seeded_draws_equal_pythons_choice(order):
    """Galleries are what `random.choice` gives after `random.seed(trial)`, by identity, camera and
    sorted names, in whatever order the rows come; queries are all infrared pictures."""
    rows = sysu()[::order]
    names = [row.path for row in rows]
    for task, cameras in zip(read_protocol("sysu")[0].tasks(rows), ("1245", "12"), strict=True):
        assert len(task.trials) == 10
        for trial, drawn in enumerate(task.trials):
            folders: dict[tuple[str, str], list[str]] = {}
            for row in rows:
                if row.camera in cameras:
                    folders.setdefault((row.pid, row.camera), []).append(row.path)
            random.seed(trial)
            expected = {random.choice(sorted(folders[key])) for key in sorted(folders)}
            assert {names[n] for n in drawn.gallery} == expected
            assert [rows[n] for n in drawn.query] == [row for row in rows if row.camera in "36"]


def test_sysu_knows_its_cameras_only():
    """Cameras of another data set are refused with what fits; so is a pool without queries."""
    protocol = read_protocol("sysu")[0]
    strange = [*sysu(), Row("/sysu/cam9/0001/1.jpg", "0001", "9", "test", modality="visible")]
    with pytest.raises(UsageError, match=r"this data set has 9; .* set protocol to cross_modality"):
        protocol.tasks(strange)
    with pytest.raises(DataError, match="this data set has no infrared query picture"):
        protocol.tasks([row for row in sysu() if row.camera not in "36"])
    with pytest.raises(DataError, match="has no gallery, search = 'indoor' picture"):
        protocol.tasks([row for row in sysu() if row.camera not in "12"])


def test_queries_of_camera_3_need_other_rooms():
    """People whom only camera 2 saw in visible light have no match for queries of camera 3, and
    the error says so."""
    rows = [
        Row("/s/cam3/0001/1.jpg", "0001", "3", "test", modality="infrared"),
        Row("/s/cam2/0001/1.jpg", "0001", "2", "test", modality="visible"),
    ]
    protocol = read_protocol({"use": "sysu", "search": ["indoor"]})[0]
    with pytest.raises(DataError) as caught:
        require_matches(rows, "s", protocol, "keep")
    assert "test 's/indoor-single': none of the 1 queries has a match" in str(caught.value)
    assert "1 have gallery pictures of their identity from their own camera only" in str(
        caught.value
    )
    require_matches([*rows, Row("/s/cam6/0001/1.jpg", "0001", "6", "test")], "s", protocol, "drop")


def sides(people: int = 9) -> list[Row]:
    """Two queries and three gallery pictures of each person, and a distractor."""
    rows = [
        Row(f"/o/{side}/{pid}-{n}.jpg", f"p{pid}", str(n), side)
        for pid in range(people)
        for side, count in (("query", 2), ("gallery", 3))
        for n in range(count)
    ]
    return [*rows, Row("/o/gallery/nobody.jpg", "p99", "1", "gallery")]


@pytest.mark.parametrize("order", [1, -1], ids=["sorted", "reversed"])
def test_an_open_set_takes_identities_by_their_digest(order):
    """In each trial the stated share of query identities, those of the least SHA-256, has no
    picture in the gallery; all else is there, whatever the order of the rows."""
    rows = sides()[::order]
    (task,) = read_protocol({"use": "open_set", "unknown": 0.3, "trials": 3, "seed": 4})[0].tasks(
        rows
    )
    drawn = []
    for number, trial in enumerate(task.trials):
        text = f"open-set-1 4 {number} "
        pids = sorted(
            (f"p{pid}" for pid in range(9)),
            key=lambda pid: hashlib.sha256((text + pid).encode()).hexdigest(),
        )
        assert sorted(rows[n].path for n in trial.query) == sorted(
            row.path for row in rows if row.split == "query"
        )
        assert sorted(rows[n].path for n in trial.gallery) == sorted(
            row.path for row in rows if row.split == "gallery" and row.pid not in pids[:3]
        )
        drawn.append(frozenset(pids[:3]))
    assert len(set(drawn)) > 1


def test_an_open_set_may_be_that_of_the_data():
    """Where queries have no match by themselves, none need be taken out, and there is one trial."""
    rows = [*sides(), Row("/o/query/x.jpg", "stranger", "1", "query")]
    (task,) = read_protocol({"use": "open_set", "unknown": 0})[0].tasks(rows)
    (trial,) = task.trials
    assert len(trial.query) == 19 and len(trial.gallery) == 28
    with pytest.raises(UsageError, match="every query would have a match: 9 of 9 identities"):
        read_protocol({"use": "open_set", "unknown": 0})[0].tasks(sides())


def two_modalities(split: bool) -> list[Row]:
    rows = []
    for number in range(12):
        modality = ("visible", "infrared")[number % 2]
        side = ("query", "gallery")[number // 2 % 2] if split else "test"
        rows.append(Row(f"/m/{number}.jpg", str(number % 3), str(number), side, modality=modality))
    return rows


@pytest.mark.parametrize("use", ["cross_modality", "regdb"])
def test_both_directions_by_default(use):
    """Each modality is the query's in turn; a named one is so alone. From a pool every picture of
    the modality is taken."""
    rows = two_modalities(split=False)
    sides = {
        kind: [n for n, r in enumerate(rows) if r.modality == kind]
        for kind in ("visible", "infrared")
    }
    tasks = read_protocol(use)[0].tasks(rows)
    assert [task.name for task in tasks] == ["visible-to-infrared", "infrared-to-visible"]
    for task in tasks:
        query, gallery = task.name.split("-to-")
        (trial,) = task.trials
        assert [list(trial.query), list(trial.gallery)] == [sides[query], sides[gallery]]
    (task,) = read_protocol({"use": use, "query": "infrared"})[0].tasks(rows)
    assert task == tasks[1]


def test_cross_modality_keeps_to_the_splits_where_there_are_any():
    """With the splits query and gallery, queries are the former's pictures of one modality, the
    gallery the latter's of the other, under the rule for the query's camera."""
    rows, protocol = two_modalities(split=True), read_protocol("cross_modality")[0]
    assert protocol.splits({"train", "query", "gallery", "test"}) == ("query", "gallery")
    assert protocol.splits({"train", "test"}) == ("test",)
    for task in protocol.tasks(rows):
        query, gallery = task.name.split("-to-")
        (trial,) = task.trials
        assert {(rows[n].split, rows[n].modality) for n in trial.query} == {("query", query)}
        assert {(rows[n].split, rows[n].modality) for n in trial.gallery} == {("gallery", gallery)}
    assert protocol.same_place("drop_all") == "drop_all"
    own = read_protocol({"use": "cross_modality", "same_camera": "keep"})[0]
    assert own.same_place("drop_all") == "keep"
    assert PROTOCOLS["regdb"]().same_place("drop_all") == "keep"


def loaded_test(rows: list[Row], tmp_path: Path, **source) -> DataPlan:
    rows = [Row(str(tmp_path / Path(r.path).name), *astuple(r)[1:]) for r in rows]
    write_manifest(tmp_path / "own.csv", rows)
    source = Source(
        "test", ("data", "test"), manifest=str(tmp_path / "own.csv"), name="own", **source
    )
    return load_sources([(source, None)], make=False, allow_missing=False)


def astuple(row: Row) -> tuple:
    return row.path, row.pid, row.camera, row.split, row.time, row.modality


@pytest.mark.parametrize(
    ("use", "split", "unfit"),
    [
        ("cross_camera", False, "needs pictures in query and gallery; "),
        ("vehicleid", True, "needs pictures in test; "),
        ("sysu", True, "needs pictures in test; "),
    ],
)
def test_splits_that_do_not_fit_are_told_with_what_does(use, split, unfit, tmp_path):
    """A protocol that takes other splits is refused with those there are and protocols that fit."""
    found = loaded_test(two_modalities(split), tmp_path, protocol=PROTOCOLS[use]())
    text = found.test[0].unfit
    assert text.startswith(unfit)
    has = "query 6, gallery 6" if split else "test 12"
    fits = (
        "cross_camera, single_gallery_shot, cross_modality, open_set"
        if split
        else "vehicleid, sysu, regdb, cross_modality"
    )
    assert text.endswith(f"own.csv has {has}. Protocols that fit: {fits}")


@pytest.mark.parametrize(
    ("table", "unfit"),
    [
        ("cross_modality", "needs the manifest column modality; this data set has camera"),
        ("sysu", "needs the manifest column modality; this data set has camera"),
    ],
)
def test_columns_that_are_missing_are_told(table, unfit, tmp_path):
    """What a protocol must know of every picture and the manifest does not state is named."""
    rows = [Row(f"/m/{n}.jpg", str(n // 2), "1", "test") for n in range(4)]
    (test,) = loaded_test(rows, tmp_path, protocol=PROTOCOLS[table]()).test
    assert test.unfit == f"{unfit}. Protocols that fit: vehicleid"


def test_modalities_that_nothing_has_are_told(tmp_path):
    """A wrong name is answered with the nearest; one or three modalities with what is needed."""
    rows = two_modalities(split=True)
    wrong = read_protocol({"use": "cross_modality", "query": "visibel"})[0]
    text = loaded_test(rows, tmp_path, protocol=wrong).test[0].unfit
    assert "names the modality 'visibel' as query, which nothing has, did you mean 'vi" in text
    protocol = read_protocol("cross_modality")[0]
    assert protocol.misfit({"modality"}, ("visible",)) == (
        "needs at least two modalities; this data set has visible"
    )
    three = ("visible", "infrared", "depth")
    assert protocol.misfit({"modality"}, three) == (
        "needs query and gallery named; this data set has visible, infrared, depth"
    )
    named = read_protocol({"use": "cross_modality", "query": "depth", "gallery": "visible"})[0]
    assert not named.misfit({"modality"}, three)
    assert read_protocol("regdb")[0].misfit({"modality"}, three).startswith("needs the modalities ")


def test_a_pool_may_be_of_any_splits(tmp_path):
    """Named splits are the pool that a protocol draws from."""
    rows = [Row(f"/m/{n}.jpg", str(n // 3), "1", "val") for n in range(6)]
    (test,) = loaded_test(rows, tmp_path, splits=("val",), protocol=PROTOCOLS["vehicleid"]()).test
    assert not test.unfit
    assert len(test.protocol.tasks(test.rows)[0].trials[0].gallery) == 2


@pytest.mark.parametrize(
    ("reader", "name"),
    [
        (Market1501(), "cross_camera"),
        (VehicleID(), "vehicleid"),
        (SYSUMM01(), "sysu"),
        (RegDB(), "regdb"),
    ],
)
def test_readers_state_their_protocol(reader, name, tmp_path):
    """Without any in the run file, a test set is scored as its reader says; what the run file says
    comes first."""
    found = plan(reader, tmp_path / "absent", role="test", allow_missing=True)
    assert found.test[0].protocol == PROTOCOLS[name]() and not found.test[0].unfit
    assert found.test[0].splits == PROTOCOLS[name]().splits(("query", "gallery", "test"))


def test_an_unknown_protocol_of_a_reader_is_the_readers_fault(tmp_path):
    """A reader that states a protocol which the core has not is named: 3."""

    class Odd:
        def facts(self) -> Facts:
            return Facts(2, protocol="vehicle_id")

        def rows(self, root: Path) -> list[Row]:
            return []

    with pytest.raises(PluginError, match=r"states the protocol 'vehicle_id', did you mean 'veh"):
        plan(Odd(), tmp_path, role="test", allow_missing=True)


def test_draws_are_written_out(tmp_path):
    """draws.json has the function's name and the file names of every gallery; protocols that draw
    nothing are not in it."""
    rows = pool(_1=3, _2=4)
    drawn = loaded_test(rows, tmp_path, protocol=VehicleIDProtocol(trials=2))
    found = json.loads(drawn_as_text(drawn.test))["own"]
    assert found["draw"] == "vehicleid-1" and list(found["galleries"]) == ["own"]
    (task,) = drawn.test[0].protocol.tasks(drawn.test[0].rows)
    assert found["galleries"]["own"] == [
        [Path(drawn.test[0].rows[n].path).name for n in trial.gallery] for trial in task.trials
    ]
    plain = loaded_test(two_modalities(split=True), tmp_path, protocol=PROTOCOLS["cross_camera"]())
    assert drawn_as_text(plain.test) == ""


TEST = "cameras = 2 },\n]"
"""The end of the test entry in TINY."""


def refused(monkeypatch, capsys, tmp_path: Path, text: str, *words: str) -> str:
    """What a check of the run file says; its exit code must be 2."""
    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    (tmp_path / "tiny.toml").write_text(text)
    assert main(["check", "--no-dry", str(tmp_path / "tiny.toml"), *words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ('"sysuu"', "protocol: there is no protocol 'sysuu', did you mean 'sysu'?"),
        ('"market"', "there is no protocol 'market'; there are cross_camera, single_gallery_shot"),
        ("3", "expected text or table, got int 3"),
        ("{ use = 3 }", "protocol: expected text, got int 3 at .use"),
        ('{ query = "visible" }', "protocol: missing key 'use', the protocol: cross_camera"),
        ('{ use = "sysu", serch = ["all"] }', "unknown key 'serch', did you mean 'search'?"),
        ('{ use = "sysu", search = [] }', "expected at least one, got [] at .search"),
        ('{ use = "sysu", shots = ["multi"] }', 'expected "official" for shots = "multi"'),
        ('{ use = "sysu", trials = 11 }', "expected a number at most 10, got 11 at .trials"),
        ('{ use = "vehicleid", trials = 0 }', "expected a number at least 1, got 0 at .trials"),
        (
            '{ use = "cross_modality", query = "visible", gallery = "visible" }',
            "expected another modality than the query's, got 'visible' at .gallery",
        ),
    ],
)
@pytest.mark.parametrize("where", ["test", "eval"])
def test_wrong_protocols_are_told_with_their_line(
    stated, message, where, monkeypatch, capsys, tmp_path
):
    """A name or setting that is wrong is reported for the test entry or for [eval], by line."""
    text = TINY.replace("every = 1", f"every = 1\nprotocol = {stated}")
    line, place = text[: text.index("protocol =")].count("\n") + 1, "[eval]: "
    if where == "test":
        text = TINY.replace(TEST, f"cameras = 2, protocol = {stated} }},\n]")
        line, place = text[: text.index("test = [")].count("\n") + 1, "[data] test: "
    said = refused(monkeypatch, capsys, tmp_path, text)
    assert f"tiny.toml:{line}: {place}" in said and message in said


def test_unfit_protocols_are_told_with_their_line(monkeypatch, capsys, tmp_path):
    """A protocol that does not fit the data is a mistake of the run file's, told with others."""
    text = TINY.replace("every = 1", 'every = 1\nprotocol = "vehicleid"').replace("lr =", "lrr =")
    said = refused(monkeypatch, capsys, tmp_path, text)
    assert "lrr" in said
    text = text.replace("lrr =", "lr =")
    (tmp_path / "drawn").mkdir()
    assert main(["data", "demo", str(tmp_path / "demo"), "--set", "test_identities=3"]) == 0
    entry = f'test = [{{ manifest = "{tmp_path}/demo/manifest.csv" }}]'
    start, end = text.index("test = ["), text.index("image =")
    said = refused(monkeypatch, capsys, tmp_path, f"{text[:start]}{entry}\n{text[end:]}")
    assert "[data] test 'demo': protocol vehicleid needs pictures in test; " in said
    assert "Protocols that fit: cross_camera, single_gallery_shot" in said


def test_training_entries_have_no_protocol(monkeypatch, capsys, tmp_path):
    """A protocol of training pictures would do nothing, so it is refused."""
    text = TINY.replace(
        'train = { read = "core.demo",', 'train = { read = "core.demo", protocol = "sysu",'
    )
    said = refused(monkeypatch, capsys, tmp_path, text)
    assert "[data] train: 'protocol' is for test sets; training pictures have none" in said


def test_an_entrys_own_protocol_comes_before_that_of_eval(tmp_path, monkeypatch):
    """[eval] states what holds for entries that name none."""
    from reidcore.plugins.loading import Plugins
    from reidcore.runfiles.parse import parse_runfile
    from reidcore.wiring.make_plan import make_plan

    monkeypatch.setenv("REID_CACHE", str(tmp_path))
    entry = TINY[TINY.index("  { read") : TINY.index("\n]")]
    own = entry.replace(
        "cameras = 2 }", 'cameras = 2, name = "b", protocol = "single_gallery_shot" }'
    )
    text = TINY.replace(entry, f"{entry}\n{own}").replace(
        "every = 1", 'protocol = { use = "cross_camera", same_camera = "keep" }'
    )
    run = parse_runfile(text, Path("tiny.toml"))
    first, second = make_plan(run, Plugins([]), allow_missing=True).data.test
    assert first.protocol.same_camera == "keep" and first.protocol.name == "cross_camera"
    assert second.protocol == PROTOCOLS["single_gallery_shot"]()
    assert all(source.protocol is None for source in run.sources if source.role == "train")
