"""Probabilities that are fitted on a user's own pairs."""

from __future__ import annotations

import csv
import json
from itertools import combinations

import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")

import torch
from gallery_runs import write_csv

from reid_gallery import Gallery
from reidcore.cli.main import main
from reidcore.errors import DataError
from reidcore.model.training_pairs import Pairs
from reidcore.ranking.scales import fit


@pytest.fixture(scope="module")
def gallery(work, trained):
    made = Gallery.create(work / "run", work / "calibrated", device="cpu")
    made._search = trained
    made.add(work / "gallery.csv")
    return made


def read(path):
    with open(path, newline="") as file:
        return [*csv.DictReader(file)]


def as_pairs(rows):
    """What a user might write of some pictures: each two of them, and whether they are one."""
    return [
        {"first": a["path"], "second": b["path"], "same": str(int(a["pid"] == b["pid"]))}
        for a, b in combinations(rows, 2)
        if a["pid"] != b["pid"] or a["camera"] != b["camera"]
    ]


@pytest.fixture(scope="module")
def files(work):
    """The same pairs, as labelled pictures and as pairs."""
    rows = read(work / "people.csv")[:24]
    write_csv(work / "labelled.csv", rows)
    write_csv(work / "pairs.csv", as_pairs(rows))
    return work / "labelled.csv", work / "pairs.csv"


def probabilities(answers):
    return torch.tensor([[match.probability for match in one.matches] for one in answers])


def distances(answers):
    return torch.tensor([[match.distance for match in one.matches] for one in answers])


@pytest.mark.parametrize("form", [0, 1])
def test_the_sigmoid_of_the_users_pairs(work, trained, gallery, files, form):
    """A match's probability is that of the sigmoid which is fitted on the distances of the pairs;
    both forms of the file mean the same ones."""
    before = gallery.search(work / "query.csv", top=5, ranking="plain")
    rows = read(files[0])
    paths = [work / row["path"] for row in rows]
    whole = trained.distances(paths, paths, "plain")
    sides = {True: [], False: []}
    for (at, a), (other, b) in combinations(enumerate(rows), 2):
        if a["pid"] != b["pid"] or a["camera"] != b["camera"]:
            sides[a["pid"] == b["pid"]].append(whole[at, other])
    strangers = fit("logistic", Pairs(*(torch.stack(sides[kind]) for kind in (True, False))))
    try:
        gallery.calibrate(files[form])
        after = gallery.search(work / "query.csv", top=5, ranking="plain")
    finally:
        gallery._judge = None
    assert torch.equal(distances(before), distances(after))
    expected = 1 - strangers(distances(after))
    torch.testing.assert_close(probabilities(after), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(probabilities(after), probabilities(before), atol=1e-3)


@pytest.mark.parametrize("ranking", ["fused", "short", "again"])
def test_orders_and_distances_stay(work, gallery, files, ranking):
    """Also where the ranking's own scale is fitted on training pairs."""
    before = gallery.search(work / "query.csv", top=5, ranking=ranking)
    try:
        gallery.calibrate(files[1])
        after = gallery.search(work / "query.csv", top=5, ranking=ranking)
    finally:
        gallery._judge = None
    assert torch.equal(distances(before), distances(after))
    assert [[m.id for m in one.matches] for one in before] == [
        [m.id for m in one.matches] for one in after
    ]
    assert not torch.equal(probabilities(after), probabilities(before))


def test_a_run_without_training_pairs_gets_some(work, trained, gallery, files, monkeypatch):
    monkeypatch.setattr(trained.model, "pairs", {})
    try:
        gallery.calibrate(files[1])
        (answer, *_) = gallery.search(work / "query.csv", top=2, unknown_above=0.5)
    finally:
        gallery._judge = None
    assert all(0 <= match.probability <= 1 for match in answer.matches)
    assert trained.model.pairs == {}


def test_by_the_command(work, gallery, files, capsys):
    query, place = str(work / "query.csv"), str(gallery.place)
    common = ["gallery", "search", place, query, "--top", "1", "--json", "--device", "cpu"]
    assert main([*common, "--calibrate", str(files[0])]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(common) == 0
    plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for one, other in zip(found, plain, strict=True):
        (own,), (usual,) = one["matches"], other["matches"]
        assert own["distance"] == usual["distance"] and own["probability"] != usual["probability"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read as a CSV file of pairs: .*No such file"),
        ("", "has the columns ; expected first, second, same"),
        ("a,b\n", "has the columns a, b; expected first, second, same"),
        ("first,second,sam\n", "lacks the column 'same', did you mean 'sam'"),
        ("first,second,same\na.jpg,b.jpg,yes\n", "row 2: same is 'yes', expected 1"),
        ("first,second,same\na.jpg,b.jpg\n", "row 2: 2 cells, expected 3"),
        ("first,second,same\na.jpg,b.jpg,1\n", "has no pair of two identities"),
        ("first,second,same\na.jpg,b.jpg,0\n", "has no pair of one identity"),
        ("first,second,same\na.jpg,b.jpg,0\na.jpg,c.jpg,1\n", "a.jpg"),
        ("path,identity\na.jpg,Ann\nb.jpg,\n", "has no pair of one identity"),
    ],
)
def test_what_is_no_file_of_pairs(gallery, tmp_path, text, message):
    """Each mistake is told with the file, and nothing is calibrated."""
    file = tmp_path / "pairs.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=message):
        gallery.calibrate(file)
    assert gallery._judge is None


def test_many_pairs_are_drawn_from(tmp_path, monkeypatch):
    """Of each kind as many as are compared, of pictures that are then the only ones."""
    from reid_gallery.labelled import Labelled

    monkeypatch.setattr("reid_gallery.labelled.MOST", 5)
    lines = [f"a{n}.jpg,b{n}.jpg,{int(n % 3 == 0)}" for n in range(90)]
    (tmp_path / "pairs.csv").write_text("\n".join(["first,second,same", *lines]))
    found = Labelled.read(tmp_path / "pairs.csv")
    assert found.same.sum() == (~found.same).sum() == 5 and len(found.rows) == 20
    for (first, second), same in zip(found.pairs.T, found.same, strict=True):
        one, other = (found.rows[at].path.rpartition("/")[2] for at in (first, second))
        assert one[1:] == other[1:] and (int(one[1:-4]) % 3 == 0) == same
