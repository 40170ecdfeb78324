"""What is added, labelled, removed, forgotten, compacted, exported and extracted anew."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from zipfile import ZipFile

import pytest
from disks import files_of
from gallery_runs import other_run, write_csv

pytest.importorskip("lance", reason="needs `uv run --all-groups`")

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet

import reidcore
from reid_gallery import Gallery
from reid_gallery.exporting import export
from reid_gallery.filters import Filter
from reidcore.cli.main import main
from reidcore.errors import DataError, OutputError, ReidError, UsageError


@pytest.fixture
def gallery(work, trained, tmp_path):
    """A gallery of a copy of the gallery's pictures, which tests may damage."""
    shutil.copytree(work / "drawn", tmp_path / "drawn")
    for name in ("people.csv", "query.csv", "gallery.csv"):
        shutil.copy(work / name, tmp_path / name)
    made = Gallery.create(work / "run", tmp_path / "g", device="cpu")
    made._search = trained
    made.add(tmp_path / "gallery.csv")
    return made


def table(gallery, name="pictures.lance"):
    return lance.dataset(gallery.tables.uri(name)).to_table()


def sources(gallery):
    return sorted(table(gallery).column("source").to_pylist())


def holding(gallery, content: bytes) -> list[str]:
    """The files of a gallery that hold some bytes."""
    files = [path for path in Path(gallery.place).rglob("*") if path.is_file()]
    return [path.name for path in files if content in path.read_bytes()]


def test_adding_is_idempotent(gallery, tmp_path):
    """The same pictures are skipped, be they named by a folder or a file; new ones come in."""
    before = sources(gallery)
    again = gallery.add(tmp_path / "gallery.csv")
    assert (again.added, again.skipped) == (0, len(before)) and sources(gallery) == before
    folder = gallery.add(tmp_path / "drawn")
    assert folder.skipped == len(before) and folder.added > 0
    assert len(set(sources(gallery))) == len(gallery) == folder.added + folder.skipped
    twice = gallery.add([before[0], before[0]])
    assert (twice.added, twice.skipped) == (0, 1)


def test_damaged_pictures_are_told_and_left_out(work, trained, tmp_path):
    made = Gallery.create(work / "run", tmp_path / "g", device="cpu")
    made._search = trained
    good = sorted((work / "drawn" / "gallery").glob("*.jpg"))[:5]
    cut, empty = tmp_path / "cut.jpg", tmp_path / "empty.jpg"
    cut.write_bytes(good[0].read_bytes()[:300])
    empty.write_bytes(b"")
    absent = tmp_path / "absent.jpg"
    done = made.add([good[0], cut, good[1], empty, absent, *good[2:]])
    assert (done.added, done.skipped) == (5, 0)
    assert [name for name, _ in done.damaged] == [str(cut), str(empty), str(absent)]
    assert all(name in why for name, why in done.damaged)
    vectors = table(made).column("look__vector").combine_chunks().flatten().to_numpy()
    own = trained.templates(good).parts["look"]["vector"]
    own = (own / own.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(vectors.reshape(5, -1), own, atol=1e-6)
    assert made.add([cut]).damaged and len(made) == 5


def test_a_path_that_is_not_unicode(gallery, tmp_path):
    """Such a picture, though it can be read, is told and left out; the others come in."""
    pictures = sorted((tmp_path / "drawn" / "query").glob("*.jpg"))[:2]
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    odd = shutil.copy(pictures[0], folder)
    before = len(gallery)
    done = gallery.add([odd, pictures[1]])
    assert (done.added, done.skipped, len(gallery)) == (1, 0, before + 1)
    ((name, why),) = done.damaged
    assert name == str(odd) and why.startswith("its path is not Unicode")
    assert len(gallery.add(folder).damaged) == 1 and len(gallery) == before + 1


def test_columns_of_the_user(gallery, tmp_path):
    """They keep their types; new ones are empty in earlier rows; a cell of another type is told
    with its row, and nothing of that file is added."""
    schema = lance.dataset(gallery.tables.uri("pictures.lance")).schema
    assert [schema.field(name).type for name in ("speed", "note")] == [pa.int64(), pa.string()]
    with open(tmp_path / "query.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    for place, one in enumerate(cells):
        one["weight"] = str(place / 2)
    write_csv(tmp_path / "more.csv", cells)
    before = len(gallery)
    gallery.add(tmp_path / "more.csv")
    found = table(gallery)
    assert found.column("weight").null_count == before
    assert found.column("weight").type == pa.float64()
    bad = [dict(cells[0], path=str(tmp_path / "new.jpg"), speed="fast")]
    shutil.copy(tmp_path / cells[0]["path"], tmp_path / "new.jpg")
    write_csv(tmp_path / "bad.csv", bad)
    with pytest.raises(DataError, match=r"bad\.csv row 2: speed is 'fast', expected a whole"):
        gallery.add(tmp_path / "bad.csv")
    write_csv(tmp_path / "bad.csv", [dict(bad[0], speed="03")])
    with pytest.raises(DataError, match=r"speed is '03', expected a whole number such as 42"):
        gallery.add(tmp_path / "bad.csv")
    assert len(gallery) == len(found)


@pytest.mark.parametrize(
    ("cells", "kept"),
    [
        (["0042", "17"], ["0042", "17"]),
        (["12_34", "1"], ["12_34", "1"]),
        (["1e5", "12"], ["1e5", "12"]),
        (["+491", "5"], ["+491", "5"]),
        (["00.5", "1.5"], ["00.5", "1.5"]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
        (["12345678901234567890", "1.5"], ["12345678901234567890", "1.5"]),
        (["\u0661", "2"], ["\u0661", "2"]),
        (["nan", "1"], ["nan", "1"]),
        (["-7", "0"], [-7, 0]),
        (["9223372036854775807", ""], [2**63 - 1, None]),
        (["1.50", "-0.25"], [1.5, -0.25]),
        (["1e-7", "2.5E+20"], [1e-7, 2.5e20]),
        (["3", ".5"], [3.0, 0.5]),
    ],
)
def test_cells_are_kept_as_they_are(gallery, tmp_path, cells, kept):
    """A column counts as numbers only where no cell loses anything by it."""
    paths = sorted((tmp_path / "drawn" / "query").glob("*.jpg"))[:2]
    both = zip(paths, cells, strict=True)
    write_csv(tmp_path / "new.csv", [{"path": str(one), "code": cell} for one, cell in both])
    assert gallery.add(tmp_path / "new.csv").added == 2
    found = {row["source"]: row["code"] for row in table(gallery).to_pylist()}
    assert [found[str(path)] for path in paths] == kept


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("id", "the column 'id' has the name of one of the gallery's own"),
        ("look__vector", "the name of one of the gallery's own"),
        ("distance", "or of what a search answers"),
        ("rank", "or of what a search answers"),
        ("columns", "or of what a search answers"),
        ("_rowid", "or begins with _; rename it"),
        ("a.b", "the column 'a.b' cannot be asked for in SQL"),
    ],
)
def test_names_that_no_column_can_have(gallery, tmp_path, name, message):
    write_csv(tmp_path / "odd.csv", [{"path": "a.jpg", name: "1"}])
    with pytest.raises(DataError) as refused:
        gallery.add(tmp_path / "odd.csv")
    assert message in str(refused.value)


def test_labels(gallery, tmp_path):
    """By condition, by pictures and by each one's own cell; nothing else of a row changes."""
    before = {row["id"]: row for row in table(gallery).to_pylist()}
    assert gallery.label("Ann's", where="speed = 3") == sum(
        r["speed"] == 3 for r in before.values()
    )
    one = next(iter(before.values()))
    assert gallery.label("Bob", [one["source"], str(tmp_path / "nobody.jpg")]) == 1
    write_csv(
        tmp_path / "names.csv",
        [
            {"path": row["source"], "identity": f"p{row['id']}", "tracklet": "t"}
            for row in list(before.values())[1:4]
        ],
    )
    assert gallery.label(pictures=tmp_path / "names.csv") == 3
    own = {row["id"] for row in list(before.values())[1:4]}
    after = {row["id"]: row for row in table(gallery).to_pylist()}
    assert set(after) == set(before)
    for number, row in after.items():
        wanted = dict(before[number])
        if number in own:
            wanted |= {"identity": f"p{number}", "tracklet": "t"}
        elif number == one["id"]:
            wanted["identity"] = "Bob"
        elif row["speed"] == 3:
            wanted["identity"] = "Ann's"
        assert row == wanted
    assert gallery.label("", where="speed = 3 OR identity = 'Bob'") > 0
    assert table(gallery).column("identity").null_count > 0
    with pytest.raises(UsageError, match="name the rows"):
        gallery.label("Eve")
    with pytest.raises(UsageError, match="have no identity"):
        gallery.label(pictures=[one["source"]])


def test_what_is_removed_is_not_found(gallery, tmp_path):
    """Neither its row nor its maps are there, and the rest is."""
    gone = [row["source"] for row in table(gallery).to_pylist() if row["speed"] == 2]
    before = sources(gallery)
    assert gallery.remove(where="speed = 2") == len(gone) > 0
    assert sources(gallery) == [one for one in before if one not in gone]
    assert len(table(gallery, "maps.lance")) == len(gallery)
    found = gallery.search(tmp_path / "query.csv", top=99, ranking="short")
    assert not set(gone) & {match.source for answer in found for match in answer.matches}
    with pytest.raises(UsageError, match="name the rows"):
        gallery.remove()
    assert gallery.remove(pictures=gone) == 0
    assert gallery.add(gone).added == len(gone) and len(gallery) == len(before)


def test_what_is_forgotten_is_gone_from_disk(gallery, tmp_path):
    """No file holds its path, its note or its vectors, though versions, labels, an uncommitted file
    and an upgrade had copies; the rest stays."""
    rows = table(gallery).to_pylist()
    row = rows[3]
    gallery.label("Zachariah", [row["source"]])
    maps = {m["id"]: m["pairs__map"] for m in table(gallery, "maps.lance").to_pylist()}
    traces = {
        "source": Path(row["source"]).name.encode(),
        "note": row["note"].encode(),
        "identity": b"Zachariah",
        "vector": np.array(row["look__vector"], np.float32).tobytes(),
        "map": np.array(maps[row["id"]][:512], np.float32).tobytes(),
    }
    # What a program that was killed before its commit, and an upgrade, leave behind.
    whole = lance.dataset(gallery.tables.uri("pictures.lance"))
    gallery.tables.write("pictures.lance", whole.to_table(filter=f"id = {row['id']}"))
    shutil.copytree(f"{gallery.place}/pictures.lance", f"{gallery.place}/upgrade-ab.lance")
    gallery.remove(where="speed = 6")
    for name, content in traces.items():
        assert holding(gallery, content), name
    assert gallery.forget(identity="Zachariah") == 1
    for name, content in traces.items():
        assert holding(gallery, content) == [], name
    kept = {row["id"]: row for row in table(gallery).to_pylist()}
    expected = {r["id"]: r for r in rows if r["speed"] != 6 and r["id"] != row["id"]}
    assert kept == expected
    assert set(table(gallery, "maps.lance").column("id").to_pylist()) == set(kept)
    assert gallery.search(tmp_path / "query.csv", ranking="short")[0].matches


def test_forgetting_by_time(gallery):
    """Everything before a moment; and where nothing meets the condition, what was removed earlier
    still goes."""
    gone = [row["note"].encode() for row in table(gallery).to_pylist() if row["time"] < 400]
    assert gallery.remove(before=400) == len(gone) > 0
    assert any(holding(gallery, note) for note in gone)
    assert gallery.forget(before="400") == 0
    assert not any(holding(gallery, note) for note in gone) and len(gallery) > 0


@pytest.mark.parametrize(
    "where",
    [
        "camera = '1') OR (camera = '2'",
        "camera = '1') OR (true",
        "/* ( */ true) OR (true /* ) */",
        " true -- (\n) OR (true -- )\n",
    ],
)
def test_no_condition_reaches_beyond_the_others(gallery, where):
    """Neither the identity to be forgotten, nor a camera or pictures to be removed."""
    before = sources(gallery)
    for change in (
        lambda: gallery.forget(where=where, identity="nobody"),
        lambda: gallery.forget(where=where, camera="nowhere"),
        lambda: gallery.remove(before[:1], where=where),
        lambda: gallery.label("Ann", before[:1], where=where),
    ):
        with pytest.raises(UsageError, match=r"quotes do not match|without comments"):
            change()
    assert sources(gallery) == before


def test_a_zips_pictures_have_one_key(gallery, work, tmp_path, monkeypatch):
    """By whatever link the zip is named; and what was added when links were not followed there is
    found by the path that it was added by."""
    (tmp_path / "real").mkdir()
    with ZipFile(tmp_path / "real" / "f.zip", "w") as archive:
        for path in sorted((tmp_path / "drawn" / "query").glob("*.jpg"))[:3]:
            archive.write(path, path.name)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    linked, real = tmp_path / "link" / "f.zip", tmp_path / "real" / "f.zip"
    before = len(gallery)
    assert gallery.add(linked).added == 3
    again = gallery.add(real)
    assert (again.added, again.skipped) == (0, 3)
    for answer in gallery.search(real, top=1):
        assert Path(answer.matches[0].source).name != Path(answer.query).name
    assert gallery.remove(real) == 3 and len(gallery) == before
    with monkeypatch.context() as patch:
        patch.setattr("reid_gallery.rows.has_path", lambda row: row.opener is None)
        assert (gallery.add(linked).added, gallery.add(real).added) == (3, 3)
    assert gallery.add(linked).skipped == 3
    assert gallery.label("Ann", linked) == 6
    assert gallery.forget(linked) == 6 and len(gallery) == before


@pytest.mark.parametrize("where", ["id / 0 = 1", "regexp_match(note, '(')", "? = 1"])
def test_a_condition_that_fails_is_the_users_fault(gallery, tmp_path, where):
    """Whatever is asked, and whether Lance says so before it reads or while it does; nothing is
    changed."""
    before = table(gallery)
    for change in (
        lambda: gallery.forget(where=where, identity=before.column("identity")[0].as_py()),
        lambda: gallery.remove(where=where),
        lambda: gallery.label("Ann", where=where),
        lambda: gallery.export(tmp_path / "some.csv", where=where),
        lambda: gallery.search(tmp_path / "query.csv", where=where),
        lambda: gallery.search(tmp_path / "query.csv", where=where, camera="1"),
    ):
        with pytest.raises(UsageError, match=r"--where .* (cannot be told of|has something)"):
            change()
    assert table(gallery) == before and not (tmp_path / "some.csv").exists()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, int])
def test_times_of_numpy(gallery, kind):
    expected = sum(row["time"] < 400 for row in table(gallery).to_pylist())
    assert gallery.label("early", before=kind(400)) == expected > 0


def test_forgetting_by_identity_and_condition(gallery):
    """Both are to be met, also where the condition is an OR, and where texts look like comments."""
    rows = table(gallery).to_pylist()
    name = rows[0]["identity"]
    gone = [r["id"] for r in rows if r["identity"] == name and r["camera"] in ("1", "2")]
    where = "camera = '1' OR camera = '2' OR note = '-- /* (' "
    assert gallery.forget(where=where, identity=name) == len(gone) > 0
    left = set(table(gallery).column("id").to_pylist())
    assert left == {row["id"] for row in rows} - set(gone)


def test_fragments_are_merged(gallery, tmp_path, monkeypatch):
    """By `compact`, and by adding when there are many; rows and their order stay."""
    rest = [str(path) for path in sorted((tmp_path / "drawn" / "query").glob("*.jpg"))]
    for one in rest[:4]:
        gallery.add([one])
    assert gallery.info()["fragments"] == 5
    before = table(gallery).column("id").to_pylist()
    maps = table(gallery, "maps.lance").to_pylist()
    gallery.compact()
    assert gallery.info()["fragments"] == gallery.info()["map_fragments"] == 1
    assert table(gallery).column("id").to_pylist() == before == sorted(before)
    assert table(gallery, "maps.lance").to_pylist() == maps
    monkeypatch.setattr("reid_gallery.keeping.FEW", 2)
    for one in rest[4:7]:
        gallery.add([one])
    assert gallery.info()["fragments"] <= 2


def test_labels_and_removals_pile_nothing_up(gallery, monkeypatch):
    """A program that labels or removes a picture at a time leaves few fragments and few versions,
    though nobody adds or compacts."""
    monkeypatch.setattr("reid_gallery.keeping.FEW", 2)
    monkeypatch.setattr("reid_gallery.keeping.VERSIONS", 4)
    monkeypatch.setattr("reid_gallery.keeping.PAST", timedelta(0))
    kept = sources(gallery)
    for number, one in enumerate(kept[:9]):
        assert gallery.label(f"p{number}", [one]) == 1
        assert gallery.info()["fragments"] <= 3
    names = {row["source"]: row["identity"] for row in table(gallery).to_pylist()}
    assert [names[one] for one in kept[:9]] == [f"p{number}" for number in range(9)]
    for one in kept[:9]:
        assert gallery.remove([one]) == 1
    assert sources(gallery) == kept[9:] and gallery.info()["versions"] < 9


def test_export_and_back(gallery, trained, work, tmp_path):
    """A CSV file makes the same rows in another gallery; Parquet has the types and vectors."""
    gallery.label("Ann", where="speed = 1")
    count = gallery.export(tmp_path / "all.csv")
    assert count == len(gallery)
    other = Gallery.create(work / "run", tmp_path / "other", device="cpu")
    other._search = trained
    assert other.add(tmp_path / "all.csv").added == count
    own = ("id", "added")
    rows, copies = (
        sorted(
            ({k: v for k, v in row.items() if k not in own} for row in table(one).to_pylist()),
            key=lambda row: row["source"],
        )
        for one in (gallery, other)
    )
    assert rows == copies
    assert gallery.export(tmp_path / "some.parquet", where="speed = 1", vectors=True) > 0
    found = pa.parquet.read_table(tmp_path / "some.parquet")
    assert set(found.column("identity").to_pylist()) == {"Ann"}
    assert found.column("time").type == pa.float64() and "look__vector" in found.column_names
    for name, message in (("a.txt", "exported as .csv or .parquet"), ("no/a.csv", "no folder")):
        with pytest.raises(UsageError, match=message):
            gallery.export(tmp_path / name)
    with pytest.raises(UsageError, match="holds no vectors"):
        gallery.export(tmp_path / "a.csv", vectors=True)


def test_an_upgrade_where_links_have_changed(work, gallery, tmp_path):
    """Two rows that lead to one file by now stay two rows."""
    first, second = map(Path, sources(gallery)[:2])
    second.unlink()
    second.symlink_to(first)
    before = table(gallery)
    assert gallery.upgrade(other_run(work, tmp_path / "new-run")) == len(before)
    assert table(gallery).column("id") == before.column("id")


def test_another_run_is_refused_and_an_upgrade_extracts_anew(work, gallery, tmp_path):
    """After it, everything is as if the pictures had been added by the new run, and what was known
    of them stays."""
    new = other_run(work, tmp_path / "new-run")
    other = Gallery.open(gallery.place, new, device="cpu")
    for call in (
        lambda: other.search(tmp_path / "query.csv"),
        lambda: other.add(tmp_path / "drawn"),
    ):
        with pytest.raises(UsageError, match="templates cannot be compared"):
            call()
    gallery.label("Ann", where="speed = 1")
    before = table(gallery).to_pylist()
    assert gallery.upgrade(new) == len(before)
    after = table(gallery).to_pylist()
    vectors = {column.name for column in gallery.origin.columns}
    assert [{k: v for k, v in row.items() if k not in vectors} for row in after] == [
        {k: v for k, v in row.items() if k not in vectors} for row in before
    ]
    fresh = Gallery.create(new, tmp_path / "fresh", device="cpu")
    fresh.add(tmp_path / "gallery.csv")
    for ranking in ("plain", "short"):
        a, b = (
            one.search(tmp_path / "query.csv", ranking=ranking, top=5) for one in (gallery, fresh)
        )
        for one, two in zip(a, b, strict=True):
            assert [m.source for m in one.matches] == [m.source for m in two.matches]
            assert [m.distance for m in one.matches] == [m.distance for m in two.matches]
    names = sorted(path.name for path in Path(gallery.place).glob("*.lance"))
    assert names == sorted(["pictures.lance", gallery.origin.maps])
    with pytest.raises(UsageError, match="already"):
        gallery.upgrade(new)
    reopened = Gallery.open(gallery.place, device="cpu")
    assert reopened.origin == gallery.origin and reopened.add(tmp_path / "drawn").added


class Slow:
    """A table; while it is read, something else is done."""

    def __init__(self, dataset, act):
        self.dataset, self.act = dataset, act

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def to_batches(self, **asked):
        self.act()
        yield from self.dataset.to_batches(**asked)


@pytest.mark.parametrize("name", ["all.csv", "all.parquet"])
def test_exports_to_one_file_at_once(gallery, tmp_path, name):
    """Each is whole, and the last one stays; what a killed one has left goes."""
    out = tmp_path / "out"
    out.mkdir()
    (out / f".{name}.0123abcd.tmp").touch()
    (out / name).symlink_to(tmp_path / f"linked-{name}")
    dataset = gallery.tables.open()
    rows, some = Filter.of(), Filter.of(where="speed = 1")
    few = dataset.count_rows("speed = 1")

    def second():
        assert export(dataset, gallery.origin, out / name, some) == few
        assert len(entries(out / name)) == few

    def entries(file):
        if name.endswith(".csv"):
            return file.read_text().splitlines()[1:]
        return pa.parquet.read_table(file).to_pylist()

    assert export(Slow(dataset, second), gallery.origin, out / name, rows) == len(gallery)
    assert len(entries(out / name)) == len(gallery) > few
    assert [path.name for path in out.iterdir()] == [name] and (out / name).is_symlink()


def test_an_export_that_finds_no_room(gallery, tmp_path):
    """It is told with the file's name, and the old one stays."""
    file = tmp_path / "all.csv"
    file.write_text("old")
    with files_of(100), pytest.raises(OutputError, match=f"cannot write {file}: File too large"):
        gallery.export(file)
    assert file.read_text() == "old" and not list(tmp_path.glob(".*.tmp"))


class Noting:
    """Notes what an upgrade tells, and does something once, amid some picture."""

    def __init__(self, act, at=1):
        self.said, self.act, self.at = [], act, at

    def working(self, text):
        self.said.append(text)
        if len(self.said) == self.at:
            self.act()

    @property
    def totals(self):
        return {int(text.split()[2]) for text in self.said}


def traces_of(gallery, new, tmp_path):
    """The first row, and what the files of an upgrade to another run hold of it."""
    first = table(gallery).sort_by("id").to_pylist()[0]
    fresh = Gallery.create(new, tmp_path / "fresh", device="cpu")
    fresh.add(tmp_path / "gallery.csv")
    (own,) = [row for row in table(fresh).to_pylist() if row["source"] == first["source"]]
    (map,) = [r for r in table(fresh, "maps.lance").to_pylist() if r["id"] == own["id"]]
    return first["source"], {
        "source": Path(first["source"]).name.encode(),
        "vector": np.array(own["look__vector"], np.float32).tobytes(),
        "map": np.array(map["pairs__map"][:512], np.float32).tobytes(),
    }


def test_a_killed_upgrade_keeps_what_it_made_but_of_the_forgotten(
    work, gallery, tmp_path, monkeypatch
):
    """What was broken off sooner, or is nobody's, goes altogether."""
    monkeypatch.setattr("reid_gallery.upgrading.SHARD", 8)
    new = other_run(work, tmp_path / "new-run")
    source, traces = traces_of(gallery, new, tmp_path)
    count = len(gallery)

    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.upgrade(new, reporter=Noting(die, at=2))
    assert all(holding(gallery, content) for content in traces.values())
    shutil.copytree(f"{gallery.place}/maps.lance", f"{gallery.place}/maps-ab.lance")
    (Path(gallery.place) / "upgrade-ab.lance" / "data").mkdir(parents=True)
    assert gallery.forget([source]) == 1
    assert {name: holding(gallery, content) for name, content in traces.items()} == {
        name: [] for name in traces
    }
    assert not list(Path(gallery.place).glob("*-ab.lance"))
    noted = Noting(lambda: None)
    assert gallery.upgrade(new, reporter=noted) == count - 1
    assert noted.totals == {count - 8}
    assert gallery.search(tmp_path / "query.csv", ranking="short")[0].matches


def test_forgetting_amid_an_upgrade(work, gallery, tmp_path, monkeypatch):
    """The upgrade goes on, and nothing is left of who was forgotten."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr("reid_gallery.upgrading.SHARD", 8)
    new = other_run(work, tmp_path / "new-run")
    source, traces = traces_of(gallery, new, tmp_path)
    count = len(gallery)
    other = Gallery.open(gallery.place, device="cpu")
    with ThreadPoolExecutor(1) as pool:
        asked = []

        def forget():
            asked.append(pool.submit(other.forget, [source]))
            with open(Path(gallery.place) / "gate.lock", "a") as gate:
                while True:  # until it waits for this shard's end
                    try:
                        fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        break
                    fcntl.flock(gate, fcntl.LOCK_UN)
                    time.sleep(0.01)

        noted = Noting(forget)
        assert gallery.upgrade(new, reporter=noted) == count - 1
        assert asked[0].result() == 1
    assert noted.totals == {count}
    assert not any(holding(gallery, content) for content in traces.values())
    assert source not in sources(gallery)


def test_an_upgrade_without_all_sources(work, gallery, tmp_path):
    """It stops with the gallery as it was, unless the pictures are given up."""
    new = other_run(work, tmp_path / "new-run")
    stale = Gallery.open(gallery.place, device="cpu")
    before = table(gallery)
    lost = Path(sources(gallery)[0])
    lost.unlink()
    with pytest.raises(DataError, match=r"1 pictures .* cannot be extracted anew") as refused:
        gallery.upgrade(new)
    assert lost.name in str(refused.value) and table(gallery).equals(before)
    assert gallery.upgrade(new, drop_missing=True) == len(before) - 1
    assert str(lost) not in sources(gallery)
    stale._search = reidcore.load(work / "run", device="cpu")
    for call in (
        lambda: stale.search(tmp_path / "query.csv"),
        lambda: stale.add(tmp_path / "drawn"),
        lambda: stale.remove(where="speed = 1"),
    ):
        with pytest.raises(DataError, match="upgraded to another run meanwhile"):
            call()


def test_a_table_of_another_program(tmp_path):
    """It is told, not read; so are a newer layout and a place without a gallery."""
    lance.write_dataset(pa.table({"v": [1, 2]}), str(tmp_path / "pictures.lance"))
    with pytest.raises(DataError, match="did not write"):
        Gallery.open(tmp_path)
    with pytest.raises(DataError, match="there is no gallery at"):
        Gallery.open(tmp_path / "nowhere")


def test_creating_twice_and_a_newer_layout(work, gallery):
    with pytest.raises(UsageError, match="there is a gallery"):
        Gallery.create(work / "run", gallery.place)
    dataset = lance.dataset(gallery.tables.uri("pictures.lance"))
    origin = json.loads(dataset.schema.metadata[b"reid_gallery"])
    dataset.update_schema_metadata({"reid_gallery": json.dumps(origin | {"layout": 2})})
    with pytest.raises(UsageError, match="layout 2, and this program reads layout 1"):
        Gallery.open(gallery.place)
    dataset.update_schema_metadata({"reid_gallery": "{"})
    with pytest.raises(DataError, match="is damaged"):
        Gallery.open(gallery.place)


def test_vectors_that_are_not_finite(gallery, tmp_path, monkeypatch):
    """Nothing of them is stored."""
    import torch

    before = len(gallery)
    matcher = gallery.search_run.model.matchers["far"]
    monkeypatch.setattr(
        matcher, "template", lambda features: {"vector": features["neck.bn"] * torch.nan}
    )
    with pytest.raises(ReidError, match="is not finite"):
        gallery.add(tmp_path / "query.csv")
    assert len(gallery) == before


def test_vectors_beyond_half_precision(work, trained, tmp_path, monkeypatch):
    """They are told with what would fit."""
    half = Gallery.create(work / "run", tmp_path / "h", "float16", device="cpu")
    half._search = trained
    matcher = trained.model.matchers["far"]
    monkeypatch.setattr(matcher, "template", lambda features: {"vector": features["neck.bn"] * 1e9})
    with pytest.raises(ReidError, match=r"not finite as float16.*--precision float32"):
        half.add(work / "query.csv")
    assert len(half) == 0


def test_pictures_in_memory_have_no_place(gallery):
    with pytest.raises(UsageError, match="save them first"):
        gallery.add([np.zeros((8, 4, 3), np.uint8)])


def test_the_commands(gallery, tmp_path, capsys, monkeypatch):
    """Each prints a sentence, or JSON; a mistake is a sentence and a code."""
    monkeypatch.chdir(tmp_path)

    def told(*words, code=0):
        assert main(["gallery", *map(str, words)]) == code
        return capsys.readouterr()

    assert json.loads(told("info", "g", "--json").out)["pictures"] == len(gallery)
    assert "float32" in told("info", "g").out
    assert "labelled" in told("label", "g", "--identity", "Ann", "--where", "speed = 1").out
    assert json.loads(told("remove", "g", "--where", "speed = 2", "--json").out)["removed"] > 0
    assert "forgot" in told("forget", "g", "--identity", "Ann").out
    assert "files" in told("compact", "g").out
    assert "wrote" in told("export", "g", "-o", "all.csv").out
    assert (
        "column 'spede', did you mean 'speed'"
        in told("remove", "g", "--where", "spede = 2", code=2).err
    )
    assert "there is no gallery" in told("info", "nowhere", code=4).err
