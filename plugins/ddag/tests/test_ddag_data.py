"""The packaged run files end to end on small trees in the layout of SYSU-MM01 and RegDB."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidcore.cli.main import main
from reidcore.plugins.loading import Plugins
from reidcore.plugins.packaged_runs import find_packaged

TRAIN, VAL, TEST = range(1, 6), range(6, 8), range(8, 14)
ABSENT = {(9, 2), (9, 1), (10, 4), (2, 5), (11, 3)}
"""(identity, camera) of folders that are not there."""
SMALL = (
    "data.image=[48, 24]",
    "data.batch.ids=4",
    "data.batch.per_id=2",
    "backbone.depth=18",
    "backbone.width=0.125",
    "backbone.weights=",
    "loss.graph.dim=8",
    "train.epochs=1",
    'data.train.counts="any"',
    'data.test.0.counts="any"',
)


def picture(path: Path, person: int, infrared: bool, seed: int) -> None:
    """Stripes whose width tells the person, colourful or grey."""
    draw = np.random.default_rng((person, infrared, seed))
    rows = np.arange(48)[:, None, None] // (person % 7 + 1) % 2
    colour = [200.0] * 3 if infrared else draw.uniform(80, 255, 3)
    pixels = rows * colour + draw.normal(20, 8, (48, 24, 1 if infrared else 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> Path:
    """SYSU-MM01 of 13 people, some of whom some cameras did not see, and RegDB of 10, in small."""
    root = tmp_path_factory.mktemp("archives")
    sysu = root / "SYSU-MM01"
    for person in (*TRAIN, *VAL, *TEST):
        for camera in range(1, 7):
            if (person, camera) in ABSENT:
                continue
            for number in range(1, 4):
                path = sysu / f"cam{camera}/{person:04d}/{number:04d}.jpg"
                picture(path, person, camera in (3, 6), 10 * camera + number)
    (sysu / "exp").mkdir()
    for split, people in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        text = ",".join(map(str, reversed(people)))
        (sysu / "exp" / f"{split}_id.txt").write_text(text + "\n")

    regdb = root / "RegDB"
    (regdb / "idx").mkdir(parents=True)
    files: dict[tuple[str, int], list[str]] = {}
    for person in range(1, 11):
        for kind in ("Visible", "Thermal"):
            for number in range(3):
                name = f"male_back_{kind[0].lower()}_{person:03d}{number:02d}_{person}.bmp"
                picture(regdb / kind / str(person) / name, person, kind == "Thermal", number)
                files.setdefault((kind, person), []).append(f"{kind}/{person}/{name}")
    for trial in range(1, 11):
        people = np.random.default_rng(trial).permutation(np.arange(1, 11)).tolist()
        for split, chosen in (("train", people[:5]), ("test", people[5:])):
            for kind in ("Visible", "Thermal"):
                lines = [
                    f"{file} {label}\n"
                    for label, person in enumerate(chosen)
                    for file in files[kind, person]
                ]
                listed = regdb / "idx" / f"{split}_{kind.lower()}_{trial}.txt"
                listed.write_text("".join(lines))
    return root


@pytest.fixture
def work(archives, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("REID_DATA", str(archives))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sets(*more: str) -> list[str]:
    return [word for one in (*SMALL, *more) for word in ("--set", one)]


def scores_of(folder: str) -> dict:
    return json.loads(Path(folder, "scores.json").read_text())


def test_sysu_from_index_to_all_trials(archives, work, capsys):
    """An index of the tree has its pictures; `ddag:sysu` trains on train and val, and both
    features are scored in both searches as means of ten draws. Galleries have a picture for each
    camera that saw somebody; who was seen by no gallery camera is no query."""
    root = archives / "SYSU-MM01"
    index = ["data", "index", str(root), "--read", "core.sysu_mm01", "--out", "index.csv"]
    assert main([*index, "--set", 'counts="any"']) == 0
    with open("index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list(root.glob("cam*/*/*.jpg")))
    assert main(["run", "ddag:sysu", "--out", "run", *sets()]) == 0
    said = capsys.readouterr().out
    assert "7 identities" in said
    scores = scores_of("run")
    assert list(scores) == ["sysu_mm01/all-single", "sysu_mm01/indoor-single"]
    for rankings in scores.values():
        assert list(rankings) == ["x", "f"]
        for stages in rankings.values():
            numbers = stages["plain"]
            assert {"mAP", "mINP", "rank-1-identity"} <= numbers.keys()
            assert len(numbers["mAP"]["values"]) == 10
            assert len(set(numbers["mAP"]["values"])) > 1
    infrared = 2 * 3 * len(TEST) - 3  # one camera did not see one of them
    # Person 9 is in no indoor gallery.
    for search, queries, unmatched in (("all", infrared, 0), ("indoor", infrared - 6, 6)):
        numbers = scores[f"sysu_mm01/{search}-single"]["x"]["plain"]
        assert numbers["queries"]["mean"] == queries
        assert numbers["queries_without_match"]["mean"] == unmatched


@pytest.mark.parametrize("trials", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_regdb_from_index_to_both_directions(archives, work, trials):
    """An index of a trial has its four lists; `ddag:regdb` trains a model for each trial on its
    own people and scores it in both directions, and the mean is over the models."""
    root = archives / "RegDB"
    index = ["data", "index", str(root), "--read", "core.regdb", "--out", "index.csv"]
    assert main([*index, "--set", 'counts="any"', "--set", "trial=3"]) == 0
    with open("index.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 60
    text = find_packaged("ddag:regdb", Plugins()).text
    every = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
    assert every in text
    Path("regdb.toml").write_text(text.replace(every, str(list(range(1, trials + 1)))))
    assert main(["run", "regdb.toml", "--out", "run", *sets()]) == 0
    scores = scores_of("run")
    assert list(scores) == ["regdb/visible-to-infrared", "regdb/infrared-to-visible"]
    for rankings in scores.values():
        for ranking in ("x", "f"):
            numbers = rankings[ranking]["plain"]
            assert len(numbers["mAP"]["values"]) == trials
            assert numbers["queries"]["values"] == [15] * trials
    folders = sorted(path.name for path in Path("run").iterdir() if path.is_dir())
    locks = [json.loads((Path("run") / name / "lock.json").read_text()) for name in folders]
    assert len({str(lock["data"]) for lock in locks}) == trials


def test_a_missing_list_is_named(archives, work, capsys):
    """Without the lists of a trial, or of SYSU-MM01's people, nothing starts, and the error names
    the file."""
    copied = work / "data"
    for name in ("RegDB", "SYSU-MM01"):
        shutil.copytree(archives / name, copied / name)
    (copied / "RegDB/idx/test_thermal_1.txt").unlink()
    (copied / "SYSU-MM01/exp/val_id.txt").unlink()
    for name, file in (("regdb", "idx/test_thermal_1.txt"), ("sysu", "exp/val_id.txt")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("REID_DATA", str(copied))
            assert main(["run", f"ddag:{name}", "--out", name, *sets()]) == 4
        assert file in capsys.readouterr().err
        assert not Path(name).exists() or not list(Path(name).iterdir())


def test_a_missing_modality_is_named(archives, work, capsys, monkeypatch):
    """Infrared folders that are empty leave nothing to train across."""
    copied = work / "data" / "SYSU-MM01"
    shutil.copytree(archives / "SYSU-MM01", copied)
    for camera in (3, 6):
        for path in copied.glob(f"cam{camera}/*/*.jpg"):
            path.unlink()
    monkeypatch.setenv("REID_DATA", str(work / "data"))
    assert main(["run", "ddag:sysu", "--out", "run", *sets()]) in (2, 4)
    error = capsys.readouterr().err
    assert "needs training pictures of two modalities, but the data have visible" in error
