"""The reader of Market-1501, on trees in the layout of the published archive."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
import pytest
from oracles import oracle
from PIL import Image

from reidcore.api import Row, sample_run
from reidcore.builtin.readers.market1501 import Market1501, Picture, latest_frames, offsets
from reidcore.cli.main import main
from reidcore.data.datasets import DataPlan
from reidcore.data.load_data import load_sources
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError
from reidcore.runfiles.runfile import Source
from reidcore.testing import iter_checks

FOLDER = "Market-1501-v15.09.15"

TRAIN = ["0002_c1s1_000451_03.jpg", "0002_c2s1_000901_01.jpg", "0007_c1s6_028546_04.jpg"]
QUERY = ["0001_c1s1_001051_00.jpg", "0003_c4s6_015641_00.jpg"]
GALLERY = [
    "-1_c1s1_000401_03.jpg",
    "-1_c6s3_090042_05.jpg",
    "0000_c1s3_070151_01.jpg",
    "0001_c2s1_000301_00.jpg",
    "0003_c1s6_015971_02.jpg",
    "0003_c5s3_065187_01.jpg.jpg",
]


def write(root: Path, **folders: Iterable[str]) -> Path:
    """Empty pictures of these names; the reader does not open them."""
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            os.close(os.open(f"{root}/{folder}/{name}", os.O_CREAT | os.O_WRONLY))
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(
        tmp_path / FOLDER, bounding_box_train=TRAIN, query=QUERY, bounding_box_test=GALLERY
    )


def any_rows(root: Path, **settings: object) -> list[Row]:
    return Market1501(counts="any", **settings).rows(root)


def test_rows_say_what_the_names_say(small: Path):
    """Identity, camera, split and path of every picture but junk, by name; distractors stay, and
    files that are no pictures do not count."""
    for folder in ("query", "bounding_box_test"):
        (small / folder / "Thumbs.db").touch()
        (small / folder / "._0001_c1s1_001051_00.jpg").touch()
    rows = any_rows(small)
    assert [(row.pid, row.camera, row.split, Path(row.path).name) for row in rows] == [
        ("0002", "1", "train", "0002_c1s1_000451_03.jpg"),
        ("0002", "2", "train", "0002_c2s1_000901_01.jpg"),
        ("0007", "1", "train", "0007_c1s6_028546_04.jpg"),
        ("0001", "1", "query", "0001_c1s1_001051_00.jpg"),
        ("0003", "4", "query", "0003_c4s6_015641_00.jpg"),
        ("0000", "1", "gallery", "0000_c1s3_070151_01.jpg"),
        ("0001", "2", "gallery", "0001_c2s1_000301_00.jpg"),
        ("0003", "1", "gallery", "0003_c1s6_015971_02.jpg"),
        ("0003", "5", "gallery", "0003_c5s3_065187_01.jpg.jpg"),
    ]
    assert all(Path(row.path).is_absolute() and Path(row.path).is_file() for row in rows)
    assert rows[0].listed == "bounding_box_train/0002_c1s1_000451_03.jpg"


def test_distractors_can_be_left_out(small: Path):
    """Without distractors the other rows are the same, times included, and the counts fit."""
    kept = [row for row in any_rows(small) if row.pid != "0000"]
    assert any_rows(small, distractors=False) == kept
    assert Market1501().facts().counts["gallery"] == 13115 + 2798
    assert Market1501(distractors=False).facts().counts["gallery"] == 13115


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the published numbers of pictures and identities."""

    def names(pids: Iterable[int], count: int, start: int = 0) -> list[str]:
        people = cycle(f"{pid:04d}" if pid >= 0 else "-1" for pid in pids)
        return [
            f"{pid}_c{number % 6 + 1}s{number % 5 + 1}_{start + number:06d}_00.jpg"
            for number, pid in enumerate(islice(people, count))
        ]

    assert names([2], 1, 451) == ["0002_c1s1_000451_00.jpg"]
    test = range(3, 3 + 2 * 750, 2)
    return write(
        tmp_path_factory.mktemp("data") / FOLDER,
        bounding_box_train=names(range(2, 2 + 2 * 751, 2), 12936),
        query=names(test, 3368, 20000),
        bounding_box_test=names(test, 13115) + names([0], 2798) + names([-1], 3819),
    )


def test_the_published_data_set_is_what_is_declared(whole: Path, monkeypatch: pytest.MonkeyPatch):
    """Identities, cameras, columns and counts are those that the reader states."""
    monkeypatch.setenv("REID_DATA", str(whole.parent))
    (check,) = [check for check in iter_checks("core") if "market1501: facts fit" in str(check)]
    check()
    assert Market1501().facts().identities == 751


def test_half_an_archive_is_refused(whole: Path):
    """A missing picture or identity is an error with folder, found and expected; on request it is
    accepted."""
    gone = whole / "bounding_box_test" / "-1_c1s1_000000_00.jpg"
    gone.unlink()
    person = sorted((whole / "query").glob("0003_*"))
    for file in person:
        file.rename(file.with_name(file.name.replace("0003", "0005")))
    try:
        with pytest.raises(DataError) as caught:
            Market1501().rows(whole)
        assert len(any_rows(whole)) == 12936 + 3368 + 15913
    finally:
        gone.touch()
        for file in person:
            file.with_name(file.name.replace("0003", "0005")).rename(file)
    for part in (
        f"{whole} is not the whole",
        "bounding_box_test has 19,731 pictures, expected 19,732",
        "query has 749 identities, expected 750",
        'counts = "any"',
    ):
        assert part in str(caught.value)
    assert "train" not in str(caught.value)
    assert len(Market1501().rows(whole)) == 12936 + 3368 + 15913


def test_a_folder_too_deep_or_too_high_is_told(small: Path):
    """Where a folder next to root fits, the message names it."""
    for wrong in (small / "query", small.parent):
        with pytest.raises(
            DataError, match=r"no folder bounding_box_train.*set root to it"
        ) as caught:
            any_rows(wrong)
        assert f"{small} has all of them" in str(caught.value)


def test_what_is_missing_is_told(small: Path):
    """A missing folder, one without pictures, and a file in place of root are refused by name."""
    for file in (small / "query").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"query has no \.jpg pictures"):
        any_rows(small)
    (small / "query").rmdir()
    with pytest.raises(DataError, match="it has no folder query; root must hold"):
        any_rows(small)
    archive = small.parent / f"{FOLDER}.zip"
    archive.touch()
    with pytest.raises(DataError, match=r"zip is no folder; extract the archive"):
        any_rows(archive)


def test_strange_names_are_counted(small: Path):
    """Pictures whose names are not Market-1501's are refused, with their number and the first."""
    (small / "query" / "0005_c2_f0046985.jpg").touch()
    with pytest.raises(DataError, match=r"^1 picture has a name .* first .*0005_c2_f0046985\.jpg"):
        any_rows(small)
    (small / "bounding_box_train" / "cat.jpg").touch()
    with pytest.raises(DataError, match=r"^2 pictures have names .* first .*cat\.jpg"):
        any_rows(small)


def naive_times(names: Mapping[str, list[str]], clock: str) -> dict[str, float]:
    """Seconds by name, as the specification words both rules, camera by camera."""
    seen: dict[tuple[str, int], list[int]] = {}
    parsed = {}
    for name in chain(*names.values()):
        pid, place, frame, *_ = name.split("_")
        if pid != "-1":
            camera, session = place.removeprefix("c").split("s")
            parsed[name] = camera, int(session), int(frame)
            seen.setdefault((camera, int(session)), []).append(int(frame))
    times = {}
    for name, (camera, session, frame) in parsed.items():
        offset = [0.0]
        for number in range(1, session):
            latest = max(seen.get((camera, number), [0]))
            if clock == "cumulative":
                offset.append(offset[-1] + latest)
            elif (camera, number) in seen:
                offset.append((latest + offset[-1]) + offset[-1])
            else:
                offset.append(offset[-1])
        times[name] = (frame + offset[-1]) / 25
    return times


@pytest.mark.parametrize("clock", ["authors", "cumulative"])
def test_times_follow_the_rule(tmp_path: Path, clock: str):
    """Times equal a naive computation by either rule, with sessions that nobody or only junk was
    seen in, and a session's latest frame in any of the three folders."""
    dice = np.random.default_rng(4)
    folders: dict[str, list[str]] = {"bounding_box_train": [], "query": [], "bounding_box_test": []}
    for number in range(240):
        camera, session = dice.integers(1, 7, size=2)
        # Camera 2 misses session 1, camera 3 sessions 3 and 4; camera 4 has junk only in session 2.
        if (camera, session) in ((2, 1), (3, 3), (3, 4)):
            continue
        pid = "-1" if (camera, session) == (4, 2) else ("0000", "0012", "1500")[number % 3]
        folder = "bounding_box_test" if pid == "-1" else list(folders)[dice.integers(3)]
        frame = dice.integers(0, 120000)
        folders[folder].append(f"{pid}_c{camera}s{session}_{frame:06d}_{number % 100:02d}.jpg")
    rows = any_rows(write(tmp_path / "market", **folders), clock=clock)
    expected = naive_times(folders, clock)
    found = {Path(row.path).name: row.time for row in rows}
    assert found.keys() == expected.keys() and len(found) > 150
    for name, time in found.items():
        assert time == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.oracle
def test_times_equal_the_published(tmp_path: Path):
    """Files kept, identities, cameras, times by both rules, largest frames and offsets equal those
    of QAConv's reader."""
    with oracle("qaconv/times_market_synthetic") as vectors:
        tolerance = vectors.sidecar["suggested_tolerance"]["float64"]
        folders = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
        for split, folder in folders.items():
            write(tmp_path, **{folder: vectors.arrays[f"{split}_all_files"].tolist()})
            vectors.inputs.add(f"{split}_all_files")  # texts, which no tensor holds
        for clock, array in (("authors", "time"), ("cumulative", "time_paper_rule")):
            rows = any_rows(tmp_path, clock=clock)
            for split in folders:
                times = [row.time for row in rows if row.split == split]
                vectors.compare(f"{split}_{array}", times, rtol=tolerance)
        for split in folders:
            mine = [row for row in rows if row.split == split]
            files = [Path(row.path).name for row in mine]
            assert files == vectors.arrays[f"{split}_files"].tolist()
            vectors.compared.add(f"{split}_files")
            pids = [int(row.pid) for row in mine]
            if split == "train":
                pids = [list(dict.fromkeys(pids)).index(pid) for pid in pids]
            vectors.compare(f"{split}_pid", pids)
            vectors.compare(f"{split}_cam", [int(row.camera) - 1 for row in mine])

        pictures = [
            Picture(row.split, "", row.pid, (int(row.camera), int(session)), int(frame))
            for row in rows
            for _, place, frame, _ in [Path(row.path).name.split("_")]
            for session in [place[-1]]
        ]
        latest = latest_frames(pictures)
        cameras, sessions = vectors.arrays["max_frame_cam_session"].shape
        grid = [[(c + 1, s + 1) for s in range(sessions)] for c in range(cameras)]
        frames = [[latest.get(session, 0) for session in row] for row in grid]
        vectors.compare("max_frame_cam_session", frames)
        for clock, array in (("authors", "authors"), ("cumulative", "paper")):
            start = offsets(latest, clock)
            # Behind a camera's last session with a picture there is no offset to state.
            stated = vectors.arrays[f"offset_{array}_frames"]
            found = [
                [start.get(session, stated[c, s]) for s, session in enumerate(row)]
                for c, row in enumerate(grid)
            ]
            vectors.compare(f"offset_{array}_frames", found)


def plan(root: Path, *splits: str, role: str = "train", **options: bool) -> DataPlan:
    source = Source(role, ("data", role), root=str(root), splits=splits, name="market1501")
    arguments = {"make": False, "allow_missing": False, **options}
    return load_sources([(source, Market1501(counts="any"))], **arguments)


def test_splits_choose_pictures_and_leave_times_alone(small: Path):
    """Training takes train, or whatever splits are named; a test takes query and gallery; a
    picture's time is the same in all of them."""
    everything = {row.path: row for row in any_rows(small)}
    for found, splits in (
        (plan(small), {"train"}),
        (plan(small, "train", "query", "gallery"), {"train", "query", "gallery"}),
        (plan(small, role="test"), {"query", "gallery"}),
    ):
        rows = found.loaded[0].rows
        assert {row.split for row in rows} == splits
        assert list(rows) == [row for row in everything.values() if row.split in splits]
    assert plan(small, "train", "query").identities == 4
    assert plan(small, role="test").test_columns == {"camera", "time"}


def test_absent_data_are_assumed_as_published(tmp_path: Path):
    """Without the folder a check stands on the published figures of the splits in question; a run
    is refused with the path that was tried."""
    source = Source("train", ("data", "train"), root=str(tmp_path / FOLDER), name="market1501")
    found = load_sources([(source, Market1501())], make=False, allow_missing=True)
    assert found.identities == 751 and found.cameras == 6
    assert found.train_columns == {"camera", "time"}
    assert found.loaded[0].counts == {"train": 12936}
    assert "assumed 751 identities, columns camera, time" in found.notes[0]
    with pytest.raises(DataError, match=f"data not found at .*{FOLDER}"):
        plan(tmp_path / FOLDER)


def draw(root: Path, people: int = 4) -> Path:
    """Small coloured JPEGs: `people` to train on, as many to search for, in two cameras."""
    folders: dict[str, list[str]] = {"bounding_box_train": [], "query": [], "bounding_box_test": []}
    for pid in range(1, 2 * people + 1):
        for camera in (1, 2):
            names = [f"{pid:04d}_c{camera}s1_{pid * 100 + n:06d}_0{n}.jpg" for n in range(3)]
            if pid % 2:
                folders["bounding_box_train"] += names
            else:
                folders["query"] += names[:1]
                folders["bounding_box_test"] += names[1:]
    folders["bounding_box_test"].append("-1_c1s1_000401_03.jpg")
    dice = np.random.default_rng(0)
    for folder, names in folders.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            pixels = dice.integers(0, 256, (8, 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((16, 32)).save(root / folder / name)
    return root


RUN = sample_run(
    data=dict(read="core.market1501", root="market", counts="any"),
    image=(32, 16),
    augment=[dict(use="core.occlude"), dict(use="core.jitter"), dict(use="core.erase")],
    train=dict(epochs=1, device="cpu"),
    eval=dict(views=["plain", "flip", "zoom", "zoom_flip"]),
)


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a small data set and a run file that trains on it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REID_DATA", raising=False)
    draw(tmp_path / "market")
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path


def test_a_run_trains_and_scores(drawn: Path, capsys: pytest.CaptureFixture[str]):
    """A run reads, augments, trains and evaluates with all views."""
    assert main(["run", "run.toml", "--out", "out"]) == 0
    printed = capsys.readouterr().out
    assert "4 identities" in printed and "market1501" in printed
    assert (drawn / "out" / "scores.json").exists()


def test_a_run_refuses_half_an_archive(drawn: Path, capsys: pytest.CaptureFixture[str]):
    """Published counts are the default: a part of the pictures ends a run before it begins."""
    (drawn / "run.toml").write_text(RUN.replace(', counts = "any"', ""))
    assert main(["run", "run.toml", "--out", "out"]) == 4
    printed = capsys.readouterr().err
    assert f"{drawn / 'market'} is not the whole of Market-1501" in printed
    assert "bounding_box_train has 24 pictures, expected 12,936" in printed
    assert not (drawn / "out").exists()


def test_a_reader_writes_a_manifest(drawn: Path, capsys: pytest.CaptureFixture[str]):
    """`reid data index --read` lists what the reader finds; `reid data check` finds it sound."""
    command = ["data", "index", "market", "--read", "core.market1501", "-o", "market.csv"]
    assert main(command) == 4
    assert not (drawn / "market.csv").exists()
    assert main([*command, "--set", "counts=any"]) == 0
    rows, expected = read_manifest(drawn / "market.csv"), any_rows(drawn / "market")
    assert [(r.path, r.pid, r.camera, r.split, r.time) for r in rows] == [
        (r.path, r.pid, r.camera, r.split, r.time) for r in expected
    ]
    capsys.readouterr()
    for source in (["market.csv"], ["market", "--read", "core.market1501", "--set", "counts=any"]):
        assert main(["data", "check", *source]) == 0
        assert "no errors" in capsys.readouterr().out
    next((drawn / "market" / "query").glob("*.jpg")).write_bytes(b"torn")
    assert main(["data", "check", *source]) == 4
    assert "is not a picture that Pillow knows" in capsys.readouterr().out
    assert main(["data", "check", *source[:3]]) == 4  # other numbers than the published ones
    assert "is not the whole of Market-1501" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--read", "core.market1501", "--split", "0.5"], "leave away --pattern and --split"),
        (["--set", "counts=any"], "--read names"),
        (["--read", "core.market"], "did you mean 'market1501'?"),
        (["--read", "core.market1501", "--set", "count=any"], "did you mean 'counts'?"),
    ],
)
def test_wrong_words_to_a_reader_are_refused(drawn, capsys, arguments, message):
    """Options that do not fit a reader, unknown readers and unknown keys are told."""
    assert main(["data", "index", "market", *arguments]) == 2
    assert message in capsys.readouterr().err
