"""Pictures in a zip and boxes in larger pictures are worth as much as files of their own."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest
from PIL import Image
from running import TINY

import reidcore
from reidcore.api import Row
from reidcore.builtin.drawn_people.pictures import write_demo
from reidcore.cli.main import main
from reidcore.data.manifest import read_manifest
from reidcore.data.pictures import PictureLoader, make_rows
from reidcore.runfiles.tables import Data
from reidcore.tools import open_picture

FRAME = 4
"""Pictures in a row of a frame."""
SOURCES = {
    "files": '{ manifest = "files/manifest.csv" }',
    "zip": '{ name = "files", read = "core.zip", root = "shots.zip" }',
    "boxes": '{ name = "files", read = "core.coco", root = ".", annotations = "boxes.json", '
    'images = "frames.zip", camera = "camera", time = "seconds", split = "use" }',
    "listed": '{ name = "files", manifest = "boxes.csv" }',
}


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """The same pictures as files, in a zip with a manifest, and as boxes in frames in a zip."""
    folder = tmp_path_factory.mktemp("rows")
    write_demo(folder / "drawn", train_identities=4, test_identities=3, pictures=8, cameras=2)
    rows = read_manifest(folder / "drawn" / "manifest.csv")
    files = folder / "files"
    files.mkdir()
    frames: dict[str, Image.Image] = {}
    annotations = []
    with (files / "manifest.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "pid", "camera", "split", "time"])
        for number, row in enumerate(rows):
            picture = Image.open(row.path).convert("RGB")
            picture.save(files / f"{number:03}.png")
            table.writerow([f"{number:03}.png", row.pid, row.camera, row.split, row.time])
            width, height = picture.size
            name = f"cam/{number // FRAME:03}.png"
            frame = frames.setdefault(name, Image.new("RGB", (FRAME * width, height + 9), "red"))
            left = number % FRAME * width
            frame.paste(picture, (left, 5))
            annotations.append(
                {
                    "id": number,
                    "image_id": number // FRAME,
                    "bbox": [left + 0.2, 4.9, width - 0.1, float(height)],
                    "track_id": row.pid,
                    "attributes": {"camera": int(row.camera), "use": row.split},
                    "seconds": row.time,
                }
            )
    with zipfile.ZipFile(folder / "shots.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files.iterdir()):
            archive.write(path, f"2026/{path.name}")
    with zipfile.ZipFile(folder / "frames.zip", "w") as archive:
        for name, frame in frames.items():
            frame.save(folder / "frame.png")
            archive.write(folder / "frame.png", name)
    images = [{"id": number, "file_name": name} for number, name in enumerate(frames)]
    content = {"images": images, "annotations": annotations, "categories": []}
    (folder / "boxes.json").write_text(json.dumps(content))
    shutil.rmtree(folder / "drawn")
    return folder


@pytest.fixture
def here(work, monkeypatch) -> Path:
    monkeypatch.chdir(work)
    monkeypatch.delenv("REID_DATA", raising=False)
    return work


def run_of(work: Path, source: str, *options: str) -> Path:
    """The folder of a run on the pictures from this source, made once."""
    folder = work / f"run-{source}"
    if not folder.exists():
        if source == "listed" and not (work / "boxes.csv").exists():
            sets = ("annotations=boxes.json", "images=frames.zip", "camera=camera")
            sets += ("time=seconds", "split=use")
            words = [word for one in sets for word in ("--set", one)]
            assert (
                main(["data", "index", ".", "--read", "core.coco", *words, "-o", "boxes.csv"]) == 0
            )
        table = SOURCES[source]
        text = "\n".join(
            line
            for line in TINY.replace("epochs = 6", "epochs = 1").splitlines()
            if "core.demo" not in line and line not in ("test = [", "]")
        )
        text = text.replace("[data]", f"[data]\ntrain = {table}\ntest = [{table}]\nworkers = 2")
        (work / f"{source}.toml").write_text(text)
        assert main(["run", f"{source}.toml", "--out", str(folder), *options]) == 0
    return folder


@pytest.mark.parametrize(
    ("source", "worker"),
    [("zip", "thread"), ("zip", "process"), ("boxes", "process"), ("listed", "thread")],
)
def test_the_same_weights_and_scores(source: str, worker: str, here: Path):
    """A run on a zip or on boxes, read by threads or processes, is that on files, bit by bit."""
    plain = run_of(here, "files")
    folder = run_of(here, source, "--set", f"data.worker_kind={worker}")
    for name in ("weights.safetensors", "scores.json"):
        assert (folder / name).read_bytes() == (plain / name).read_bytes(), name
    if (source, worker) == ("zip", "thread"):
        shutil.rmtree(folder)  # made again by processes


@pytest.mark.parametrize("source", ["zip", "boxes"])
def test_check_finds_what_is_wrong(source: str, here: Path, capsys):
    """All is well; then damaged members and boxes outside of their frame are named."""
    words = {
        "zip": ["shots.zip", "--read", "core.zip"],
        "boxes": [".", "--read", "core.coco", "--set", "images=frames.zip"],
    }[source]
    if source == "boxes":
        words += ["--set", "annotations=boxes.json", "--set", "camera=camera", "--set", "split=use"]
    for how in ((), ("--fast",)):
        assert main(["data", "check", *words, *how]) == 0
        assert "no errors" in capsys.readouterr().out
    if source == "zip":
        content = bytearray((here / "shots.zip").read_bytes())
        with zipfile.ZipFile(here / "shots.zip") as archive:
            start = archive.getinfo("2026/007.png").header_offset
        content[start + 60 : start + 90] = bytes(30)
        (here / "torn.zip").write_bytes(content)
        words[0] = "torn.zip"
        said = f"manifest.csv row 9: {here}/torn.zip/2026/007.png cannot be unpacked: "
    else:
        boxes = json.loads((here / "boxes.json").read_text())
        boxes["annotations"][7]["bbox"] = [4000, 0, 20, 40]
        (here / "far.json").write_text(json.dumps(boxes))
        words[words.index("annotations=boxes.json")] = "annotations=far.json"
        said = (
            f"far.json annotation 7: {here}/frames.zip/cam/001.png[4000 0 4020 40] has nothing in"
        )
    assert main(["data", "check", *words]) == 4
    out = capsys.readouterr().out
    assert "error: 1 picture missing or damaged" in out
    assert said in out


def test_search_by_every_source(here: Path, capsys):
    """rank, index and explain give the same of files, of a zip and of boxes, under their names."""
    run = str(run_of(here, "files"))
    run_of(here, "listed")
    found = {}
    for name, gallery in (("files", "files"), ("zip", "shots.zip"), ("boxes", "boxes.csv")):
        assert main(["index", run, gallery, "-o", f"{name}.idx"]) == 0
        ranked = {}
        for stored in (gallery, f"{name}.idx"):
            capsys.readouterr()
            assert main(["rank", run, "--query", "files/003.png", "--gallery", stored]) == 0
            ranked[stored] = capsys.readouterr().out
        assert ranked[gallery] == ranked[f"{name}.idx"]
        found[name] = list(csv.DictReader(ranked[gallery].splitlines()))
    # Only of the files the query itself is left out.
    for name in ("zip", "boxes"):
        assert float(found[name][0]["distance"]) < 1e-6
        assert [one["distance"] for one in found[name][1:]] == [
            one["distance"] for one in found["files"][:-1]
        ]
    assert found["zip"][0]["gallery"] == "shots.zip/2026/003.png"
    assert found["boxes"][0]["gallery"].startswith("frames.zip/cam/000.png[")
    words = ["--query", "shots.zip", "--gallery", "boxes.idx", "--top", "1", "--limit", "1"]
    assert main(["explain", run, *words, "-o", "why"]) == 0
    (line, *_) = csv.DictReader((here / "why" / "index.csv").open())
    assert line["query_path"] == f"{here}/shots.zip/2026/000.png"
    assert line["gallery_path"].startswith(f"{here}/frames.zip/cam/000.png[0 5 ")
    assert Image.open(here / "why" / line["png"]).width > 100


def test_search_in_the_rows_of_a_reader(here: Path, capsys):
    """With --read, the query and gallery pictures are the reader's of these splits."""
    run = str(run_of(here, "files"))
    both = ["--query", "shots.zip", "--gallery", "shots.zip"]
    capsys.readouterr()
    assert main(["rank", run, *both, "--read", "core.zip", "--top", "2"]) == 0
    found = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    rows = read_manifest(here / "files" / "manifest.csv")
    names = {
        side: {f"shots.zip/2026/{Path(row.path).name}" for row in rows if row.split == side}
        for side in ("query", "gallery")
    }
    assert {one["query"] for one in found} == names["query"]
    assert {one["gallery"] for one in found} <= names["gallery"]
    assert len(found) == 2 * len(names["query"])
    assert main(["index", run, "shots.zip", "--read", "core.zip", "-o", "read.idx"]) == 0
    capsys.readouterr()
    words = ["--query", "shots.zip", "--gallery", "read.idx", "--read", "core.zip"]
    assert main(["rank", run, *words, "--top", "2"]) == 0
    assert list(csv.DictReader(capsys.readouterr().out.splitlines())) == found
    assert main(["explain", run, *words, "--top", "1", "--limit", "1", "-o", "read"]) == 0
    assert main(["rank", run, *both, "--set", "manifest=a.csv"]) == 2
    assert "--read names" in capsys.readouterr().err


def test_a_query_is_found_in_its_own_frame_but_not_as_itself(here: Path):
    """Of one frame, only the query's own box is left out of its list."""
    run_of(here, "listed")
    search = reidcore.load(run_of(here, "files"), device="cpu")
    rows = read_manifest(here / "boxes.csv", labelled=False)
    ranked = search.rank(rows[:2], rows, top=len(rows))
    for query in range(2):
        places = ranked.index[query].tolist()
        assert sorted(places) == [-1, *(one for one in range(len(rows)) if one != query)]


def test_the_report_shows_them(here: Path):
    """A report on boxes in a zip has their pictures."""
    pytest.importorskip("reid_report")
    assert main(["report", str(run_of(here, "boxes")), "-o", "report.html"]) == 0
    page = (here / "report.html").read_text()
    assert page.count("data:image/jpeg") > 5
    assert re.search(r"\d{3}\.png\[\d+ 5 ", page)


@attrs.frozen
class InDatabase:
    """Opens a picture in a table of SQLite's."""

    file: str
    number: int

    def read(self) -> bytes:
        with sqlite3.connect(self.file) as database:
            found = database.execute("select content from shot where id = ?", [self.number])
            return found.fetchone()[0]


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_any_opener_is_read(worker: str, here: Path, tmp_path: Path):
    """A plugin's opener, with and without a box, gives the pixels of the file that it holds."""
    files = sorted((here / "files").glob("*.png"))[:6]
    with sqlite3.connect(tmp_path / "shots.db") as database:
        database.execute("create table shot (id integer primary key, content blob)")
        database.executemany(
            "insert into shot values (?, ?)",
            [(n, path.read_bytes()) for n, path in enumerate(files)],
        )
    name = str(tmp_path / "shots.db")
    box = (-3, 2, 9, 30)
    rows: list[Row] = []
    plain: list[Row] = []
    for number, path in enumerate(files):
        opener = InDatabase(name, number)
        rows += [Row(f"{name}/{number}", "1", opener=opener, box=one) for one in (None, box)]
        plain += [Row(str(path), "1", box=one) for one in (None, box)]
        assert open_picture(rows[-1]).size == (9, 28)
    data = Data(image=(32, 16), workers=2, worker_kind=worker, cache=0.1)

    def pixels(of: Sequence[Row]) -> np.ndarray:
        loader = PictureLoader(data, 0)
        batches = list(loader.plain(make_rows(of, {}, ()).take([5, 0, 3, 3, 11]), 2))
        return np.concatenate([batch.images.pixels.numpy() for batch in batches])

    assert (pixels(rows) == pixels(plain)).all()
    digests = {hashlib.sha256(one.tobytes()).hexdigest() for one in pixels(rows)}
    assert len(digests) == 4
