"""Parts of a ranking, as trials are: their distances come from blocks that are computed once."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch

from reidcore.api import Matching, TensorSpec
from reidcore.ranking import blocks
from reidcore.ranking.fusion import Fusion, Share, Shortlisting
from reidcore.ranking.kept_blocks import KeptBlocks, block_rows, is_long
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.resources import Resources
from reidcore.ranking.sides import Sides
from reidcore.support.progress import Silent
from tests.fused_rankings import SCALE, Power, meta, vectors

QUERIES, GALLERY = 23, 31
FREE = Matching({"v": TensorSpec((4,))}, pair_bytes=16)
LONG = Matching({"v": TensorSpec((4,))}, pair_bytes=16, pair_flops=10**11)
"""Of which all pairs of queries and gallery are a long job, of two rows a block."""


class Counted(Power):
    """Counts the pairs that it compares."""

    pairs = 0

    def distance(self, a, b):
        found = super().distance(a, b)
        self.pairs += found.numel()
        return found


def context(
    matcher: Power, matching: Matching = FREE, scale=None, kept=None, memo=None, **fusion
) -> MatcherRanking:
    sides = {"query": vectors(QUERIES, 0), "gallery": vectors(GALLERY, 1)}
    templates = {
        side: {name: {"v": found} for name in ("look", "coarse")} for side, found in sides.items()
    }
    share = Share("look", matcher, matching, 1.0, scale)
    pictures = Sides(meta(QUERIES), meta(GALLERY), templates)
    return MatcherRanking(Fusion([share], **fusion), pictures, Resources(kept=kept), memo)


def drawn(trials: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Places of some queries and gallery pictures, ascending; the last trial has all of them."""
    draw = torch.Generator().manual_seed(5)
    found = [
        tuple(
            torch.randperm(size, generator=draw)[: size // 2].sort().values
            for size in (QUERIES, GALLERY)
        )
        for _ in range(trials - 1)
    ]
    return [*found, (torch.arange(QUERIES), torch.arange(GALLERY))]


SIDES = [("query", "gallery"), ("gallery", "query"), ("query", "query"), ("gallery", "gallery")]


@pytest.mark.parametrize("held", [1 << 31, 1], ids=["held", "one block"])
@pytest.mark.parametrize("rows", [512, 4])
def test_a_part_sees_its_own_pictures(rows, held, monkeypatch):
    """Whatever is asked of a part is what is asked of its rows and columns of the whole, whether
    blocks can be held or not."""
    monkeypatch.setattr(blocks, "ROWS", rows)
    monkeypatch.setattr(blocks, "HELD", held)
    whole = context(Power(2), scale=SCALE)
    for query, gallery in drawn():
        part = whole.part(query, gallery)
        places = {"query": query, "gallery": gallery}
        assert torch.equal(part.query.camera, whole.query.camera[query])
        for a, b in SIDES:
            size = {"query": QUERIES, "gallery": GALLERY}[a]
            expected = whole.between(a, b, 0, size)[places[a]][:, places[b]]
            found = part.between(a, b, 0, len(places[a]))
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(part.between(a, b, 2, 7), expected[2:7])
            assert part.between(a, b, 3, 3).shape == (0, len(places[b]))
        i, j = torch.tensor([0, 4, 4, 9]), torch.tensor([7, 7, 0, 3])
        expected = whole.pairs("query", query[i], "gallery", gallery[j])
        torch.testing.assert_close(part.pairs("query", i, "gallery", j), expected)
        near = torch.stack([torch.arange(len(query)) % len(gallery)], 1)
        expected = whole.part(query, torch.arange(GALLERY)).expanded(gallery[near])[:, gallery]
        torch.testing.assert_close(part.expanded(near), expected)


def test_scales_by_row_and_shortlists_are_a_parts_own():
    """Rows are stretched over the part's gallery, and its nearest pictures are listed."""
    for query, gallery in drawn(3):
        part = context(Power(2), by_row=True).part(query, gallery)
        found = part.between("query", "gallery", 0, len(query))
        assert (found.amin(1) == 0).all() and (found.amax(1) == 1).all()

        coarse = Shortlisting(Share("coarse", Power(1), FREE), 3, False)
        whole = context(Power(2), shortlist=coarse)
        places = {"query": query, "gallery": gallery}
        templates = {
            side: {name: {"v": template["v"][places[side]]} for name, template in stored.items()}
            for side, stored in whole.sides.templates.items()
        }
        alone = MatcherRanking(
            whole.fusion, Sides(whole.query[query], whole.gallery[gallery], templates)
        )
        found = whole.part(query, gallery).between("query", "gallery", 0, len(query))
        torch.testing.assert_close(found, alone.between("query", "gallery", 0, len(query)))


@pytest.mark.parametrize("rows", [512, 4])
def test_distances_are_computed_once_for_all_parts(rows, monkeypatch):
    """However many trials ask, a pair of pictures is compared once."""
    monkeypatch.setattr(blocks, "ROWS", rows)
    matcher = Counted(2)
    whole = context(matcher)
    for query, gallery in drawn():
        part = whole.part(query, gallery)
        for a, b in (("query", "gallery"), ("gallery", "gallery")):
            part.between(a, b, 0, len({"query": query, "gallery": gallery}[a]))
    assert matcher.pairs == QUERIES * GALLERY + GALLERY**2


def test_long_distances_of_all_parts_are_kept(tmp_path: Path, monkeypatch):
    """Trials find the kept blocks of the whole, which begin at multiples of their size, and so do
    rows that are asked for otherwise; a later process compares nothing again."""

    def keeping(matcher):
        kept = KeptBlocks(tmp_path, lambda: "key", Silent()).of_set("test")
        return context(matcher, LONG, kept=kept)

    monkeypatch.setattr(blocks, "HELD", 1)
    matcher = Counted(2)
    whole = keeping(matcher)
    whole.between("query", "gallery", 3, 8)
    for query, gallery in drawn():
        part = whole.part(query, gallery)
        found = part.between("query", "gallery", 0, len(query))
        expected = context(Power(2)).between("query", "gallery", 0, QUERIES)
        torch.testing.assert_close(found, expected[query][:, gallery])
    assert matcher.pairs == QUERIES * GALLERY
    starts = {int(path.stem.split("-")[-2]) for path in tmp_path.glob("scoring-key/*/*")}
    assert starts == set(range(0, QUERIES, min(starts - {0})))

    later = Counted(2)
    again = keeping(later).between("query", "gallery", 0, QUERIES)
    torch.testing.assert_close(again, expected)
    assert later.pairs == 0


def assembled(ranking: MatcherRanking, side: str, size: int, entries: int) -> torch.Tensor:
    """All distances within a side, from its blocks; what comes twice must agree."""
    whole = torch.full((size, size), torch.nan)
    for start, first, block in ranking.within(side, entries):
        rows, columns = (
            slice(at, at + length) for at, length in zip((start, first), block.shape, strict=True)
        )
        assert whole[rows, columns].isnan().all()
        assert block.numel() <= max(1, entries)
        whole[rows, columns] = block
        if ranking.symmetric:
            mirror = whole[columns, rows]
            mirror[mirror.isnan()] = block.T[mirror.isnan()]
    return whole


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("entries", [1, 50, 10**6])
def test_blocks_within_a_side_are_its_rows(symmetric, entries):
    """Whatever their size, they make up the distances of `between`, of a part too."""
    whole = context(Power(2), attrs.evolve(FREE, symmetric=symmetric), scale=SCALE)
    for ranking in (whole, whole.part(*drawn(2)[0])):
        for side, meta_of_side in (("query", ranking.query), ("gallery", ranking.gallery)):
            size = len(meta_of_side)
            found = assembled(ranking, side, size, entries)
            torch.testing.assert_close(found, ranking.between(side, side, 0, size))


@pytest.mark.parametrize("symmetric", [False, True])
def test_long_blocks_within_a_side_are_kept(tmp_path: Path, symmetric, monkeypatch):
    """Another ranking of the same pictures finds them, and a symmetric matcher compares half."""
    matcher = Counted(2)
    long = attrs.evolve(LONG, symmetric=symmetric)
    kept = KeptBlocks(tmp_path, lambda: "key", Silent()).of_set("test")
    found = []
    for _ in range(2):
        ranking = context(matcher, long, kept=kept)
        found.append(assembled(ranking, "gallery", GALLERY, 10**6))
    assert torch.equal(*found)
    rows = block_rows(long, GALLERY)
    half = sum(min(rows, GALLERY - start) * (GALLERY - start) for start in range(0, GALLERY, rows))
    assert matcher.pairs == (half if symmetric else GALLERY**2)
    torch.testing.assert_close(
        found[0], context(Power(2)).between("gallery", "gallery", 0, GALLERY)
    )


def test_what_follows_from_the_gallery_is_made_once():
    made = []
    memo: dict = {}
    for _ in range(2):
        ranking = context(Power(2), memo=memo)
        assert ranking.of_gallery("key", lambda: made.append(1) or "it") == "it"
    assert len(made) == 1


def test_a_gpu_keeps_what_takes_long_on_a_gpu():
    """Blocks of more rows, and no blocks of what a CPU would take minutes for."""
    matching = attrs.evolve(LONG, pair_flops=10**7)
    gpu = torch.device("cuda")
    assert is_long(matching, 2000, 1000) and not is_long(matching, 2000, 1000, gpu)
    assert is_long(matching, 20_000, 10_000, gpu)
    assert block_rows(matching, 10_000, gpu) > 10 * block_rows(matching, 10_000)
