"""Test sets of one query or of one gallery picture, under every protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from protocol_runs import draw, run_text, scores

from reidcore.api import Row
from reidcore.cli.main import main
from reidcore.data.pictures import make_rows, meta_of
from reidcore.protocols.all_protocols import PROTOCOLS

SETS = {
    "cross_camera": ["7,1,,query 7,2,,gallery", "7,1,,query 7,2,,gallery 8,2,,gallery"],
    "single_gallery_shot": ["7,1,,query 7,2,,gallery", "7,1,,query 8,1,,query 7,2,,gallery"],
    "open_set": ["7,1,,query 8,1,,query 7,2,,gallery 8,2,,gallery"],
    "vehicleid": ["7,1,,test 7,2,,test"],
    "sysu": [
        "7,1,visible,test 7,3,infrared,test",
        "7,1,visible,test 7,2,visible,test 7,6,infrared,test",
    ],
    "regdb": ["7,1,visible,test 7,2,infrared,test"],
    "cross_modality": [
        "7,1,visible,test 7,2,infrared,test",
        "7,1,visible,test 7,2,infrared,test 8,2,infrared,test",
    ],
}
"""Pictures (pid, camera, modality, split) of small test sets by protocol."""


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("post", ["", 'post = ["rerank"]'])
def test_one_query_or_gallery_picture_is_scored(tmp_path: Path, monkeypatch, name, post):
    """A run ends with scores, `eval` finds the same, and one picture is ranked among one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(tmp_path.parent / "cache"))
    entries = []
    for number, pictures in enumerate(SETS[name]):
        rows = [f"{number}/{i}.png,{one}" for i, one in enumerate(pictures.split())]
        draw([Path(row.split(",")[0]) for row in rows])
        Path(f"{number}.csv").write_text("\n".join(["path,pid,camera,modality,split", *rows]))
        entries.append(f'{{ manifest = "{number}.csv", protocol = "{name}" }}')
    more = '\n[[post]]\nuse = "core.rerank"\nname = "rerank"\n' if post else ""
    more += f'[[ranking]]\nname = "main"\nmatcher = "look"\n{post}\n' if post else ""
    Path("own.toml").write_text(run_text(*entries, more=more))
    assert main(["run", "own.toml", "--out", "run", "--no-dry", "--set", "train.epochs=0"]) == 0
    assert main(["eval", "run", "-o", "again.json"]) == 0
    found = scores("run")
    assert {place.partition("/")[0] for place in found} >= {str(n) for n in range(len(entries))}
    one, other = "0/0.png", "0/1.png"
    assert main(["rank", "run", "--query", one, "--gallery", other]) == 0


@pytest.mark.parametrize("index", [[1], np.array([1]), torch.tensor([1]), slice(1, 2)])
def test_rows_are_taken_by_one_number(index):
    """An array indexed by a tensor of one element would be a scalar."""
    rows = make_rows([Row(f"{n}.png", str(n), str(n)) for n in range(3)], {"1": 1}, [""])
    meta = meta_of(rows, index)
    assert meta.camera.tolist() == [1] and meta.time.shape == meta.modality.shape == (1,)
