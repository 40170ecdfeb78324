"""A vector database finds candidates, and a gallery's own answers come of them: with Qdrant's
embedded edition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import TINY, TWO_RANKINGS

from reidcore.cli.main import main
from reidcore.errors import UsageError

qdrant = pytest.importorskip("qdrant_client")
pytest.importorskip("lance")

from reid_gallery import Gallery, adapters, qdrant_store  # noqa: E402
from reid_gallery.adapters import StoreScan  # noqa: E402
from reid_gallery.qdrant_store import QdrantStore  # noqa: E402

COUNT = 60


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with an untrained run, pictures and a gallery of them."""
    folder = tmp_path_factory.mktemp("adapters")
    text = TINY.replace("epochs = 6", "epochs = 0").replace("every = 1", "")
    (folder / "tiny.toml").write_text(text + TWO_RANKINGS)
    dice = np.random.default_rng(0)
    lines = ["path,camera"]
    (folder / "shots").mkdir()
    for number in range(COUNT):
        pixels = dice.integers(0, 256, (8, 4, 3), dtype=np.uint8)
        name = f"shots/{number:02d}.jpg"
        Image.fromarray(pixels).resize((16, 32)).save(folder / name)
        lines.append(f"{name},{number % 3}")
    (folder / "shots.csv").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        assert main(["run", "tiny.toml", "--out", "run", "--set", "train.device=cpu"]) == 0
        Gallery.create("run", "gallery", device="cpu").add("shots.csv")
        yield folder


def with_store(work: Path, folder: Path, factor: int = 4):
    gallery = Gallery.open(work / "gallery", device="cpu")
    (column,) = (one for one in gallery.origin.columns if one.matcher == "look")
    client = qdrant.QdrantClient(path=str(folder / "qdrant"))
    store = QdrantStore(client, "look", column.name, column.shape[0])
    scan = StoreScan(store, factor)
    scan.update(gallery.view())
    gallery.scan = scan
    return gallery, store


def test_answers_are_the_gallerys_own(work, tmp_path):
    """Distances, probabilities and order equal those of the exact scan, with a condition too, since
    candidates are scored exactly; what is asked for is a part of what the database is asked for."""
    gallery, store = with_store(work, tmp_path, factor=10)
    exact = Gallery.open(work / "gallery", device="cpu")
    assert sorted(store.ids()) == sorted(
        exact.tables.open().to_table(columns=["id"]).column(0).to_pylist()
    )
    queries = [work / f"shots/{number:02d}.jpg" for number in (0, 9)]
    for limits in ({}, {"camera": "2"}):
        found = gallery.search(queries, top=5, **limits)
        expected = exact.search(queries, top=5, **limits)
        assert [len(one.matches) for one in found] == [5, 5]
        for one, other in zip(found, expected, strict=True):
            assert [match.source for match in one.matches] == [
                match.source for match in other.matches
            ]
            for mine, theirs in zip(one.matches, other.matches, strict=True):
                assert mine.distance == pytest.approx(theirs.distance, abs=1e-6)
                assert mine.probability == theirs.probability


def test_the_store_follows_the_gallery(work, tmp_path):
    """`update` puts what is new, once, and takes out what is not there."""
    gallery, store = with_store(work, tmp_path)
    ids = store.ids()
    store.remove(ids[:5])
    store.put(np.array([7, 8]), np.ones((2, gallery.origin.columns[0].shape[0])))
    assert len(store.ids()) == COUNT - 3
    gallery.scan.update(gallery.view())
    assert sorted(store.ids()) == sorted(ids)


def test_the_interface_stays_small():
    """Who brings another database reads it whole."""
    for module in (adapters, qdrant_store):
        assert len(Path(module.__file__).read_text().splitlines()) <= 60


def test_a_list_may_be_shorter_than_asked_for(work, tmp_path):
    """More rows than there are, and none that meets the condition."""
    gallery, _ = with_store(work, tmp_path)
    (answer,) = gallery.search([work / "shots/00.jpg"], top=COUNT * 2)
    assert len(answer.matches) == COUNT - 1
    (answer,) = gallery.search([work / "shots/00.jpg"], where="camera = '0' AND id < 0")
    assert answer.matches == ()


def test_what_the_database_cannot_rank_is_told(work, tmp_path):
    gallery, store = with_store(work, tmp_path)
    with pytest.raises(UsageError, match=f"the database has {store.column}, which does not rank"):
        gallery.search([work / "shots/00.jpg"], ranking="both")
