"""`core.coco`: boxes of a COCO file as rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reidcore.builtin.readers.coco_boxes import CocoBoxes
from reidcore.cli.main import main
from reidcore.data.manifest import read_manifest
from reidcore.errors import DataError

Content = dict[str, Any]


def content() -> Content:
    return {
        "images": [
            {"id": 5, "file_name": "a/1.jpg", "camera_id": 2, "attributes": {"seconds": 8.5}},
            {"id": 6, "file_name": "a/2.jpg", "camera_id": 3, "attributes": {"seconds": 9}},
        ],
        "annotations": [
            {"id": 1, "image_id": 5, "bbox": [10.4, 20, 30, 40.2], "track_id": 7, "category_id": 1},
            {"id": 2, "image_id": 5, "bbox": [0, 0, 3, 4], "category_id": 2,
             "attributes": {"track_id": "x", "use": "query"}},
            {"id": 3, "image_id": 6, "bbox": [-4, 0, 8, 4], "track_id": 7.0, "category_id": 1},
            {"id": 4, "image_id": 6, "bbox": [0, 0, 9, 9], "track_id": 8, "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}],
    }  # fmt: skip


def written(folder: Path, content: object) -> Path:
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_every_annotation_is_a_row(tmp_path: Path):
    """Boxes are rounded, keys are found in annotations and pictures and their attributes."""
    reader = CocoBoxes(images="shots", camera="camera_id", time="seconds")
    rows = reader.rows(written(tmp_path, content()))
    shots = f"{tmp_path}/shots/a"
    assert [(row.path, row.pid, row.camera, row.time, row.box) for row in rows] == [
        (f"{shots}/1.jpg", "7", "2", 8.5, (10, 20, 40, 60)),
        (f"{shots}/1.jpg", "x", "2", 8.5, (0, 0, 3, 4)),
        (f"{shots}/2.jpg", "7", "3", 9.0, (-4, 0, 4, 4)),
    ]
    assert rows[2].listed == "annotations.json annotation 3"
    assert {row.split for row in rows} == {"train"}
    assert len({row.name for row in rows}) == 3
    assert [row.pid for row in CocoBoxes(categories=["car"]).rows(tmp_path)] == ["x"]
    assert {row.split for row in CocoBoxes(split="gallery").rows(tmp_path)} == {"gallery"}


def test_splits_are_drawn_by_box(tmp_path: Path):
    """Two people in one frame are two pictures: one may be a query, the other in the gallery."""
    boxes = content()
    boxes["annotations"] = [
        {"id": 10 * pid + number, "image_id": image, "bbox": [pid, number, 5, 5], "track_id": pid}
        for pid in range(4)
        for image in (5, 6)
        for number in range(2)
    ]
    reader = CocoBoxes(camera="camera_id", train_fraction=0.0)
    rows = reader.rows(written(tmp_path, boxes))
    queries = [row for row in rows if row.split == "query"]
    assert sorted((row.pid, row.camera) for row in queries) == [
        (str(pid), camera) for pid in range(4) for camera in ("2", "3")
    ]


def change(path: str, value: object) -> Callable[[Content], object]:
    def changed(content: Content) -> object:
        *keys, last = (int(key) if key.isdigit() else key for key in path.split("."))
        table: Any = content
        for key in keys:
            table = table[key]
        table[last] = value
        return content

    return changed


@pytest.mark.parametrize(
    ("changed", "config", "said"),
    [
        (change("annotations.0.bbox", [1, 2, 0, 4]), {}, "annotation 1: bbox .* is empty"),
        (change("annotations.0.bbox", [1, 2, 3]), {}, "1: bbox .* expected four numbers"),
        (change("annotations.0.bbox", [1, 2, 0.2, 4]), {}, "annotation 1: the box .* is empty"),
        (change("annotations.0.bbox", [1, 2, float("nan"), 4]), {}, "1: bbox .* is empty"),
        (change("annotations.0.bbox", [0, 0, float("inf"), 4]), {}, "annotation 1: the box is "),
        (change("annotations.0.bbox", [0.5, 0, 10**400, 4]), {}, "annotation 1: "),
        (change("annotations.0.bbox", None), {}, "annotation 1: bbox is None"),
        (change("annotations.0.bbox", {"x": 1}), {}, "annotation 1: bbox is "),
        (change("annotations.0.image_id", 9), {}, "annotation 1: image_id is 9, which no entry"),
        (change("annotations.0.image_id", [5]), {}, r"annotation 1: image_id is \[5\]"),
        (change("annotations.0.track_id", None), {}, "annotation 1: has no identity at 'track_id'"),
        (change("annotations.0.track_id", [1]), {}, "annotation 1: track_id is .*expected text"),
        (change("annotations.0.track_id", True), {}, "annotation 1: track_id is True"),
        (change("annotations.0.category_id", [1]), {"categories": ["car"]}, None),
        (change("images.0.file_name", ""), {}, "image 5, has no file_name"),
        (change("images.1.id", 5), {}, "images has the id 5 several times"),
        (change("images.1.id", None), {}, "images has the id None"),
        (change("images", {}), {}, "images is no list of tables"),
        (change("annotations", [1]), {}, "annotations is no list of tables"),
        (lambda content: {"image": []}, {}, "lack 'images', did you mean 'image'"),
        (lambda content: [], {}, "expected a table with images and annotations"),
        (change("annotations", []), {}, "so there are no pictures"),
        (lambda content: content, {"camera": "camera"}, "no 'camera', did you mean 'camera_id'"),
        (lambda content: content, {"split": "use"}, "annotation 1: has no 'use'"),
        (change("annotations.0.use", "tran"), {"split": "use"}, "'tran', did you mean 'train'"),
        (lambda content: content, {"time": "file_name"}, "expected seconds"),
        (change("annotations.0.at", 1e308), {"time": "at"}, r"at is 1e\+308, expected seconds"),
        (change("annotations.0.at", 10**400), {"time": "at"}, "expected seconds"),
        (lambda content: content, {"categories": ["persons"]}, "did you mean 'person'"),
        (lambda content: content, {"identity": "trackid"}, "did you mean 'track_id'"),
        (lambda content: content, {"annotations": "other.json"}, "annotations not found at "),
    ],
)  # fmt: skip
def test_faults_are_told(changed, config: dict[str, Any], said: str | None, tmp_path: Path):
    """What is wrong is a sentence that names file and annotation, and nothing else is raised."""
    reader = CocoBoxes(**config)
    root = written(tmp_path, changed(content()))
    if said is None:
        reader.rows(root)
        return
    with pytest.raises(DataError, match=said) as error:
        reader.rows(root)
    assert all(len(line) < 1000 for line in str(error.value).splitlines())


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"images": ' + "9" * 5000 + "}", "\0"])
def test_what_is_no_json(text: str, tmp_path: Path):
    """Damaged, deep and absurd files are told."""
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(DataError, match=r"annotations .*annotations\.json"):
        CocoBoxes().rows(tmp_path)
    (tmp_path / "annotations.json").write_bytes(b'{"images": "\xff"}')
    with pytest.raises(DataError, match="are no JSON"):
        CocoBoxes().rows(tmp_path)


def test_boxes_without_an_identity_may_be_left_out(tmp_path: Path):
    """`unnamed = "skip"` keeps the others; -1 is what trackers write where there is none."""
    for nobody in (None, "", -1, "-1"):
        root = written(tmp_path, change("annotations.0.track_id", nobody)(content()))
        assert [row.pid for row in CocoBoxes(unnamed="skip").rows(root)] == ["x", "7"]
        with pytest.raises(DataError, match="annotation 1: has no identity at 'track_id'"):
            CocoBoxes().rows(root)


def test_index_writes_boxes(tmp_path: Path, monkeypatch, capsys):
    """`reid data index --read core.coco` lists boxes as a manifest, which gives the same rows."""
    monkeypatch.delenv("REID_DATA", raising=False)
    root = written(tmp_path, content())
    output = tmp_path / "lists" / "boxes.csv"
    output.parent.mkdir()
    words = ["--read", "core.coco", "--set", "camera=camera_id", "-o", str(output)]
    assert main(["data", "index", str(root), *words]) == 0
    assert output.read_text().splitlines()[:2] == [
        "path,pid,camera,split,box",
        "../a/1.jpg,7,2,train,10 20 40 60",
    ]
    rows = CocoBoxes(camera="camera_id").rows(root)
    fields = [(row.pid, row.box, row.camera) for row in read_manifest(output)]
    assert fields == [(row.pid, row.box, row.camera) for row in rows]


def paths_of(content: Any, above: str = "") -> list[str]:
    """The path of every value in a content, as of `change`."""
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for key, value in inner:
        found.append(f"{above}{key}")
        if isinstance(value, dict | list):
            found += paths_of(value, f"{above}{key}.")
    return found


STRANGE = [None, True, -1, 0.5, 10**400, float("nan"), float("inf"), "", "x", "\0", [], [1], {}]


@pytest.mark.parametrize("strange", STRANGE, ids=lambda value: str(value)[:8] or "empty")
def test_any_value_may_be_wrong(strange: object, tmp_path: Path):
    """Whatever value of a file is another one, rows or a sentence come of it, and nothing else."""
    reader = CocoBoxes(camera="camera_id", time="seconds", categories=["person", "car"])
    for path in paths_of(content()):
        root = written(tmp_path, change(path, strange)(content()))
        try:
            rows = reader.rows(root)
        except DataError as error:
            assert "annotations.json" in str(error), path
            assert all(len(line) < 1000 for line in str(error).splitlines()), path
        else:
            assert all(row.pid and row.box for row in rows), path
