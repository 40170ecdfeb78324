"""The report of a run of the plugin: re-ranked, lifted by times, with its correspondences."""

from __future__ import annotations

import pytest
from browser import needs_chromium, opened, read, title_of

from reidcore.cli.main import main


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a short run of qaconv:demo on 60 queries."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("REID_CACHE", str(folder / "cache"))
        sets = (
            "train.epochs=1",
            "train.device=cpu",
            "backbone.width=0.125",
            "data.image=[48, 24]",
            "data.train.train_identities=8",
            "data.test.0.test_identities=15",
            "data.test.0.train_identities=2",
            "data.train.test_identities=2",
        )
        options = [part for one in sets for part in ("--set", one)]
        assert main(["run", "qaconv:demo", "--out", "run", *options]) == 0
        command = ["report", "run", "--queries", "60", "--ranking", "reranked", "--device", "cpu"]
        assert main([*command, "-o", "page.html"]) == 0
        yield folder / "page.html"


def test_what_the_plugin_adds_is_on_the_page(page):
    """Both postprocessors' changes, times below pictures, and correspondences both ways."""
    found = read(page.read_text())
    for words in ("plain → rerank", "rerank → rerank+tlift", "time ", "60 queries"):
        assert words in found.text, words
    alts = [one["alt"] for one in found.all("img")]
    for name in ("matcher.pairs.to_gallery", "matcher.pairs.to_query"):
        assert any(alt.startswith(f"{name}: lines between") for alt in alts), name
    for stage in ("plain", "rerank", "rerank+tlift"):
        assert any(alt.startswith(f"Histograms of distances, {stage}:") for alt in alts), stage
    lists = [one for one in found.pictures() if one["aria-label"].startswith("query")]
    assert len(lists) >= 60
    assert page.stat().st_size < 5 * 2**20


@needs_chromium
def test_the_page_opens_by_itself(page, tmp_path):
    """All of it is there in a browser that gets nothing from outside."""
    found = opened(tmp_path, page)
    assert title_of(found.dom) == "Report: run"
    assert found.requests == []
    assert len(read(found.dom).pictures()) == len(read(page.read_text()).pictures())
