"""Approximate neighbours, on rows of random vectors."""

from __future__ import annotations

import pytest

pytest.importorskip("lance", reason="needs `uv run --all-groups`")

from gallery_rows import put, random_templates

from reid_gallery import Gallery
from reidcore.api import Row
from reidcore.errors import UsageError
from reidcore.tools import Templates

ROWS = 4000


@pytest.mark.slow
def test_approximate_neighbours(work, trained, tmp_path, monkeypatch):
    """Most are those of the exact search, with its distances, and a larger share finds more;
    conditions hold, rows that were added after the index are found, and forgetting drops it."""
    monkeypatch.setattr("reid_gallery.approximate.FEW", 0)
    gallery = Gallery.create(work / "run", tmp_path / "g", device="cpu")
    gallery._search = trained
    put(gallery, random_templates(trained, 100, 1))
    query = random_templates(trained, 8, 2)
    with pytest.raises(UsageError, match=r"no index .* compact --ann"):
        gallery.search(query, ann=True)
    with pytest.raises(UsageError, match="takes at least 256"):
        gallery.compact(ann=True)
    put(gallery, random_templates(trained, ROWS, 3))
    gallery.compact(ann=True)
    late = random_templates(trained, 8, 2)
    moved = {name: {k: v + 1e-3 for k, v in part.items()} for name, part in late.parts.items()}
    rows = tuple(Row(f"/late/{n}.jpg", "", "9", "gallery", 1.0) for n in range(8))
    put(gallery, Templates(rows, moved, trained.made_by))
    for given in ({}, {"camera": "2"}, {"ranking": "short"}):
        exact = gallery.search(query, top=10, **given)
        found = gallery.search(query, top=10, ann=True, **given)
        hits = 0
        for one, other in zip(exact, found, strict=True):
            known = {match.id: match.distance for match in one.matches}
            hits += len(known.keys() & {match.id for match in other.matches})
            if given.get("ranking") is None:
                for match in other.matches:
                    assert known.get(match.id, match.distance) == pytest.approx(
                        match.distance, abs=1e-6
                    )
            if "camera" in given:
                assert {match.camera for match in other.matches} == {"2"}
            elif not given:
                assert other.matches[0].source == one.matches[0].source
                assert other.matches[0].source.startswith("/late/")
        assert hits >= 0.7 * sum(len(one.matches) for one in exact)
    monkeypatch.setattr("reid_gallery.approximate.PROBES", 1)
    exact = gallery.search(query, top=10)
    counts = [
        sum(
            len({one.id for one in a.matches} & {one.id for one in b.matches})
            for a, b in zip(exact, gallery.search(query, top=10, ann=share), strict=True)
        )
        for share in (0.01, 1.0)
    ]
    assert counts[0] < counts[1]
    for share in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="above 0 and up to 1"):
            gallery.search(query, ann=share)
    monkeypatch.undo()
    few = gallery.search(query, top=10, camera="2")
    assert gallery.search(query, top=10, camera="2", ann=True) == few
    with pytest.raises(UsageError, match="fuses look and far"):
        gallery.search(query, ann=True, ranking="fused")
    with pytest.raises(UsageError, match="are no single vectors"):
        gallery.search(query, ann=True, ranking="pairs")
    assert gallery.forget(camera="9") == 8
    with pytest.raises(UsageError, match="no index"):
        gallery.search(query, ann=True)
