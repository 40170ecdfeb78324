"""Nothing that is not finite is loaded, stored as a template, or ranked."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from running import TINY
from safetensors.torch import load_file, save_file

import reidcore
from reidcore.builtin.reranking import Rerank
from reidcore.cli.main import main
from reidcore.errors import DataError, PluginError, ReidError

RANKINGS = """
[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.pooled"]

[[post]]
use = "core.rerank"
name = "rerank"
k1 = 4
k2 = 2

[[ranking]]
name = "main"
matcher = "far"

[[ranking]]
name = "short"
matcher = "look"
shortlist = { by = "far", top = 2 }

[[ranking]]
name = "mixed"
fuse = { look = 1.0, far = 1.0 }
scale = "row_minmax"

[[ranking]]
name = "reranked"
matcher = "far"
post = ["rerank"]
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A run without training, `run`, and the pictures that it is tested on, `people`."""
    folder = tmp_path_factory.mktemp("finite")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        patch.delenv("REID_DATA", raising=False)
        sizes = ["train_identities=4", "test_identities=3", "pictures=8", "cameras=2"]
        assert main(["data", "demo", "people", *_sets(*sizes)]) == 0
        Path("tiny.toml").write_text(TINY + RANKINGS)
        assert main(["run", "tiny.toml", "--out", "run", *_sets("train.epochs=0")]) == 0
        yield folder


def _sets(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def _pictures() -> list[Path]:
    return sorted([*Path("people").rglob("*.jpg"), *Path("people").rglob("*.png")])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_are_refused_at_every_door(work, tmp_path, bad, capsys):
    """eval, rank, index and Python name the parameter; nothing is left of the index."""
    shutil.copytree("run", tmp_path / "run")
    file = tmp_path / "run" / "weights.safetensors"
    tensors = load_file(file)
    tensors["head.neck.norm.bias"][3] = bad
    save_file(tensors, file)
    run, index = str(tmp_path / "run"), str(tmp_path / "index")
    for command in (
        ["eval", run],
        ["rank", run, "--query", "people", "--gallery", "people"],
        ["index", run, "people", "-o", index],
    ):
        assert main(command) == 4
        message = capsys.readouterr().err
        assert "head.neck is not finite: norm.bias (1 of" in message and str(file) in message
    assert not Path(index).exists()
    with pytest.raises(DataError, match=r"norm\.bias"):
        reidcore.load(run)


class Spoiled(torch.nn.Module):
    """A matcher whose last template, or whose last query's second distance, is not finite."""

    def __init__(self, matcher, bad: float, distances: bool):
        super().__init__()
        self.matcher, self.bad, self.distances = matcher, bad, distances

    def template(self, features):
        found = self.matcher.template(features)
        for value in found.values() if not self.distances else ():
            value[-1] = self.bad
        return found

    def merge(self, views):
        return self.matcher.merge(views)

    def distance(self, a, b):
        found = self.matcher.distance(a, b)
        if self.distances:
            found[-1, 1] = self.bad
        return found


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_templates_are_refused(work, tmp_path, bad):
    """From Python, in a ranking and in an index, with the picture's path."""
    run = reidcore.load("run")
    run.model.matcher_far = Spoiled(run.model.matcher_far, bad, distances=False)
    some = _pictures()[:5]
    for act in (
        lambda: run.templates(some),
        lambda: run.rank(some, some),
        lambda: run.index(some, tmp_path / "index"),
    ):
        with pytest.raises(ReidError, match=rf"template far.* of picture .*{some[-1].name}"):
            act()
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("ranking", ["main", "short", "mixed", "reranked"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_distances_are_refused(work, bad, ranking):
    """Also where a shortlist, a scale or a postprocessor would hide them."""
    run, pictures = reidcore.load("run"), _pictures()
    query, gallery = run.templates(pictures[:3]), run.templates(pictures[3:10])
    assert len(list(run.rank(query, gallery, 3, ranking))) == 9
    run.model.matcher_far = Spoiled(run.model.matcher_far, bad, distances=True)
    names = [pictures[2].name, pictures[4].name]
    words = "matcher 'far' are not finite.*query picture .*{} and gallery picture .*{}"
    with pytest.raises(ReidError, match=words.format(*names)):
        run.rank(query, gallery, 3, ranking)
    with pytest.raises(ReidError, match="are not finite"):
        run.distances(query, gallery, ranking)


def test_a_listed_distance_is_named_by_its_picture(work):
    """The distances that a shortlist is for are looked at too."""
    run, pictures = reidcore.load("run"), _pictures()
    query, gallery = run.templates(pictures[:1]), run.templates(pictures[3:10])
    second = int(run.rank(query, gallery, 2, "main").index[0, 1])
    run.model.matcher_look = Spoiled(run.model.matcher_look, math.nan, distances=True)
    with pytest.raises(ReidError, match=rf"'look'.*gallery picture .*{pictures[3 + second].name}"):
        run.rank(query, gallery, 1, "short")


def test_an_index_is_refused(work, tmp_path, capsys):
    """One NaN in a stored template: the picture is named."""
    index = tmp_path / "index"
    assert main(["index", "run", "people", "-o", str(index)]) == 0
    rows = (index / "manifest.csv").read_text().splitlines()
    digest = json.loads((index / "index.json").read_text())["manifest"]
    file = index / "templates.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[5, 0] = math.nan
    save_file(tensors, file, {"manifest": digest})
    assert main(["rank", "run", "--query", "people", "--gallery", str(index)]) == 4
    assert rows[6].split(",")[0] in capsys.readouterr().err


@pytest.mark.parametrize("change", ["reordered", "swapped", "renamed", "foreign templates"])
def test_an_index_is_one_with_its_manifest(work, tmp_path, capsys, change):
    """Another order of the same pictures would name wrong ones; older indexes still open."""
    index, other = tmp_path / "index", tmp_path / "other"
    assert main(["index", "run", "people", "-o", str(index)]) == 0
    manifest, file = index / "manifest.csv", index / "templates.safetensors"
    text, good = manifest.read_text(), file.read_bytes()
    head, *rows = text.splitlines()
    if change == "foreign templates":
        shutil.copytree("people", tmp_path / "copied")
        assert main(["index", "run", str(tmp_path / "copied"), "-o", str(other)]) == 0
        shutil.copy(other / "templates.safetensors", file)
    else:
        changed = {
            "reordered": [head, *rows[::-1]],
            "swapped": [head, rows[1], rows[0], *rows[2:]],
            "renamed": [head, *(row.replace("people", "persons") for row in rows)],
        }[change]
        manifest.write_text("\n".join(changed) + "\n")
    command = ["rank", "run", "--query", "people", "--gallery", str(index)]
    assert main(command) == 4
    message = capsys.readouterr().err
    assert "manifest.csv is not the one" in message and "index the pictures again" in message
    manifest.write_text(text)
    file.write_bytes(good)
    assert main(command) == 0
    save_file(load_file(file), file)
    content = json.loads((index / "index.json").read_text())
    del content["manifest"]
    (index / "index.json").write_text(json.dumps(content))
    assert main(command) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_a_postprocessor_is_given_is_refused(work, bad):
    """Distances within a side, which `core.rerank` asks for, from Python too."""

    class SpoiledWithin(Spoiled):
        def distance(self, a, b):
            within = len(next(iter(a.values()))) == len(next(iter(b.values())))
            return super().distance(a, b) if within else self.matcher.distance(a, b)

    run, pictures = reidcore.load("run"), _pictures()
    run.model.matcher_far = SpoiledWithin(run.model.matcher_far, bad, distances=True)
    words = rf"post.*matcher 'far' are not finite.*\S*{pictures[9].name} and .*{pictures[4].name}"
    with pytest.raises(ReidError, match=words):
        run.rank(pictures[:3], pictures[3:10], 3, "reranked")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_a_postprocessor_makes_is_refused(work, bad, monkeypatch):
    """It and the first such pair are named, from Python too."""
    made = Rerank.__call__

    def spoiling(self, distances, ranking):
        found = made(self, distances, ranking)
        found[1, 2] = bad
        return found

    monkeypatch.setattr(Rerank, "__call__", spoiling)
    run, pictures = reidcore.load("run"), _pictures()
    words = (
        rf"'rerank' \(core.rerank\).*query picture .*{pictures[1].name} and .*{pictures[5].name}"
    )
    with pytest.raises(PluginError, match=words):
        run.rank(pictures[:3], pictures[3:10], 3, "reranked")
