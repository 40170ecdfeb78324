"""The site of the documents: its pages and links, and, slowly, all of it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from browser import needs_chromium, opened, title_of
from distributions import ROOT

pytest.importorskip("griffe", reason="the site's tools: uv sync --group site")


@pytest.fixture(scope="module")
def script():
    """A module of docs/ by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield importlib.import_module
        for name in ("build_site", "site_links", "site_pages", "site_docstrings", "generate"):
            sys.modules.pop(name, None)


def flat(entry: object) -> list[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    inner = entry.values() if isinstance(entry, dict) else entry
    return [page for one in inner for page in flat(one)]


def test_every_page_is_in_the_navigation_once(script):
    site = script("build_site")
    pages = {*site.sources().values(), "reference/commands.md"}
    pages |= {f"reference/{door}.md" for door in site.DOORS}
    listed = flat(site.navigation())
    assert sorted(listed) == sorted(pages)


def test_a_folder_that_is_no_site_is_kept(script, tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="holds something else than a site"):
        script("build_site").assemble(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years"


def test_commands_inside_a_command_are_listed(script):
    pages = script("site_pages")
    assert pages.inner_commands(pages.help_of("data")) == ["index", "check", "demo"]
    assert pages.inner_commands(pages.help_of("rank")) == []


class TestLinks:
    def test_they_lead_to_where_pages_stand(self, script):
        site = script("build_site")
        pages = site.sources()
        file = ROOT / "plugins" / "tune" / "README.md"
        text = (
            "[a](../../README.md) [b](../../docs/data.md#msmt17) [c](../timm/README.md)\n"
            "[d](https://example.org/x) [e](#here) [`f`](../../reidcore/tools.py)\n"
            "```\n[g](../../README.md)\n```\n"
        )
        assert site.moved(text, file, pages) == (
            "[a](../index.md) [b](../data.md#msmt17) [c](timm.md)\n"
            "[d](https://example.org/x) [e](#here) `f`\n"
            "```\n[g](../../README.md)\n```\n"
        )

    def test_one_that_leads_to_no_file_is_told(self, script):
        site = script("build_site")
        with pytest.raises(ValueError, match=r"README.md: \[a\]\(docs/none.md\) leads to no file"):
            site.moved("[a](docs/none.md)", ROOT / "README.md", site.sources())

    def test_dead_ones_of_built_pages_are_told(self, script, tmp_path):
        links = script("site_links")
        (tmp_path / "b").mkdir()
        (tmp_path / "a.html").write_text(
            '<p id="x"><a href="#x"><a href="#y"><a href="b/c.html#z"><a href="b/c.html#w">'
            '<img src="none.png"><a href="https://example.org">'
        )
        (tmp_path / "b" / "c.html").write_text('<p id="z"><a href="../a.html">')
        assert links.dead_links(tmp_path) == [
            "a.html: #y leads to no place of that page",
            "a.html: b/c.html#w leads to no place of that page",
            "a.html: none.png leads to no file",
        ]


class TestExamples:
    def test_doctests_are_fenced(self, script):
        fenced = script("site_docstrings").fenced
        assert fenced("Do.\n\nExample:\n    >>> a\n    ... b\n      1\n\nArgs:\n    x: y") == (
            "Do.\n\nExample:\n    ```pycon\n    >>> a\n    ... b\n      1\n    ```\n\n"
            "Args:\n    x: y"
        )

    def test_code_behind_two_colons_is_fenced(self, script):
        fenced = script("site_docstrings").fenced
        assert fenced("Do.\n\nExample::\n\n    a\n\n    b\n\nRaises:\n    C: d") == (
            "Do.\n\nExample:\n    ```python\n    a\n\n    b\n    ```\n\nRaises:\n    C: d"
        )


@pytest.fixture(scope="module")
def built(script, tmp_path_factory):
    """The folder of the whole site's HTML. Fails on any warning and on dead links."""
    pytest.importorskip("zensical")
    folder = tmp_path_factory.mktemp("site")
    wrong = script("build_site").build(folder)
    assert not wrong, "\n".join(wrong)
    return folder / "html"


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestSite:
    def test_names_of_the_doors_are_found(self, built):
        """Each has its place in the reference, and the search knows the words."""
        for door in ("api", "modules", "networks", "tools", "testing", "errors", "sizes"):
            module = importlib.import_module(f"reidcore.{door}")
            page = (built / "reference" / f"reidcore.{door}.html").read_text(encoding="utf-8")
            names = [name for name in module.__all__ if not name.startswith("__")]
            assert not [name for name in names if f'id="reidcore.{door}.{name}"' not in page]
        index = "".join(path.read_text("utf-8") for path in built.glob("**/search*.json"))
        for word in ("need_logits", "BatchShape", "shortlisted", "qaconv.memory"):
            assert word in index

    def test_plugins_have_their_settings(self, built):
        page = (built / "plugins" / "qaconv.html").read_text(encoding="utf-8")
        assert "Settings of components" in page
        assert "left_out: rows are compared" in page

    @needs_chromium
    def test_nothing_is_asked_of_other_servers(self, built, tmp_path):
        assert opened(tmp_path, built / "index.html").requests == []

    @needs_chromium
    @pytest.mark.parametrize("page", ["index", "pictures", "run-files", "reference/reidcore.api"])
    def test_pages_fit_a_narrow_screen(self, built, tmp_path, page):
        """What is too wide, such as code and tables, scrolls in itself."""
        file = built / f"{page}.html"
        measured = file.with_name("measured.html")
        script = "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script>"
        measured.write_text(file.read_text("utf-8") + script)
        outer = Path(tmp_path, "outer.html")
        outer.write_text(
            "<title>none</title><script>onmessage = m => { document.title = m.data }</script>"
            f'<iframe src="{measured.as_uri()}" width="390" height="700"></iframe>'
        )
        assert int(title_of(opened(tmp_path, outer).dom)) <= 390
