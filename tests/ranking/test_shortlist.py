"""Rankings that score only the gallery pictures that another matcher chooses."""

from __future__ import annotations

from pathlib import Path

import bad_torch
import pytest
import torch
from running import TINY, environment, reid

from reidcore.api import Matching, TensorSpec
from reidcore.cli.main import main
from reidcore.errors import PluginError
from reidcore.ranking import shortlist
from reidcore.ranking.fusion import Fusion, Share, Shortlisting
from reidcore.ranking.matcher_ranking import MatcherRanking
from reidcore.ranking.sides import Sides
from reidcore.search.search import load
from tests.fused_rankings import SCALE, Power, meta, vectors

QUERIES, GALLERY = 5, 40
FREE = Matching({"v": TensorSpec((4,))}, pair_bytes=16)


class Counted(Power):
    """Counts the pairs that it compares."""

    pairs = 0

    def distance(self, a, b):
        found = super().distance(a, b)
        self.pairs += found.numel()
        return found


class Rounded(Power):
    """Distances with many ties."""

    def distance(self, a, b):
        return super().distance(a, b).mul(4).round()


def shortlisted(top: int, coarse: Power | None = None, unit: bool = False):
    """The context, and the same ranking without a shortlist."""
    fine = Counted(2)
    shares = [Share("fine", fine, FREE, 1.0, SCALE if unit else None)]
    sides = {
        side: {name: {"v": vectors(size, seed)} for name in ("fine", "coarse")}
        for side, size, seed in (("query", QUERIES, 0), ("gallery", GALLERY, 1))
    }
    chooses = Share("coarse", coarse or Power(1), FREE)
    pictures = Sides(meta(QUERIES), meta(GALLERY), sides)
    listing = Shortlisting(chooses, top, unit)
    return (
        MatcherRanking(Fusion(shares, shortlist=listing), pictures),
        MatcherRanking(Fusion(shares), pictures),
        chooses.matcher.distance(sides["query"]["coarse"], sides["gallery"]["coarse"]),
        fine,
    )


def reference(whole: torch.Tensor, coarse: torch.Tensor, top: int) -> list[list[int]]:
    """Each query's gallery: the nearest `top` by coarse distance in the order of the whole
    distances, then the rest in coarse order; ties in the gallery's."""
    lists = []
    for row, near in zip(whole.tolist(), coarse.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda j: (near[j], j))
        listed = sorted(sorted(order[:top]), key=lambda j: row[j])
        lists.append(listed + order[top:])
    return lists


@pytest.mark.parametrize("unit", [False, True], ids=["free", "unit"])
@pytest.mark.parametrize("top", [1, 7, GALLERY, 1000])
@pytest.mark.parametrize("coarse", [Power(1), Rounded(1)], ids=["", "ties"])
def test_the_rest_is_behind_in_coarse_order(top: int, coarse: Power, unit: bool):
    """Scored are the listed pairs only, with the very distances of the ranking without a shortlist;
    any block of rows is that part of the whole."""
    context, plain, near, fine = shortlisted(top, coarse, unit)
    found = context.between("query", "gallery", 0, QUERIES)
    assert fine.pairs == QUERIES * min(top, GALLERY)
    whole = plain.between("query", "gallery", 0, QUERIES)
    expected = reference(whole, near, top)
    assert found.argsort(dim=1, stable=True).tolist() == expected
    for row, order in enumerate(expected):
        listed = order[:top]
        torch.testing.assert_close(found[row, listed], whole[row, listed], rtol=0, atol=0)
        if order[top:]:
            assert found[row, order[top:]].min() >= 1 + found[row, listed].max()
            assert found[row, order[top:]].min() >= 2
    torch.testing.assert_close(context.between("query", "gallery", 2, 4), found[2:4])


@pytest.mark.parametrize("unit", [False, True], ids=["free", "unit"])
def test_what_is_left_out_stays_behind_what_postprocessors_make(unit: bool):
    """A postprocessor gets left-out pictures at distance 1 where distances are in [0, 1], and
    whatever it makes of them, they rank behind what it made of the others."""
    context, _, near, _ = shortlisted(6, unit=unit)
    distances = context.between("query", "gallery", 0, QUERIES)
    behind = reference(distances, near, 6)
    offered = context.before_postprocessing(distances.clone())
    for row, order in enumerate(behind):
        kept = offered[row, order[:6]]
        torch.testing.assert_close(kept, distances[row, order[:6]], rtol=0, atol=0)
        assert (
            (offered[row, order[6:]] == 1).all() if unit else (offered[row] == distances[row]).all()
        )
    turned = -offered  # the wildest postprocessor there can be
    complete = context.after_postprocessing(turned, 0)
    for row, order in enumerate(behind):
        assert complete[row].argsort(stable=True).tolist() == [*reversed(order[:6]), *order[6:]]
    torch.testing.assert_close(context.after_postprocessing(turned[1:3], 1), complete[1:3])


@pytest.mark.parametrize("at_once", [1, 100, 1 << 22])
@pytest.mark.parametrize("coarse", [Power(1), Rounded(1)], ids=["", "ties"])
def test_a_ranking_says_what_is_scored(coarse: Power, at_once: int, monkeypatch):
    """The pairs that are compared and no others, in any block of rows, of a part too; nothing where
    all are."""
    monkeypatch.setattr(shortlist, "_ORDERED", at_once)
    context, plain, near, fine = shortlisted(7, coarse)
    assert plain.scored(0, QUERIES) is None
    found = context.scored(0, QUERIES)
    assert fine.pairs == 0 and found.dtype == torch.bool
    for row, order in enumerate(reference(near, near, 7)):
        assert found[row].nonzero()[:, 0].tolist() == sorted(order[:7])
    assert torch.equal(context.scored(2, 4), found[2:4])
    assert context.scored(3, 3).shape == (0, GALLERY)
    query, gallery = torch.tensor([1, 4]), torch.arange(0, GALLERY, 3)
    part = context.part(query, gallery)
    for row, order in enumerate(reference(*[near[query][:, gallery]] * 2, 7)):
        assert part.scored(0, 2)[row].nonzero()[:, 0].tolist() == sorted(order[:7])


@pytest.mark.parametrize("unit", [False, True], ids=["free", "unit"])
def test_a_postprocessor_can_average_what_is_scored(unit: bool):
    """As loops in float64 do over the listed pairs, in any order of postprocessors; the rest stays
    behind."""
    context, plain, near, _ = shortlisted(6, unit=unit)
    average = bad_torch.masking(None, None)
    distances = context.before_postprocessing(context.between("query", "gallery", 0, QUERIES))
    whole = plain.between("query", "gallery", 0, QUERIES).tolist()
    once = average(distances.clone(), context)
    found = {"once": once, "twice": average(once.clone(), context)}
    for row, order in enumerate(reference(near, near, 6)):
        listed = order[:6]
        own = {j: whole[row][j] for j in listed}
        for name in ("once", "twice"):
            mean = sum(own.values()) / len(own)
            own = {j: (value + mean) / 2 for j, value in own.items()}
            expected = torch.tensor([own[j] for j in listed])
            torch.testing.assert_close(found[name][row, listed], expected, rtol=1e-6, atol=1e-6)
            ranked = context.after_postprocessing(found[name], 0)[row].argsort(stable=True)
            assert ranked.tolist()[6:] == order[6:]


def test_other_distances_are_refused():
    """A postprocessor that forgot to say that it asks for more is told."""
    context, _, _, _ = shortlisted(3)
    index = torch.tensor([0])
    for ask in (
        lambda: context.between("gallery", "gallery", 0, GALLERY),
        lambda: context.pairs("query", index, "gallery", index),
        lambda: context.expanded(torch.zeros(QUERIES, 1, dtype=torch.int64)),
    ):
        with pytest.raises(PluginError, match="a shortlist does not allow"):
            ask()


TWO = """
[[matcher]]
name = "far"
use = "core.euclidean"
features = ["neck.pooled"]

[[ranking]]
name = "whole"
matcher = "far"

[[ranking]]
name = "near"
matcher = "look"

[[ranking]]
name = "short"
matcher = "far"
shortlist = { by = "look", top = 3 }
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REID_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.toml").write_text(TINY.replace("epochs = 6", "epochs = 1") + TWO)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('shortlist={by="lok",top=3}', "shortlist.by names 'lok', did you mean 'look'?"),
        ('shortlist={by="far",top=3}', "is the ranking's own matcher 'far'"),
        ('shortlist={by="look",top=0}', "expected a number at least 1, got 0 at .shortlist.top"),
        ('shortlist={by="look"}', "missing key 'top'"),
        ('shortlist={by="look",tops=3,top=3}', "unknown key 'tops' in .shortlist, did you"),
    ],
)
def test_mistakes_are_told(here: Path, capsys: pytest.CaptureFixture[str], change: str, says: str):
    assert main(["check", "--no-dry", "tiny.toml", "--set", f"ranking.short.{change}"]) == 2
    assert says in capsys.readouterr().err


def test_what_needs_all_distances_is_refused(here: Path, capsys: pytest.CaptureFixture[str]):
    text = (here / "tiny.toml").read_text()
    post = '\n[[post]]\nname = "rerank"\nuse = "core.rerank"\n'
    (here / "tiny.toml").write_text(text + post)
    command = ["check", "--no-dry", "tiny.toml", "--set", 'ranking.whole.post=["rerank"]']
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "short: far of the 3 nearest by look" in out in out
    assert main([*command[:-1], 'ranking.short.post=["rerank"]']) == 2
    assert "its ranking's shortlist leaves out" in capsys.readouterr().err


def test_a_run_ranks_by_shortlist(here: Path):
    """Scores, evaluation again without the training data, and search agree on the same lists."""
    env = environment(here / "cache")
    printed = reid(env, here, "run", "tiny.toml", "--out", "run").stdout
    assert "ranking short, 3 of 18 gallery pictures of each query, the nearest by look: 16.7 %" in (
        printed.replace("%", " %")
    )
    assert "(18 of the shortlist)" in reid(env, here, "check", "--no-dry", "tiny.toml").stdout
    assert main(["eval", "run", "-o", "again.json"]) == 0
    assert (here / "again.json").read_text() == (here / "run" / "scores.json").read_text()
    found = load(here / "run")
    folder = next((here / "cache").glob("demo-*"))
    pictures = found.templates(folder / "manifest.csv")
    near, whole = (found.distances(pictures, pictures, name) for name in ("near", "whole"))
    expected = reference(whole, near, 3)
    for query, order in enumerate(expected):
        order.remove(query)  # its own file
    assert found.rank(pictures, pictures, 20, "short").index.tolist() == [
        order[:20] for order in expected
    ]
