"""Unlabelled pictures: templates, indexes on disk, and ranked lists, by command and from Python."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import attrs
import pytest
import torch
from running import TINY, TWO_RANKINGS, environment, reid
from safetensors.torch import load_file

import reidcore
from reidcore.api import Row, TensorSpec
from reidcore.cli.main import main
from reidcore.errors import DataError, PluginError, UsageError
from reidcore.search.index_files import TEMPLATES, TemplateWriter, read_index, write_index
from reidcore.support.sorting import smallest


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a finished run and two folders of unlabelled pictures."""
    folder = tmp_path_factory.mktemp("search")
    env = environment(folder / "cache")
    (folder / "tiny.toml").write_text(TINY.replace("epochs = 6", "epochs = 2") + TWO_RANKINGS)
    reid(env, folder, "run", "tiny.toml", "--out", "run")
    drawn = next((folder / "cache").iterdir())
    (folder / "new").mkdir()
    for number, path in enumerate(sorted((drawn / "query").glob("*.jpg"))):
        shutil.copy(path, folder / "new" / f"{number}.jpg")
    shutil.copytree(drawn / "gallery", folder / "shots" / "deep")
    (folder / "shots" / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def run(work):
    return reidcore.load(work / "run", device="cpu")


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_two_folders_make_a_csv(work, run):
    """The file lists every query's nearest gallery pictures with the model's own distances."""
    rank = ["rank", "run", "--query", "new", "--gallery", "shots", "--top", "4", "-o", "out.csv"]
    shown = reid(environment(work / "cache"), work, *rank).stdout
    rows = table((work / "out.csv").read_text())
    queries, gallery = run.templates(work / "new"), run.templates(work / "shots")
    assert shown.startswith(f"wrote out.csv: the first 4 of {len(gallery)} gallery pictures for ")
    assert [row["query"] for row in rows] == [
        f"new/{name}.jpg" for name in range(len(queries)) for _ in range(4)
    ]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"] * len(queries)
    distances = run.distances(queries, gallery)
    names = [str(Path(path).relative_to(work)) for path in gallery.paths]
    for number, row in enumerate(rows):
        expected = distances[number // 4]
        found, place = float(row["distance"]), names.index(row["gallery"])
        assert found == pytest.approx(float(expected[place]), abs=1e-5)
        assert found == pytest.approx(float(expected.sort().values[number % 4]), abs=1e-5)


@pytest.mark.parametrize("ranking", ["main", "both"])
def test_answers_have_a_probability_or_are_unknown(work, run, ranking):
    """Probabilities are those of the training pairs' scale, weights adding up to 1; a query whose
    first answer is less probable than stated has one line, which names nobody."""
    from reidcore.ranking.scales import fit

    queries, gallery = run.templates(work / "new"), run.templates(work / "shots")
    likely = {}
    for name, others in (("look", {}), ("far", {"fuse": {"far": 1.0}, "scale": "none"})):
        one = attrs.evolve(run.plan.rankings[0], matcher="" if others else "look", **others)
        own = run._ranking(one, queries, gallery, whole=True).whole()
        likely[name] = 1 - fit("logistic", run.model.pairs[name])(own)
    expected = likely["look"] if ranking == "main" else (likely["look"] + likely["far"]) / 2
    ranked = run.rank(queries, gallery, top=3, ranking=ranking)
    found = run.probabilities(queries, gallery, ranked.index, ranking)
    assert torch.allclose(found, expected.gather(1, ranked.index), atol=1e-5)
    assert (found.diff(dim=1) <= 0).all()  # the nearer, the likelier
    least = found[:, 0].sort().values[len(queries) // 2 - 1 :][:2].mean().item()
    words = ["--query", "new", "--gallery", "shots", "--top", "3", "--ranking", ranking]
    env = environment(work / "cache")
    text = reid(env, work, "rank", "run", *words, "--unknown-above", f"{least:.9f}").stdout
    rows = table(text)
    known = [number for number, one in enumerate(found[:, 0].tolist()) if one >= least]
    assert 0 < len(known) < len(queries)
    assert len(rows) == 3 * len(known) + len(queries) - len(known)
    for number in range(len(queries)):
        lines = [row for row in rows if row["query"] == f"new/{number}.jpg"]
        shown = [float(row["probability"]) for row in lines]
        assert shown == pytest.approx(found[number, : len(lines)].tolist(), abs=1e-5)
        if number not in known:
            assert [row["gallery"] for row in lines] == ["unknown"] and lines[0]["rank"] == "1"
    asked = [*words, "--unknown-above", f"{least:.9f}", "--json"]
    lists = json.loads(reid(env, work, "rank", "run", *asked).stdout)
    assert [n for n, one in enumerate(lists) if not one["unknown"]] == known
    for one, chances in zip(lists, found.tolist(), strict=True):
        given = [match["probability"] for match in one["matches"]]
        assert given == pytest.approx(chances, abs=1e-5)
    refused = reid(env, work, "rank", "run", *words, "--unknown-above", "7", code=2).stderr
    assert "--unknown-above is a probability from 0 to 1, got 7" in refused


def test_a_gallery_is_indexed_once_and_asked_twice(work):
    """Each time in a process of its own, and without the gallery's pictures."""
    env = environment(work / "cache")
    shutil.copytree(work / "shots", work / "gone")
    rank = ["rank", "run", "--query", "new", "--ranking", "both"]
    direct = reid(env, work, *rank, "--gallery", "gone").stdout
    shown = reid(env, work, "index", "run", "gone", "-o", "gallery").stdout
    assert shown.startswith("wrote gallery: ") and "MiB of templates" in shown
    shutil.rmtree(work / "gone")
    for _ in range(2):
        assert reid(env, work, *rank, "--gallery", "gallery").stdout == direct
    assert len(table(direct)) == 10 * len(list((work / "new").iterdir()))


def test_python_and_evaluation_agree(work, run):
    """Distances and ranks of labelled pictures, made from paths, give the scores of the run."""
    from reidcore.data.manifest import read_manifest
    from reidcore.evaluation.metrics import rank_queries, summarize

    rows = read_manifest(next((work / "cache").rglob("manifest.csv")))
    sides = {side: [row for row in rows if row.split == side] for side in ("query", "gallery")}
    pid, camera = (
        [torch.tensor([int(getattr(row, key)) for row in sides[side]]) for side in sides]
        for key in ("pid", "camera")
    )
    match = pid[0][:, None] == pid[1]
    ignored = match & (camera[0][:, None] == camera[1])
    scores = json.loads((work / "run" / "scores.json").read_text())["demo"]
    assert list(scores) == list(run.rankings) == ["main", "both"]
    for ranking in run.rankings:
        distances = run.distances(sides["query"], sides["gallery"], ranking)
        found = summarize([rank_queries(distances, match, ignored)])
        assert found.map == pytest.approx(scores[ranking]["plain"]["mAP"], abs=1e-6)


def test_blocks_and_the_whole_give_the_same_list(run, work, monkeypatch):
    """However many queries are ranked at once."""
    query, gallery = run.templates(work / "new"), run.templates(work / "shots")
    whole = run.rank(query, gallery, top=5)
    monkeypatch.setattr("reidcore.search.search._BLOCK", 2 * len(gallery))
    parts = run.rank(query, gallery, top=5)
    assert torch.equal(whole.index, parts.index)
    torch.testing.assert_close(whole.distance, parts.distance)


def test_a_gallery_is_searched_again_with_what_is_known_of_it(work):
    """Re-ranked one by one, queries have the lists of a gallery of which nothing is known, whose
    neighbours are found once."""
    (work / "rerank.toml").write_text(
        'format = 1\n[[ranking]]\nname = "near"\nmatcher = "look"\npost = ["again"]\n'
        '[[post]]\nname = "again"\nuse = "core.rerank"\nk1 = 4\nk2 = 2\n'
    )
    run = reidcore.load(work / "run", work / "rerank.toml", device="cpu")
    gallery = run.templates(work / "shots")
    neighbours = []
    for path in sorted((work / "new").iterdir())[:3]:
        found = run.rank([path], gallery, 5)
        neighbours += [known for memo in gallery.memo.values() for known in memo.values()]
        expected = run.rank([path], run.templates(work / "shots"), 5)
        assert torch.equal(found.index, expected.index)
        assert torch.equal(found.distance, expected.distance)
    assert len(neighbours) == 3 and len(set(map(id, neighbours))) == 1


def test_a_query_does_not_find_itself(run, work):
    """A picture that is in the gallery too is left out of its own list, and of no other one."""
    every = run.templates(work / "shots")
    ranked = run.rank(every, every, top=len(every))
    assert all(match.query != match.gallery for match in ranked)
    assert (ranked.index >= 0).sum(1).tolist() == [len(every) - 1] * len(every)
    assert len(list(ranked)) == len(every) * (len(every) - 1)


def test_equal_distances_keep_the_gallerys_order():
    index, distance = smallest(torch.tensor([[0.5, 0.2, 0.5, 0.2], [1.0, 0.0, torch.inf, 2.0]]), 4)
    assert index.tolist() == [[1, 3, 0, 2], [1, 0, 3, -1]]
    assert distance[0].tolist() == pytest.approx([0.2, 0.2, 0.5, 0.5])


def test_lists_files_and_csv_are_pictures_too(run, work):
    """A list of paths, one file, and a CSV file whose only needed column is path."""
    paths = sorted((work / "new").iterdir())
    listed = run.templates(paths)
    assert listed.paths == [str(path) for path in paths]
    one = run.templates(paths[0])
    torch.testing.assert_close(one.parts["look"]["vector"][0], listed.parts["look"]["vector"][0])
    (work / "some.csv").write_text("camera,path\n3,new/1.jpg\n4,new/0.jpg\n")
    found = run.templates(work / "some.csv")
    assert [row.camera for row in found.rows] == ["3", "4"]
    torch.testing.assert_close(
        found.parts["look"]["vector"], listed.parts["look"]["vector"][[1, 0]]
    )
    with pytest.raises(DataError, match="there are no pictures"):
        run.templates([])


def test_templates_of_another_model_are_refused(run, work):
    """By Python as by the command: distances between two models' templates mean nothing."""
    env = environment(work / "cache")
    reid(
        env,
        work,
        "run",
        "tiny.toml",
        "--out",
        "other",
        "--set",
        "train.seed=5",
        "--set",
        "train.epochs=1",
    )
    other = reidcore.load(work / "other", device="cpu")
    with pytest.raises(UsageError, match=r"made by tiny \(\w{12}\), not by tiny"):
        run.rank(other.templates(work / "new"), work / "shots")
    reid(env, work, "index", "other", "shots", "-o", "theirs")
    failed = reid(env, work, "rank", "run", "--query", "new", "--gallery", "theirs", code=2)
    assert "theirs was indexed by tiny (" in failed.stderr
    assert "index its pictures again" in failed.stderr


def test_mistakes_are_told(work, tmp_path, monkeypatch, capsys):
    """A ranking that does not exist, top = 0, a folder without pictures, a file that is none."""
    monkeypatch.chdir(work)
    (work / "empty").mkdir()
    for words, code, says in (
        (["--ranking", "bth"], 2, "the run has no ranking 'bth', did you mean 'both'?"),
        (["--top", "0"], 2, "top must be at least 1, got 0"),
        (["--top", "0", "--query", "nowhere"], 2, "top must be"),  # before pictures are read
        (["-o", "no/out.csv"], 2, "no/out.csv: there is no folder"),
        (["-o", "empty"], 2, "empty is a folder; name a file"),
        (["--query", "empty"], 4, "no pictures under"),
        (["--query", "nowhere"], 4, "nowhere does not exist; expected a folder of pictures"),
    ):
        command = ["rank", "run", "--query", "new", "--gallery", "shots", *words]
        assert main(command) == code
        assert says in capsys.readouterr().err


def test_a_damaged_picture_leaves_no_index(work):
    """The file is named, and no half-made folder stays behind."""
    env = environment(work / "cache")
    shutil.copytree(work / "shots", work / "broken")
    (work / "broken" / "deep" / "zz.jpg").write_bytes(b"no JPEG")
    failed = reid(env, work, "index", "run", "broken", "-o", "half", code=4)
    assert "zz.jpg" in failed.stderr and "cannot be read" in failed.stderr
    assert not list(work.glob("*half*")) and not list(work.glob(".*half*"))
    (work / "half").mkdir()
    failed = reid(env, work, "index", "run", "shots", "-o", "half", code=2)
    assert "half exists already; name a new folder" in failed.stderr


def rows(count: int) -> tuple[Row, ...]:
    return tuple(Row(f"/pictures/{number}.jpg", "", camera="1") for number in range(count))


SPECS = {
    "one": {"odd": TensorSpec((3,), "uint8"), "wide": TensorSpec((2, 2), "float64")},
    "two": {"half": TensorSpec((5,), "bfloat16"), "map": TensorSpec((2, 3, 1))},
}


def values(start: int, stop: int) -> dict[str, dict[str, torch.Tensor]]:
    """Templates in which every number differs."""

    def tensor(spec: TensorSpec, shift: int) -> torch.Tensor:
        size = torch.Size(spec.shape).numel()
        numbers = torch.arange(start * size, stop * size) % 200 + shift
        return numbers.view(-1, *spec.shape).to(getattr(torch, spec.dtype))

    return {
        name: {key: tensor(spec, shift) for shift, (key, spec) in enumerate(keys.items())}
        for name, keys in SPECS.items()
    }


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_an_index_holds_what_was_written(tmp_path, batch: int):
    """In batches of any size, with any mixture of number formats, as plain safetensors."""
    with write_index(tmp_path / "index", rows(7), "me (1)", "run") as partial:
        writer = TemplateWriter(partial, SPECS, 7)
        for start in range(0, 7, batch):
            writer.add(values(start, min(start + batch, 7)))
        writer.close()
    found, parts, made_by = read_index(tmp_path / "index")
    assert ([row.path for row in found], made_by) == ([row.path for row in rows(7)], "me (1)")
    assert [row.camera for row in found] == ["1"] * 7
    file = load_file(tmp_path / "index" / TEMPLATES)
    for name, keys in values(0, 7).items():
        for key, expected in keys.items():
            assert torch.equal(parts[name][key], expected)
            assert torch.equal(file[f"{name}.{key}"], expected)


def test_templates_unlike_their_declaration_are_refused(tmp_path):
    with write_index(tmp_path / "index", rows(2), "me", "run") as partial:
        writer = TemplateWriter(partial, {"m": {"v": TensorSpec((4,))}}, 2)
        with pytest.raises(PluginError, match=r"matcher 'm': template 'v' is torch\.float64"):
            writer.add({"m": {"v": torch.zeros(2, 4, dtype=torch.float64)}})
        with pytest.raises(DataError, match="0 of 2 pictures have templates"):
            writer.close()


@pytest.fixture
def index(tmp_path) -> Path:
    with write_index(tmp_path / "index", rows(3), "me", "run") as partial:
        writer = TemplateWriter(partial, {"m": {"v": TensorSpec((4,))}}, 3)
        writer.add({"m": {"v": torch.rand(3, 4)}})
        writer.close()
    return tmp_path / "index"


def test_damaged_indexes_are_refused(index):
    """A cut file, a missing one, other counts, a newer layout: each is said, none is a
    traceback."""
    whole = (index / TEMPLATES).read_bytes()
    (index / TEMPLATES).write_bytes(whole[:-3])
    with pytest.raises(DataError, match=r"templates\.safetensors is damaged"):
        read_index(index)
    (index / TEMPLATES).unlink()
    with pytest.raises(DataError, match=r"templates\.safetensors is missing"):
        read_index(index)
    (index / TEMPLATES).write_bytes(whole)
    manifest = (index / "manifest.csv").read_text()
    (index / "manifest.csv").write_text(manifest.rsplit("\n", 2)[0] + "\n")
    with pytest.raises(DataError, match="differ in number of pictures"):
        read_index(index)
    (index / "manifest.csv").write_text(manifest)
    content = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps({**content, "layout": 2}))
    with pytest.raises(UsageError, match="has layout 2, and this core reads layout 1"):
        read_index(index)
    (index / "index.json").write_text("[]")
    with pytest.raises(DataError, match=r"index.json is damaged"):
        read_index(index)
