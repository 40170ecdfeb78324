"""Rows that meet a filter, read straight from the files: the same bits as Lance reads."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")

import lance
import numpy as np
import pyarrow as pa
from gallery_rows import put, random_templates

from reid_gallery import Gallery
from reid_gallery.filters import Filter
from reid_gallery.flat import Flat, is_local
from reid_gallery.ray_search import Asked, Keeper
from reid_gallery.reading import Reader
from reid_gallery.scan import Best, fragments_of, merged, tiles
from reid_gallery.schema import Column
from reid_gallery.scoring import Scorer
from reid_gallery.searching import scan
from reidcore.errors import DataError

FILTERS = [
    Filter.of("2"),
    Filter.of(["0", "3"], after=40),
    Filter.of(after=30, before=90),
    Filter.of(before=-1),
    Filter.of("elsewhere"),
    Filter.of(where="time % 7 < 2"),
    Filter.of("1", 10, 110, "identity IS NULL"),
    Filter.of("1", identity="Ann"),
]
RANKINGS = ["plain", "stretched"]


@pytest.fixture(autouse=True)
def straight(monkeypatch):
    """Files are read straight wherever the tests run, in several tiles a fragment."""
    monkeypatch.setattr("reid_gallery.reading.is_local", lambda place: "://" not in place)
    monkeypatch.setattr("reid_gallery.scan.TILE", 16)


@pytest.fixture
def gallery(work, trained, tmp_path):
    """A gallery of three fragments."""
    made = Gallery.create(work / "run", tmp_path / "g", "float16", "cpu")
    made._search = trained
    for seed in range(3):
        put(made, random_templates(trained, 120, seed))
    return made


def read(batches):
    """Rows as a list of tiles, each of the bytes of all its columns."""
    return [
        {
            name: (column.flatten() if name not in ("id", "_rowid") else column)
            .to_numpy(zero_copy_only=True)
            .tobytes()
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        for batch in batches
    ]


def compared(gallery, query, monkeypatch):
    """Asserts that all searches give the same bits both ways, and that the files were read."""
    view = gallery.view()
    tables = {one.name: one for one in gallery.search_run.plan.rankings}
    columns = gallery.origin.of(frozenset(["look", "far"]), False)
    for chosen in FILTERS:
        for number in fragments_of(view.dataset):
            theirs = tiles(view.dataset, number, columns, chosen.sql)
            assert read(view.tiles(number, columns, chosen)) == read(theirs)
        for name in RANKINGS:
            scorer = Scorer(gallery.search_run, gallery.origin, tables[name], view.maps, query)
            best = scan(view, scorer, 9, chosen)
            with monkeypatch.context() as patch:
                patch.setattr("reid_gallery.reading.is_local", lambda place: False)
                wanted = scan(view, scorer, 9, chosen)
            for part in ("distance", "id", "row"):
                assert np.array_equal(getattr(best, part), getattr(wanted, part))
    parts = view.reader._parts
    assert len(parts) == len(fragments_of(view.dataset))
    assert all(part.flat and None not in part.flat.values() for part in parts.values())


def test_the_same_bits_whatever_was_done_to_the_rows(gallery, trained, monkeypatch):
    """An open gallery follows additions, removals, labels, compaction and forgetting."""
    query = random_templates(trained, 4, 9)
    compared(gallery, query, monkeypatch)
    gallery.remove(where="time % 5 = 1")
    gallery.remove(after=0, before=3)
    compared(gallery, query, monkeypatch)
    gallery.label("Ann", camera="1", after=50)
    compared(gallery, query, monkeypatch)
    put(gallery, random_templates(trained, 50, 7))
    compared(gallery, query, monkeypatch)
    gallery.compact()
    compared(gallery, query, monkeypatch)
    assert gallery.forget(camera="1", after=100)
    compared(gallery, query, monkeypatch)


def test_an_actors_rows_are_those_of_a_scan(gallery, trained):
    """What a Ray actor does with its fragments gives the same bits, and keeps no filtered rows."""
    query = random_templates(trained, 2, 9)
    view = gallery.view()
    table = gallery.search_run.plan.rankings[0]
    scorer = Scorer(gallery.search_run, gallery.origin, table, view.maps, query)
    versions = view.dataset.version, view.maps.dataset.version
    keeper = Keeper(gallery.tables, gallery.origin, str(trained.folder.absolute()), "cpu", 1)
    keeper.ready()
    for chosen in FILTERS:
        asked = Asked(versions, table, query, 9, chosen)
        parts = [keeper.nearest(asked, [number]) for number in fragments_of(view.dataset)]
        found, best = merged([Best.none(2), *parts], 9), scan(view, scorer, 9, chosen)
        for part in ("distance", "id", "row"):
            assert np.array_equal(getattr(found, part), getattr(best, part))
    assert not keeper._kept


def test_what_is_kept_in_memory_has_a_limit(gallery, monkeypatch):
    """Facts of further fragments are read again; answers are the same."""
    query = random_templates(gallery.search_run, 2, 9)
    found = gallery.search(query, camera="2", after=50)
    assert all(part.facts is not None for part in gallery._reader._parts.values())
    monkeypatch.setattr("reid_gallery.reading.KEPT", 100)
    again = Gallery.open(gallery.place, device="cpu")
    again._search = gallery.search_run
    assert again.search(query, camera="2", after=50) == found
    assert [part.facts is not None for part in again._reader._parts.values()] == [
        True,
        False,
        False,
    ]


def vectors(rows, nullable=False):
    """A table with what filters ask and vectors of eight numbers, and the vectors' column."""
    column = Column("look__vector", "look", "vector", (8,), "float32", "float32", False)
    numbers = np.random.default_rng(0).standard_normal(rows * 8, np.float32)
    field = pa.field(column.name, column.field.type, nullable=nullable)
    base = [("id", pa.int64()), ("camera", pa.string()), ("time", pa.float64())]
    own = pa.FixedSizeListArray.from_arrays(pa.array(numbers), 8)
    if nullable:
        own = pa.array([*own.to_pylist()[1:], None], column.field.type)
    cells = [np.arange(rows), [str(n % 3) for n in range(rows)], np.arange(rows) / 2, own]
    schema = pa.schema([*(pa.field(*one) for one in base), field])
    return pa.table([pa.array(cell) for cell in cells], schema=schema), column


@pytest.mark.parametrize(
    ("version", "nullable"), [("2.0", True), ("2.1", False), ("2.2", False), ("2.0", False)]
)
def test_another_layout_is_left_to_lance(tmp_path, version, nullable):
    """Files of other versions, which pack numbers, and columns with nulls are not read straight."""
    table, column = vectors(100, nullable)
    place = str(tmp_path / "t.lance")
    dataset = lance.write_dataset(table, place, data_storage_version=version)
    known = version == "2.0" and not nullable
    assert (Flat.of(dataset, dataset.get_fragments()[0], column) is not None) == known
    chosen = Filter.of("1", before=30)
    found = read(Reader().tiles(dataset, 0, [column], chosen))
    assert found and found == read(tiles(dataset, 0, [column], chosen.sql))


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (16,), "stored": "float16"},  # as many bytes
        {"stored": "float64"},
        {"shape": (4,)},
        {"shape": (2, 2, 2), "stored": "int16"},
    ],
)
def test_a_column_of_another_kind_is_left_to_lance(tmp_path, wrong):
    """Also where as many bytes would be read."""
    table, column = vectors(100)
    dataset = lance.write_dataset(table, str(tmp_path / "t.lance"), data_storage_version="2.0")
    assert Flat.of(dataset, dataset.get_fragments()[0], attrs.evolve(column, **wrong)) is None


def test_what_lance_reads_otherwise_is_not_believed(tmp_path, monkeypatch):
    """Where the first look finds other bytes than Lance does, Lance reads."""
    table, column = vectors(100)
    dataset = lance.write_dataset(table, str(tmp_path / "t.lance"), data_storage_version="2.0")
    flat = Flat.of(dataset, dataset.get_fragments()[0], column)
    moved = attrs.evolve(flat, first=flat.first + 1)
    monkeypatch.setattr(Flat, "of", lambda *given: moved)
    chosen = Filter.of("1", after=1)
    found = read(Reader().tiles(dataset, 0, [column], chosen))
    assert found == read(tiles(dataset, 0, [column], chosen.sql))


def test_pages_of_any_length(tmp_path):
    """Rows are found on whatever page they lie; some pages have none of them."""
    table, column = vectors(5000)
    place = str(tmp_path / "t.lance")
    dataset = lance.write_dataset(table, place, data_storage_version="2.0")
    flat = Flat.of(dataset, dataset.get_fragments()[0], column)
    assert len(flat.first) == 1
    cuts = np.array([0, 1, 700, 701, 4000])
    paged = attrs.evolve(flat, first=cuts, position=flat.position[0] + cuts * flat.width)
    draw = np.random.default_rng(1)
    for rows in ([], [0], [4999], [699, 700, 701], np.sort(draw.choice(5000, 300, False))):
        wanted = table.column(column.name).take(pa.array(rows, pa.int64())).combine_chunks()
        assert paged.read(np.array(rows, np.int64)).equals(wanted.cast(column.field.type))


def test_files_that_have_gone_are_told(gallery):
    """So that a search begins anew where another program has removed them."""
    query = random_templates(gallery.search_run, 1, 9)
    assert gallery.search(query, camera="2")[0].matches
    for path in Path(gallery.place).glob("pictures.lance/data/*.lance"):
        path.unlink()
    with pytest.raises(DataError, match="No such file"):
        gallery.search(query, camera="2")


def test_only_a_machines_own_file_systems_are_mapped(tmp_path):
    """A folder belongs to the mount that lies deepest above it, the last one where several do."""
    mounts = tmp_path / "mountinfo"
    place = tmp_path / "a b" / "deep"
    place.mkdir(parents=True)
    line = "1 2 0:1 / {} rw - {} source rw\n"
    escaped = str(place.parent).replace(" ", "\\040")
    for kinds, wanted in ((["ext4"], True), (["nfs4"], False), (["nfs4", "xfs"], True)):
        named = [line.format(escaped, kind) for kind in kinds]
        mounts.write_text("".join([line.format("/", "fuse.x"), *named, line.format("/b", "nfs")]))
        is_local.cache_clear()
        assert is_local(str(place), mounts) == wanted
        assert not is_local(str(tmp_path), mounts)
    assert not is_local("s3://bucket/gallery", mounts)
    assert not is_local(str(place), tmp_path / "none")
